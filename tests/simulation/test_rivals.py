"""The rivals' rules, told as stories of what a policy sees and answers, and against the optimum in a small replay."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from batchcore.records import Drop, Wait
from pybatch.policies import Policy
from pybatch.simulation.references import offline_goodput, saturated_per_second
from pybatch.simulation.rivals import RIVALS, BentoML, Clipper, Clockwork, Symphony, Triton

MS = 1_000_000
RESNET = [1.053 * size + 5.072 for size in range(1, 33)]


@dataclass
class FakeView:
    """What a policy may look at, with arrivals and deadlines in milliseconds."""

    now_ms: float
    arrived_ms: Sequence[float]
    due_ms: Sequence[float | None] = ()
    in_flight: int = 0
    running: int = 0
    capacity: int = 1
    max_batch_size: int = 32
    max_wait_ns: int | None = None
    max_latency_ns: int | None = None
    last_completion_ns: int | None = None
    arrivals_per_second: float = 0.0
    earliest_deadline_ns: int | None = None
    now_ns: int = field(init=False)
    queued: int = field(init=False)
    oldest_arrival_ns: int = field(init=False)
    newest_arrival_ns: int = field(init=False)

    def __post_init__(self) -> None:
        self.now_ns, self.queued = round(self.now_ms * MS), len(self.arrived_ms)
        self.oldest_arrival_ns = round(self.arrived_ms[0] * MS)
        self.newest_arrival_ns = round(self.arrived_ms[-1] * MS)

    def arrivals(self, n: int) -> list[int]:
        return [round(at * MS) for at in self.arrived_ms[:n]]

    def deadlines(self, n: int) -> list[int | None]:
        due = self.due_ms or [None] * self.queued
        return [None if at is None else round(at * MS) for at in due[:n]]

    def predict_ns(self, n: int) -> int | None:
        return None

    def busy_until_ns(self) -> list[int]:
        return []


def replay(policy: Policy, arrivals_ns: Sequence[int], service_ms: Sequence[float], workers: int = 1) -> list[float]:
    """Run a policy over arrivals; return latencies in milliseconds, infinite for what it dropped."""
    latency_ms = [float("nan")] * len(arrivals_ns)
    events = [(at_ns, 1, one) for one, at_ns in enumerate(arrivals_ns)]
    queue: deque[int] = deque()
    flying: dict[int, tuple[list[int], int]] = {}
    last_completion_ns = None
    while events:
        now_ns = events[0][0]
        while events and events[0][0] == now_ns:
            _, kind, which = heapq.heappop(events)
            if kind == 0:
                batch, service_ns = flying.pop(which)
                last_completion_ns = now_ns
                policy.completed(now_ns, len(batch), service_ns)
                for one in batch:
                    latency_ms[one] = (now_ns - arrivals_ns[one]) / MS
            elif kind == 1:
                queue.append(which)
        while queue and len(flying) < workers:
            arrived = [arrivals_ns[one] / MS for one in queue]
            view = FakeView(now_ns / MS, arrived, in_flight=len(flying), last_completion_ns=last_completion_ns)
            view.max_batch_size = len(service_ms)
            view.arrivals_per_second = 1e9 * queue[-1] / max(now_ns, 1)
            answer = policy.decide(view)
            if isinstance(answer, Wait):
                if answer.until_ns is not None:
                    assert answer.until_ns > now_ns
                    heapq.heappush(events, (answer.until_ns, 2, 0))
                break
            if isinstance(answer, Drop):
                assert 1 <= answer.count <= len(queue)
                for _ in range(answer.count):
                    latency_ms[queue.popleft()] = float("inf")
                continue
            assert 1 <= answer <= min(len(queue), len(service_ms))
            service_ns = round(service_ms[answer - 1] * MS)
            batch = [queue.popleft() for _ in range(answer)]
            flying[batch[0]] = batch, service_ns
            heapq.heappush(events, (now_ns + service_ns, 0, batch[0]))
    return latency_ms


def poisson_ns(per_second: float, count: int) -> list[int]:
    return [round(at) for at in np.cumsum(np.random.default_rng(0).exponential(1e9 / per_second, count))]


def trained(policy: BentoML, per_item_ms: float = 1.0, per_batch_ms: float = 5.0) -> BentoML:
    """Let it see its training batches, one every 100 ms, each request served on arrival."""
    for number, size in enumerate(BentoML.TRAINING):
        start = 100.0 * number
        assert policy.decide(FakeView(start, [start] * 3)) == size
        took_ms = per_item_ms * size + per_batch_ms
        policy.completed(round((start + took_ms) * MS), size, round(took_ms * MS))
    return policy


def test_bentoml_trains_with_batches_of_1_2_and_3_one_at_a_time() -> None:
    policy = trained(BentoML(100.0))
    assert [policy.per_item_ns, policy.per_batch_ns] == pytest.approx([1 * MS, 5 * MS])
    assert BentoML(100.0).decide(FakeView(0.0, [0.0], in_flight=1)) == Wait()


def test_bentoml_waits_for_company_in_training_but_not_for_ever() -> None:
    policy = BentoML(100.0)
    for number in range(4):
        assert policy.decide(FakeView(100.0 * number, [100.0 * number])) == 1
        policy.completed(round((100.0 * number + 6.0) * MS), 1, 6 * MS)
    # It learned 3 ms an item and 3 ms a batch, and allows 5 times both for a batch of two.
    assert policy.decide(FakeView(500.0, [500.0])) == Wait(501 * MS)
    assert policy.decide(FakeView(521.0, [500.0])) == Wait(522 * MS)
    assert policy.decide(FakeView(522.0, [500.0])) == 1


def test_bentoml_gives_up_the_oldest_when_all_queued_would_break_the_goal() -> None:
    policy = trained(BentoML(100.0))
    arrived = [1000.0] * 10  # 10 * 1 + 5 ms more, whatever the largest batch
    assert policy.decide(FakeView(1084.0, arrived)) == 10
    assert policy.decide(FakeView(1086.0, [1001.0, *arrived[1:]])) == Drop(1)
    assert policy.decide(FakeView(1086.0, [1001.0])) == 1  # alone on an idle worker: whatever its age


def test_bentoml_gives_up_one_alone_that_waited_too_long_for_a_worker() -> None:
    policy = trained(BentoML(50.0))
    assert policy.decide(FakeView(1050.0, [1000.0], last_completion_ns=1050 * MS)) == Drop(1)
    assert policy.decide(FakeView(1100.0, [1100.0], last_completion_ns=1050 * MS)) == 1


def test_bentoml_looks_once_a_millisecond_from_when_something_is_queued() -> None:
    policy = trained(BentoML(100.0))
    assert policy.decide(FakeView(1007.3, [1000.0, 1003.0], last_completion_ns=round(1007.3 * MS))) == Wait(1008 * MS)
    assert policy.decide(FakeView(1008.0, [1000.0, 1003.0, 1007.9], max_batch_size=2)) == 2
    assert policy.decide(FakeView(1010.5, [1007.9, 1010.5])) == Wait(1011 * MS)  # the rest since the last dispatch
    assert trained(BentoML(100.0, polls=False)).decide(FakeView(1007.3, [1000.0, 1003.0])) == 2


def test_bentoml_lingers_by_what_past_batches_waited() -> None:
    policy = trained(BentoML(100.0))
    policy.linger_ns = 10 * MS
    assert policy.decide(FakeView(1000.0, [1000.0])) == Wait(1001 * MS)  # 1 * (0 + 1 + 1) <= 9.5
    assert policy.decide(FakeView(1001.0, [1000.0, 1000.4, 1000.5])) == Wait(1002 * MS)  # 3 * (.5 + 1 + 1) <= 9.5
    assert policy.decide(FakeView(1002.0, [1000.0, 1000.4, 1000.5])) == 3  # 3 * (1.5 + 1 + 1) > 9.5


def test_bentoml_refits_every_five_seconds() -> None:
    policy = trained(BentoML(1000.0, polls=False))
    for number in range(60):
        at_ms = 1000.0 + 90.0 * number
        size = policy.decide(FakeView(at_ms, [at_ms] * (1 + number % 5)))
        assert size == 1 + number % 5
        policy.completed(round((at_ms + 20.0) * MS), size, round((2.0 * size + 10.0) * MS))
        assert (policy.per_item_ns < 1.5 * MS) == (at_ms + 20.0 < 5407.0)  # 5 s after the fifth batch


def test_clipper_adds_one_and_takes_back_a_tenth() -> None:
    policy = Clipper(20.0)
    view = FakeView(0.0, [0.0] * 40)
    for limit in range(1, 33):
        assert policy.decide(view) == limit
        policy.completed(0, limit, 20 * MS)
    assert policy.decide(view) == 32
    policy.completed(0, 32, 20 * MS + 1)
    assert policy.decide(view) == 28
    assert policy.decide(FakeView(0.0, [0.0] * 3)) == 3
    for _ in range(50):
        policy.completed(0, 1, 21 * MS)
    assert policy.decide(view) == 1


def test_symphony_waits_until_one_more_could_not_join() -> None:
    policy = Symphony(100.0, [10.0, 11.0, 12.0, 13.0], margin_ms=0.0)
    assert policy.decide(FakeView(0.0, [0.0], max_batch_size=4)) == Wait(89 * MS)
    assert policy.decide(FakeView(5.0, [0.0, 5.0], max_batch_size=4)) == Wait(88 * MS)
    assert policy.decide(FakeView(88.0, [0.0, 5.0], max_batch_size=4)) == 2
    assert policy.decide(FakeView(9.0, [0.0, 5.0, 8.0, 9.0, 9.0], max_batch_size=4)) == 4


def test_symphony_drops_the_fewest_so_that_the_rest_makes_it() -> None:
    policy = Symphony(50.0, [10.0, 11.0, 12.0, 40.0])
    # The first cannot make it in a batch of three.  Two are left; if it can make it with one of them, it goes first.
    assert policy.decide(FakeView(39.0, [0.0, 30.0, 30.0])) == 2
    assert policy.decide(FakeView(39.1, [0.0, 30.0, 30.0])) == Drop(1)
    assert policy.decide(FakeView(60.0, [0.0, 1.0])) == Drop(2)
    # A deadline of its own goes before the goal.
    assert policy.decide(FakeView(60.0, [0.0, 1.0], due_ms=[71.5, 99.0])) == 2


def test_symphony_aims_at_what_can_gather_and_run_within_the_goal() -> None:
    policy = Symphony(50.0, RESNET)
    assert policy.target(0.0, 32) == 18  # half of the goal: 24.0 ms
    assert policy.target(600.0, 32) == 16  # 16 / 0.6 + 21.9 <= 50
    assert policy.target(1e6, 32) == 32
    assert policy.target(1.0, 32) == 1


def test_clockwork_takes_the_largest_size_that_is_queued_and_in_time() -> None:
    policy = Clockwork(50.0, [10.0, 12.0, 14.0, 16.0])
    assert policy.decide(FakeView(0.0, [0.0] * 3)) == 2
    assert policy.decide(FakeView(0.0, [0.0] * 4)) == 4
    assert policy.decide(FakeView(0.0, [0.0] * 4, max_batch_size=3)) == 2
    assert policy.decide(FakeView(35.0, [0.0, 1.0, 1.0, 1.0, 1.0])) == Drop(1)  # four can make it only without it
    assert policy.decide(FakeView(35.0, [0.0, 1.0, 1.0, 1.0])) == 2
    assert policy.decide(FakeView(45.0, [0.0, 1.0])) == Drop(2)


def test_clockwork_expects_the_worst_of_the_last_ten() -> None:
    policy = Clockwork(50.0, [10.0, 12.0])
    policy.completed(0, 2, 60 * MS)
    for _ in range(9):
        policy.completed(0, 2, 12 * MS)
    assert policy.decide(FakeView(0.0, [0.0] * 2)) == 1
    policy.completed(0, 2, 12 * MS)
    assert policy.decide(FakeView(0.0, [0.0] * 2)) == 2
    policy.completed(0, 1, 60 * MS)
    assert policy.decide(FakeView(1.0, [0.0])) == Wait(38 * MS + 1)  # until not even two could make it


def test_triton_takes_preferred_sizes_until_the_oldest_is_overdue() -> None:
    policy = Triton([8, 4], max_queue_delay_ms=5.0)
    assert policy.decide(FakeView(1.0, [0.0] * 3)) == Wait(5 * MS)
    assert policy.decide(FakeView(1.0, [0.0] * 7)) == 4
    assert policy.decide(FakeView(1.0, [0.0] * 40)) == 8
    assert policy.decide(FakeView(5.0, [0.0] * 7)) == 7
    assert policy.decide(FakeView(5.0, [0.0] * 40)) == 32
    assert Triton([4], max_queue_delay_ms=0.0).decide(FakeView(5.0, [0.0] * 3)) == 3
    assert Triton([4], max_queue_delay_ms=0.0).decide(FakeView(5.0, [0.0] * 7)) == 4


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("load", [0.3, 0.9, 1.5])
@pytest.mark.parametrize("name", RIVALS)
def test_every_request_ends_and_none_beats_the_optimum(name: str, load: float, workers: int) -> None:
    arrivals = poisson_ns(load * workers * saturated_per_second(RESNET), 1500)
    latency_ms = np.array(replay(RIVALS[name](50.0, RESNET), arrivals, RESNET, workers))
    assert not np.isnan(latency_ms).any()
    good = np.mean(latency_ms <= 50.0)
    if workers == 1:
        assert good <= offline_goodput(arrivals, RESNET, 50.0)
    if name in {"symphony", "clockwork", "bentoml"}:
        assert good >= {0.3: 0.97, 0.9: 0.85, 1.5: 0.5}[load]


def test_the_rivals_have_their_known_figures() -> None:
    overload = poisson_ns(1.5 * saturated_per_second(RESNET), 6000)
    tight = poisson_ns(599.2, 6000)
    for name, in_overload, when_tight in (("symphony", 0.640, 0.881), ("clockwork", 0.597, 0.829)):
        for arrivals, slo, share in ((overload, 50.0, in_overload), (tight, 25.0, when_tight)):
            latency_ms = np.array(replay(RIVALS[name](slo, RESNET), arrivals, RESNET))[600:]
            assert np.mean(latency_ms <= slo) == pytest.approx(share, abs=0.015)
    for arrivals, slo, share in ((overload, 50.0, 0.646), (tight, 25.0, 0.904)):  # studied without its polling
        latency_ms = np.array(replay(BentoML(slo, polls=False), arrivals, RESNET))[600:]
        assert np.mean(latency_ms <= slo) == pytest.approx(share, abs=0.015)
    assert np.mean(replay(RIVALS["clipper"](25.0, RESNET), tight, RESNET)) > 21.0


@pytest.mark.parametrize("name", RIVALS)
def test_a_flushed_batch_disturbs_no_rival(name: str) -> None:
    RIVALS[name](50.0, RESNET).completed(MS, 7, MS)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: BentoML(-1.0), "slo_ms"),
        (lambda: Clipper(float("nan")), "slo_ms"),
        (lambda: Clipper(50.0, step=-1.0), "step"),
        (lambda: Symphony(50.0, []), "service_ms"),
        (lambda: Clockwork(50.0, RESNET, sizes=(2, 4)), "hold 1"),
        (lambda: Triton([], 5.0), "preferred_sizes"),
        (lambda: Triton([0], 5.0), "preferred_sizes"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
