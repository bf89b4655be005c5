"""What a scheduler tells of itself: estimates, explanations and recordings, in virtual time."""

from __future__ import annotations

from pathlib import Path

import pytest

from batchcore.records import REASONS
from pybatch.explanation import WORDS
from pybatch.simulation import Trace
from pybatch.testing import SteppingScheduler

COSTS = [(1, 10.0), (2, 12.0)]


def same(items: list[int]) -> list[int]:
    return items


def test_nothing_is_estimated_before_anything_is_known() -> None:
    with SteppingScheduler(same, service_ms=10) as scheduler:
        assert scheduler.estimate() is None
        assert "Nothing is known" in str(scheduler.explain())
        assert "No batch has left yet" in str(scheduler.explain())


def test_an_estimate_counts_what_runs_and_the_batches_ahead() -> None:
    with SteppingScheduler(same, service_ms=10, policy="immediate", max_batch_size=2, cost_model=COSTS) as scheduler:
        estimate = scheduler.estimate()
        assert estimate is not None
        assert (estimate.queue_delay_ms, estimate.finish_ms) == (0, pytest.approx(10))
        scheduler.submit(0)
        scheduler.advance(4)
        delays = []
        for item in range(5):
            estimate = scheduler.estimate()
            assert estimate is not None
            assert estimate.finish_ms == pytest.approx(estimate.queue_delay_ms + estimate.service_ms)
            delays.append((estimate.queue_delay_ms, estimate.service_ms))
            scheduler.submit(item)
        ahead = [(6, 10), (6, 12), (18, 10), (18, 12), (30, 10)]
        assert delays == [(pytest.approx(delay), pytest.approx(service)) for delay, service in ahead]


def test_an_explanation_tells_why_batches_left_and_what_is_next() -> None:
    options = {"policy": "fixed", "max_wait_ms": 5, "max_batch_size": 4}
    with SteppingScheduler(same, service_ms=10, name="told", **options) as scheduler:  # type: ignore[arg-type]
        scheduler.submit(1)
        scheduler.advance(2)
        explanation = scheduler.explain()
        assert (explanation.wake_at_ns, explanation.past) == (5_000_000, ())
        assert "in 3 ms" in explanation.now
        scheduler.advance(4)
        assert scheduler.explain().past[0].service_ns is None
        scheduler.submit_many(range(4))
        assert "all workers are busy" in scheduler.explain().now
        scheduler.advance(30)
        explanation = scheduler.explain()
        assert [(batch.reason, batch.size, batch.waited_ns) for batch in explanation.past] == [
            ("window", 1, 5_000_000),
            ("full", 4, 9_000_000),
        ]
        assert [batch.service_ns for batch in explanation.past] == [10_000_000, 10_000_000]
        assert explanation.learned.sizes == ((1, 10_000_000), (4, 10_000_000))
        text = str(explanation)
        assert "'told'" in text
        assert f"1: 1 after 5 ms, 0 left queued, because {WORDS['window']}; took 10 ms" in text
        assert "nothing is queued" in text


def test_the_latest_32_batches_are_remembered() -> None:
    with SteppingScheduler(same, service_ms=1, max_batch_size=1) as scheduler:
        scheduler.submit_many(range(40))
        scheduler.advance(100)
        assert [batch.batch_id for batch in scheduler.explain().past] == list(range(9, 41))


def test_every_reason_has_words() -> None:
    assert tuple(WORDS) == REASONS


@pytest.mark.parametrize("name", ["traffic.csv", "traffic.npz"])
def test_a_recording_is_a_trace_of_what_came(tmp_path: Path, name: str) -> None:
    with SteppingScheduler(same, service_ms=1) as scheduler:
        scheduler.advance(7)
        with scheduler.record(tmp_path / name, limit=3) as recording:
            scheduler.submit(1, timeout_ms=20)
            scheduler.advance(2.5)
            scheduler.submit_many([2, 3], priority=-1)
            scheduler.submit(4)
            assert (recording.count, recording.missed) == (3, 1)
        scheduler.submit(5)
    trace = Trace.load(tmp_path / name)
    assert trace.arrivals_ms.tolist() == [0, 2.5, 2.5]
    assert trace.timeouts_ms is not None
    assert trace.timeouts_ms.tolist() == [20, float("inf"), float("inf")]
    assert trace.priorities is not None
    assert trace.priorities.tolist() == [0, -1, -1]
