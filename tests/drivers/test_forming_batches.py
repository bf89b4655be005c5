"""When batches leave and who is in them, in real time: the engine's decisions as its callers meet them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from batchcore.dispatcher import Dispatcher
from batchcore.engine import Engine
from batchcore.submitter import Submitter
from gates import HOUR_MS, LIMIT_S, MOMENT_S, Gate, LoopThread, SchedulerOf, in_thread, run_loop, same
from pybatch import DeadlineExceeded, QueueFull

MS = 1_000_000


def test_the_batch_grows_until_a_worker_can_take_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4)
    futures = [scheduler.submit(0)]
    gate.wait_entered()
    futures += [scheduler.submit(item) for item in range(1, 11)]
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(11))
    assert gate.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    reasons = scheduler.stats().batches_by_reason
    assert (reasons["idle_worker"], reasons["full"]) == (2, 2)


def test_threads_and_event_loops_share_one_queue_and_one_batch(scheduler_of: SchedulerOf) -> None:
    gate, each = Gate(), 8
    scheduler = scheduler_of(gate.hold, max_batch_size=64)
    submitted = threading.Barrier(5)
    first = scheduler.submit("first")
    gate.wait_entered()

    def from_thread(name: str) -> list[Any]:
        futures = [scheduler.submit((name, n)) for n in range(each)]
        submitted.wait(LIMIT_S)
        return [future.result(LIMIT_S) for future in futures]

    async def from_loop(name: str) -> list[Any]:
        futures = [scheduler.submit((name, n)) for n in range(each)]
        await asyncio.to_thread(submitted.wait, LIMIT_S)
        return await asyncio.gather(*futures)

    with LoopThread() as one_loop, LoopThread() as other_loop:
        answers = {
            "one thread": in_thread(from_thread, "one thread"),
            "other thread": in_thread(from_thread, "other thread"),
            "one loop": one_loop.start(from_loop("one loop")),
            "other loop": other_loop.start(from_loop("other loop")),
        }
        submitted.wait(LIMIT_S)
        gate.open()
        for name, answer in answers.items():
            assert answer.result(LIMIT_S) == [(name, n) for n in range(each)]
    assert first.result(LIMIT_S) == "first"
    assert [len(batch) for batch in gate.batches] == [1, 4 * each]


def test_a_batch_size_of_one_means_no_batching(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    futures = [scheduler.submit(item) for item in range(10)]
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(10))
    assert gate.batches == [[item] for item in range(10)]


@pytest.mark.parametrize(
    "options",
    [
        {"max_latency_ms": HOUR_MS},
        {"policy": "fixed", "max_wait_ms": HOUR_MS},
        {"policy": "fixed", "max_wait_ms": HOUR_MS, "max_latency_ms": HOUR_MS},
        {"policy": "fixed", "max_wait_ms": HOUR_MS, "timeout_ms": HOUR_MS},
    ],
    ids=str,
)
def test_a_batch_of_one_never_waits_whatever_the_window(scheduler_of: SchedulerOf, options: dict[str, Any]) -> None:
    scheduler = scheduler_of(same, max_batch_size=1, **options)
    for item in range(3):
        assert scheduler.submit(item).result(LIMIT_S) == item


def test_without_a_window_a_single_request_leaves_at_once(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=64, max_latency_ms=HOUR_MS)
    assert scheduler.submit("alone").result(LIMIT_S) == "alone"
    assert scheduler.stats().batches_by_reason["idle_worker"] == 1


def test_a_window_gathers_one_batch(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=64, policy="fixed", max_wait_ms=300)
    futures = [scheduler.submit(item) for item in range(5)]
    assert [future.result(LIMIT_S) for future in futures] == list(range(5))
    assert gate.batches == [list(range(5))]
    stats = scheduler.stats()
    assert stats.batches_by_reason["window"] == 1
    assert stats.queue_delay_ns.sum >= 300_000_000, "the oldest waited the whole window"


def test_a_full_batch_leaves_its_window_at_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=8, policy="fixed", max_wait_ms=HOUR_MS)
    futures = [scheduler.submit(item) for item in range(17)]
    assert [future.result(LIMIT_S) for future in futures[:16]] == list(range(16))
    assert gate.batches == [list(range(8)), list(range(8, 16))]
    assert scheduler.stats().batches_by_reason["full"] == 2
    with pytest.raises(TimeoutError):
        futures[16].result(MOMENT_S)
    scheduler.flush()
    assert futures[16].result(LIMIT_S) == 16


def test_submit_many_fills_a_batch_and_leaves_its_window_at_once(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=8, policy="fixed", max_wait_ms=HOUR_MS)
    assert [future.result(LIMIT_S) for future in scheduler.submit_many(range(16))] == list(range(16))
    assert scheduler.stats().batches_by_reason["full"] == 2


def test_flush_sends_what_is_queued_and_lets_later_requests_wait_again(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    futures = [scheduler.submit(item) for item in range(3)]
    with pytest.raises(TimeoutError):
        futures[0].result(MOMENT_S)
    scheduler.flush()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2]
    assert gate.batches == [[0, 1, 2]]
    assert scheduler.stats().batches_by_reason["flush"] == 1
    late = scheduler.submit("late")
    with pytest.raises(TimeoutError):
        late.result(MOMENT_S)
    scheduler.flush()
    assert late.result(LIMIT_S) == "late"


def test_flush_of_an_empty_queue_changes_nothing(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    scheduler.flush()
    future = scheduler.submit("waits")
    with pytest.raises(TimeoutError):
        future.result(MOMENT_S)
    scheduler.flush()
    assert future.result(LIMIT_S) == "waits"


def test_a_window_that_is_over_while_the_worker_is_busy_adds_no_wait(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4, policy="fixed", max_wait_ms=1)
    futures = [scheduler.submit(0)]
    gate.wait_entered()
    futures += [scheduler.submit(item) for item in (1, 2)]
    assert not threading.Event().wait(MOMENT_S)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2]
    assert gate.batches == [[0], [1, 2]]


def test_a_deadline_cuts_the_window_short(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    futures = [scheduler.submit("patient"), scheduler.submit("urgent", timeout_ms=HOUR_MS / 2)]
    assert [future.result(LIMIT_S) for future in futures] == ["patient", "urgent"]
    assert scheduler.stats().batches_by_reason["deadline"] == 1


def test_a_latency_target_cuts_the_window_short(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS, max_latency_ms=100)
    assert scheduler.submit("nothing is known yet").result(LIMIT_S) == "nothing is known yet"
    assert scheduler.submit("a prediction is known").result(LIMIT_S) == "a prediction is known"
    assert scheduler.stats().batches_by_reason["latency"] == 2


def test_under_backlog_better_priorities_go_first_and_equals_in_order(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    for item, priority in [("c", 5), ("b", 0), ("a", -5), ("B", 0), ("A", -5), ("C", 5)]:
        scheduler.submit(item, priority=priority)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running", "a", "A", "b", "B", "c", "C"]


def test_priority_counts_within_a_batch_that_has_not_room_for_all(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit_many(["d", "c"], priority=1)
    scheduler.submit_many(["a", "b"], priority=-1)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.batches == [["running"], ["a", "b"], ["d", "c"]]


@pytest.mark.parametrize("timeout_ms", [0, 0.0, -1, -1e9])
def test_a_request_without_any_time_expires_at_once_and_is_never_run(
    scheduler_of: SchedulerOf, timeout_ms: float
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)
    future = scheduler.submit("late", timeout_ms=timeout_ms)
    assert future.done()
    with pytest.raises(DeadlineExceeded):
        future.result(0)
    with pytest.raises(TimeoutError):
        future.result(0)
    assert not future.cancel()
    assert not future.cancelled()
    gate.open()
    assert scheduler(1) == 1
    assert gate.seen == [1]
    assert scheduler.stats().expired == 1


def test_a_request_without_any_time_expires_also_when_the_queue_is_full(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit("queued")
    assert isinstance(scheduler.submit("late", timeout_ms=0).exception(0), DeadlineExceeded)
    with pytest.raises(QueueFull):
        scheduler.submit("one too many")
    gate.open()


def test_the_schedulers_timeout_holds_for_requests_that_bring_none(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, timeout_ms=10)
    running = scheduler.submit("running", timeout_ms=HOUR_MS)
    gate.wait_entered()
    short, long = scheduler.submit("short"), scheduler.submit("long", timeout_ms=HOUR_MS)
    assert isinstance(short.exception(LIMIT_S), DeadlineExceeded)
    assert not long.done()
    gate.open()
    assert [running.result(LIMIT_S), long.result(LIMIT_S)] == ["running", "long"]
    assert gate.seen == ["running", "long"]


def test_a_request_expires_on_time_while_the_only_worker_is_busy(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running = scheduler.submit("running")
    gate.wait_entered()
    called = threading.Event()
    future = scheduler.submit("expiring", timeout_ms=20)
    future.add_done_callback(lambda _: called.set())
    assert isinstance(future.exception(LIMIT_S), DeadlineExceeded)
    assert called.wait(LIMIT_S)
    assert not running.done()
    stats = scheduler.stats()
    assert (stats.expired, stats.queued, stats.running) == (1, 0, 1)
    gate.open()
    assert running.result(LIMIT_S) == "running"
    assert gate.seen == ["running"]


def test_deadlines_in_any_order_expire_on_time_while_the_only_worker_is_busy(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    expiring = [scheduler.submit(timeout_ms, timeout_ms=timeout_ms) for timeout_ms in (200, 20, 100, 1, 400)]
    patient = scheduler.submit("patient", timeout_ms=HOUR_MS)
    assert all(isinstance(future.exception(LIMIT_S), DeadlineExceeded) for future in expiring)
    assert not patient.done()
    gate.open()
    assert patient.result(LIMIT_S) == "patient"
    assert gate.seen == ["running", "patient"]


def test_a_request_expires_on_time_in_a_thread_that_awaits_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running = scheduler.submit("running")
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit("expiring", timeout_ms=20)
        assert not running.done()
        gate.open()
        assert await running == "running"

    run_loop(main())


def test_a_running_request_does_not_expire(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)
    future = scheduler.submit("running", timeout_ms=500)
    gate.wait_entered()
    expired = scheduler.submit("expiring", timeout_ms=550)
    assert isinstance(expired.exception(LIMIT_S), DeadlineExceeded)
    assert not future.done()
    gate.open()
    assert future.result(LIMIT_S) == "running"


def test_a_cancelled_request_frees_its_place_and_its_neighbours_notice_nothing(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4, max_queue_size=3)
    running = scheduler.submit("running")
    gate.wait_entered()
    one, two, three = (scheduler.submit(name) for name in ("one", "two", "three"))
    with pytest.raises(QueueFull):
        scheduler.submit("four")
    assert two.cancel()
    four = scheduler.submit("four")
    gate.open()
    assert [each.result(LIMIT_S) for each in (running, one, three, four)] == ["running", "one", "three", "four"]
    assert gate.batches == [["running"], ["one", "three", "four"]]


def test_when_everything_queued_is_cancelled_nothing_more_is_run(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS)
    futures = [scheduler.submit(item) for item in range(3)]
    assert all(future.cancel() for future in futures)
    scheduler.flush()
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.batches == []
    assert scheduler.stats().cancelled == 3


def batches_at_once(scheduler_of: SchedulerOf, limit: int) -> Callable[[int], int]:
    """Run that many batches that meet, and return how many ever ran at the same time."""
    lock, running, most = threading.Lock(), 0, 0
    meeting = threading.Barrier(limit)

    def meet(items: list[int]) -> list[int]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        meeting.wait(LIMIT_S)
        with lock:
            running -= 1
        return items

    scheduler = scheduler_of(meet, max_batch_size=1, max_concurrent_batches=limit)

    def run(batches: int) -> int:
        futures = [scheduler.submit(item) for item in range(batches)]
        assert [future.result(LIMIT_S) for future in futures] == list(range(batches))
        return most

    return run


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_as_many_batches_run_at_once_as_allowed_and_no_more(scheduler_of: SchedulerOf, limit: int) -> None:
    assert batches_at_once(scheduler_of, limit)(limit * 6) == limit


def test_a_request_goes_to_the_other_worker_while_one_is_busy(scheduler_of: SchedulerOf) -> None:
    gate = Gate()

    def one(items: list[str]) -> list[str]:
        return gate.hold(items) if items == ["slow"] else items

    scheduler = scheduler_of(one, max_batch_size=1, max_concurrent_batches=2)
    slow = scheduler.submit("slow")
    gate.wait_entered()
    assert [scheduler.submit(item).result(LIMIT_S) for item in "abc"] == list("abc")
    assert not slow.done()
    gate.open()
    assert slow.result(LIMIT_S) == "slow"


def test_workers_are_daemons_started_on_demand_and_ended_by_shutdown(scheduler_of: SchedulerOf) -> None:
    before = set(threading.enumerate())
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_concurrent_batches=3)
    assert set(threading.enumerate()) == before, "none before the first request"
    futures = [scheduler.submit(1)]
    gate.wait_entered()
    futures += [scheduler.submit(2)]
    gate.wait_entered()
    mine = set(threading.enumerate()) - before
    assert 2 <= len(mine) <= 3
    futures += [scheduler.submit(item, timeout_ms=HOUR_MS) for item in range(3, 10)]
    gate.wait_entered()
    mine = set(threading.enumerate()) - before
    assert len(mine) <= 4, "three workers and one standby for deadlines"
    assert all(thread.daemon for thread in mine)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(1, 10))
    scheduler.shutdown()
    for thread in mine:
        thread.join(LIMIT_S)
    assert not any(thread.is_alive() for thread in mine)


def test_the_list_given_to_fn_belongs_to_fn(scheduler_of: SchedulerOf) -> None:
    kept: list[list[int]] = []

    def keep_and_clear(items: list[int]) -> list[int]:
        answers = list(items)
        if len(kept) % 2:
            items.clear()
        else:
            items += [0, 0]
        kept.append(items)
        return answers

    scheduler = scheduler_of(keep_and_clear, max_batch_size=4)
    for round_of_items in ([1, 2, 3], [4, 5], [6], [7, 8, 9]):
        futures = scheduler.submit_many(round_of_items)
        assert [future.result(LIMIT_S) for future in futures] == round_of_items
    assert len({id(items) for items in kept}) == len(kept)
    assert all(type(items) is list for items in kept)


def test_what_is_done_before_fn_is_called_is_not_its_time() -> None:
    dispatcher = ByHand(Engine(), "by hand")
    dispatcher.virtual_ns = 0
    submitter: Submitter[int, int] = Submitter()
    submitter._serve_with(dispatcher, same)

    def dawdle(_: object) -> None:
        dispatcher.virtual_ns += 50 * MS

    late = submitter.submit(1, timeout_ms=10)
    late.add_done_callback(dawdle)
    submitter.submit(2)
    dispatcher.virtual_ns = 20 * MS
    batch = dispatcher.take()
    assert batch is not None
    assert dispatcher.virtual_ns == 70 * MS, "somebody took his time while the batch was on its way"
    dispatcher.virtual_ns += 5 * MS
    dispatcher.finish(batch, batch.run())
    assert dispatcher.engine.learned(dispatcher.virtual_ns).sizes == ((1, 5 * MS),)


class ByHand(Dispatcher):
    """Asks nobody to take batches: the test does."""

    def signal(self) -> int:
        return 0
