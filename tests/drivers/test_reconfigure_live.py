"""Options that change while requests are queued and running."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gates import HOUR_MS, LIMIT_S, MOMENT_S, AsyncGate, Gate, SchedulerOf, doubled_async, run_loop, same
from pybatch import DeadlineExceeded, QueueFull


def test_a_larger_batch_size_takes_the_backlog_at_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit_many(range(10))
    scheduler.reconfigure(max_batch_size=16)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.batches == [["running"], list(range(10))]


def test_a_smaller_batch_size_cuts_the_backlog(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=64)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit_many(range(6))
    scheduler.reconfigure(max_batch_size=2)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.batches == [["running"], [0, 1], [2, 3], [4, 5]]


@pytest.mark.parametrize(
    "change",
    [
        {"max_wait_ms": 0},
        {"max_wait_ms": 1},
        {"max_batch_size": 3},
        {"policy": "immediate", "max_wait_ms": None},
        {"max_latency_ms": 1},
    ],
    ids=str,
)
def test_a_change_that_ends_the_window_wakes_who_watches_it(scheduler_of: SchedulerOf, change: dict[str, Any]) -> None:
    scheduler = scheduler_of(same, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    futures = scheduler.submit_many(range(3))
    with pytest.raises(TimeoutError):
        futures[0].result(MOMENT_S)
    scheduler.reconfigure(**change)
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2]
    assert scheduler.stats().batches == 1


def test_a_change_that_ends_the_window_reaches_the_loop_that_watches_it(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        futures = scheduler.submit_many(range(3))
        waiting = asyncio.gather(*futures)
        await asyncio.to_thread(scheduler.reconfigure, max_wait_ms=0)
        assert await waiting == [0, 2, 4]

    run_loop(main())


def test_a_window_can_be_introduced(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=3)
    assert scheduler.submit("at once").result(LIMIT_S) == "at once"
    scheduler.reconfigure(policy="fixed", max_wait_ms=HOUR_MS)
    assert scheduler.stats().policy == "fixed"
    futures = [scheduler.submit(item) for item in range(2)]
    with pytest.raises(TimeoutError):
        futures[0].result(MOMENT_S)
    futures.append(scheduler.submit(2))
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2]


def test_a_window_bounds_the_policy_in_force_and_changes_none(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    for max_wait_ms in (5, None, 0):
        scheduler.reconfigure(max_wait_ms=max_wait_ms)
        assert scheduler.stats().policy == "adaptive"
    scheduler.reconfigure(policy="immediate")
    with pytest.raises(ValueError, match="never waits"):
        scheduler.reconfigure(max_wait_ms=5)
    assert (scheduler.stats().policy, scheduler.stats().max_wait_ns) == ("immediate", None)


@pytest.mark.parametrize("is_async", [False, True])
def test_more_batches_at_once_begin_at_once(scheduler_of: SchedulerOf, is_async: bool) -> None:
    gate = AsyncGate() if is_async else Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    futures = [scheduler.submit(item) for item in range(5)]
    gate.wait_entered()
    scheduler.reconfigure(max_concurrent_batches=3)
    gate.wait_entered()
    gate.wait_entered()
    stats = scheduler.stats()
    assert (stats.capacity, stats.running, stats.queued) == (3, 3, 2)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(5))


def test_fewer_batches_at_once_hold_once_the_running_ones_end(scheduler_of: SchedulerOf) -> None:
    both, then = Gate(), Gate()

    def hold(items: list[int]) -> list[int]:
        return (both if items < [2] else then).hold(items)

    scheduler = scheduler_of(hold, max_batch_size=1, max_concurrent_batches=2)
    futures = [scheduler.submit(item) for item in range(2)]
    both.wait_entered()
    both.wait_entered()
    scheduler.reconfigure(max_concurrent_batches=1)
    futures += [scheduler.submit(item) for item in range(2, 6)]
    both.open()
    then.wait_entered()
    assert [future.result(LIMIT_S) for future in futures[:2]] == [0, 1]
    with pytest.raises(TimeoutError):
        futures[3].result(MOMENT_S)
    assert then.batches == [[2]]
    then.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(6))


def test_a_smaller_queue_keeps_what_it_has_and_refuses_more(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    futures = scheduler.submit_many(range(5))
    scheduler.reconfigure(max_queue_size=2)
    with pytest.raises(QueueFull):
        scheduler.submit("one too many")
    for future in futures[:4]:
        future.cancel()
    last = scheduler.submit("there is room again")
    with pytest.raises(QueueFull):
        scheduler.submit("one too many")
    gate.open()
    assert [futures[4].result(LIMIT_S), last.result(LIMIT_S)] == [4, "there is room again"]


def test_a_default_timeout_can_be_introduced_and_holds_for_what_comes_after(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    before = scheduler.submit("before")
    scheduler.reconfigure(timeout_ms=10)
    after = scheduler.submit("after")
    assert isinstance(after.exception(LIMIT_S), DeadlineExceeded)
    assert not before.done()
    scheduler.reconfigure(timeout_ms=None)
    unlimited = scheduler.submit("unlimited")
    gate.open()
    assert [before.result(LIMIT_S), unlimited.result(LIMIT_S)] == ["before", "unlimited"]


def test_reconfigure_without_anything_changes_nothing(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=3, policy="fixed", max_wait_ms=5, max_latency_ms=50, max_queue_size=9)
    before = scheduler.stats()
    scheduler.reconfigure()
    assert scheduler.stats() == before


def test_all_limits_show_in_stats(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    scheduler.reconfigure(
        max_batch_size=7,
        policy="fixed",
        max_wait_ms=1.5,
        max_latency_ms=20,
        max_queue_size=11,
        max_concurrent_batches=2,
        timeout_ms=1000,
    )
    stats = scheduler.stats()
    assert (stats.max_batch_size, stats.policy, stats.max_queue_size, stats.capacity) == (7, "fixed", 11, 2)
    assert (stats.max_wait_ns, stats.max_latency_ns) == (1_500_000, 20_000_000)
    scheduler.reconfigure(max_latency_ms=None)
    assert scheduler.stats().max_latency_ns is None


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_batch_size": 2.0}, TypeError),
        ({"max_batch_size": None}, TypeError),
        ({"max_wait_ms": -1}, ValueError),
        ({"max_wait_ms": "1"}, TypeError),
        ({"policy": "fixed", "max_wait_ms": None}, ValueError),
        ({"max_latency_ms": float("nan")}, ValueError),
        ({"timeout_ms": float("inf")}, ValueError),
        ({"timeout_ms": True}, TypeError),
        ({"max_queue_size": 0}, ValueError),
        ({"policy": "hurried"}, ValueError),
        ({"policy": "immediate"}, ValueError),
        ({"max_concurrent_batches": 0}, ValueError),
        ({"max_concurrent_batches": 1.0}, TypeError),
        ({"on_full": "block"}, TypeError),
        ({"name": "other"}, TypeError),
    ],
    ids=str,
)
def test_a_bad_value_changes_nothing_not_even_the_good_ones_beside_it(
    scheduler_of: SchedulerOf, bad: dict[str, Any], kind: type[Exception]
) -> None:
    scheduler = scheduler_of(
        same, max_batch_size=3, policy="fixed", max_wait_ms=5, max_latency_ms=50, timeout_ms=HOUR_MS
    )
    good = {
        "max_batch_size": 5,
        "max_wait_ms": 6,
        "max_latency_ms": 60,
        "timeout_ms": 0,
        "max_queue_size": 70,
        "max_concurrent_batches": 2,
    }
    if bad == {"policy": "immediate"}:
        bad = bad | {"max_wait_ms": 5}
    before = scheduler.stats()
    with pytest.raises(kind):
        scheduler.reconfigure(**(good | bad))
    with pytest.raises(kind):
        scheduler.reconfigure(**(bad | {key: value for key, value in good.items() if key not in bad}))
    assert scheduler.stats() == before
    assert scheduler.submit(1).result(LIMIT_S) == 1, "nor the timeout"
