"""`submit_batch`: many rows, one future; they may be computed apart, and end as one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest

from gates import HOUR_MS, LIMIT_S, AsyncGate, Gate, SchedulerOf, doubled, doubled_async, in_thread, run_loop, until
from pybatch import DeadlineExceeded, QueueFull, SchedulerClosed, WouldDeadlock
from pybatch.testing import SteppingScheduler

Stepping = Callable[..., SteppingScheduler[Any, Any]]


def test_rows_go_together_and_come_back_in_order(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=8)
    future = scheduler.submit_batch([1, 2, 3])
    assert not future.done()
    scheduler.advance(0)
    assert future.result() == [2, 4, 6]
    assert [batch.items for batch in scheduler.batches] == [(1, 2, 3)]


def test_one_larger_than_a_batch_is_computed_in_several(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=4, service_ms=10)
    future = scheduler.submit_batch(range(10))
    scheduler.advance(20)
    assert not future.done()
    assert [len(batch.items) for batch in scheduler.batches] == [4, 4, 2]
    scheduler.advance(10)
    assert future.result() == [2 * item for item in range(10)]


def test_it_shares_batches_with_others(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=4)
    alone = scheduler.submit(100)
    first, second = scheduler.submit_batch([1, 2, 3, 4]), scheduler.submit_batch([5, 6])
    scheduler.advance(0)
    assert (alone.result(), first.result(), second.result()) == (200, [2, 4, 6, 8], [10, 12])
    assert [batch.items for batch in scheduler.batches] == [(100, 1, 2, 3), (4, 5, 6)]


def test_it_counts_as_many_requests(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=4)
    scheduler.submit_batch(range(6))
    assert (scheduler.stats().submitted, scheduler.stats().queued) == (6, 6)
    scheduler.advance(0)
    assert scheduler.stats().completed == 6


@pytest.mark.parametrize("nothing", [[], (), range(0), np.empty((0, 3))])
def test_nothing_is_answered_at_once(stepping: Stepping, nothing: Any) -> None:
    future = stepping(doubled).submit_batch(nothing)
    assert future.done()
    assert len(future.result()) == 0
    assert not future.cancel()
    assert run_loop(awaited(future)) == future.result()


async def awaited(future: Any) -> Any:
    return await future


def test_its_future_knows_its_terms(stepping: Stepping) -> None:
    scheduler = stepping(doubled)
    scheduler.advance(3)
    future = scheduler.submit_batch([1, 2], timeout_ms=20, priority=2)
    assert (future.arrival_ns, future.deadline_ns, future.priority) == (3_000_000, 23_000_000, 2)
    assert future.status == "queued"


# --- no room


def test_one_larger_than_the_queue_is_refused_whole(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_queue_size=4)
    with pytest.raises(QueueFull, match=r"5 .*0 of 4.*max_queue_size"):
        scheduler.submit_batch(range(5))
    assert (scheduler.stats().queued, scheduler.stats().rejected) == (0, 5)
    assert scheduler.submit_batch(range(4)) is not None


def test_one_larger_than_the_queue_waits_for_room_row_by_row(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=3, on_full="block")
    assert scheduler.submit_batch(range(50)).result(LIMIT_S) == [2 * item for item in range(50)]


def test_one_that_waits_for_room_may_be_too_late(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=2, on_full="block")
    scheduler.submit("running")
    gate.wait_entered()
    future = in_thread(scheduler.submit_batch, [1, 2, 3, 4], timeout_ms=20).result(LIMIT_S)
    with pytest.raises(DeadlineExceeded, match="timeout_ms of 20"):
        future.result(LIMIT_S)
    gate.open()
    scheduler.drain()
    assert gate.seen == ["running"]


def test_one_that_waits_for_room_is_closed_upon_and_nothing_of_it_is_computed(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=2, on_full="block")
    scheduler.submit("running")
    gate.wait_entered()
    waiting = in_thread(scheduler.submit_batch, [1, 2, 3, 4])
    until(lambda: scheduler.stats().queued == 2)
    scheduler.shutdown(wait=False)
    with pytest.raises(SchedulerClosed):
        waiting.result(LIMIT_S)
    gate.open()
    scheduler.shutdown()
    assert gate.seen == ["running"]
    assert scheduler.stats().cancelled == 2


@pytest.mark.parametrize("method", ["submit_batch", "submit_many"])
def test_a_bad_row_changes_nothing_even_where_it_would_have_waited(scheduler_of: SchedulerOf, method: str) -> None:
    def weight_of(item: int) -> int:
        return 1 if item else 0

    scheduler = scheduler_of(doubled, on_full="block", weight_fn=weight_of, key_fn=lambda item: item)
    with pytest.raises(ValueError, match="weight is 0"):
        getattr(scheduler, method)([1, 2, 0])
    stats = scheduler.stats()
    assert (stats.submitted, stats.keys) == (0, 0)


@pytest.mark.parametrize("method", ["submit_batch", "submit_many"])
def test_a_bad_row_leaves_no_key_behind(stepping: Stepping, method: str) -> None:
    scheduler = stepping(doubled, key_fn=lambda item: item if item else [])
    with pytest.raises(TypeError, match=r"hashable.*not \[\]"):
        getattr(scheduler, method)([1, 2, 3, 0])
    assert scheduler.stats().keys == 0


@pytest.mark.parametrize("items", [{"ids": [1, 2]}, 5, None])
def test_what_is_no_sequence_of_rows_is_refused(stepping: Stepping, items: Any) -> None:
    with pytest.raises(TypeError, match=r"rows|iterable"):
        stepping(doubled).submit_batch(items)


# --- errors, cancels, deadlines: as one


class Refusal(Exception):
    pass


def test_an_error_in_one_row_ends_it_and_what_is_queued_of_it_is_not_computed(stepping: Stepping) -> None:
    seen: list[Any] = []

    def compute(items: list[Any]) -> list[Any]:
        seen.extend(items)
        return [Refusal(item) if item == 2 else item for item in items]

    scheduler = stepping(compute, max_batch_size=2)
    future = scheduler.submit_batch([1, 2, 3, 4])
    neighbour = scheduler.submit(5)
    scheduler.advance(0)
    with pytest.raises(Refusal, match="2"):
        future.result()
    assert neighbour.result() == 5
    assert seen == [1, 2, 5]
    stats = scheduler.stats()
    assert (stats.completed, stats.failed, stats.cancelled) == (2, 1, 2)


def test_an_error_of_fn_ends_it_with_that_very_error(stepping: Stepping) -> None:
    error = Refusal()

    def refuse(items: list[Any]) -> list[Any]:
        raise error

    scheduler = stepping(refuse, max_batch_size=2)
    future = scheduler.submit_batch(range(6))
    scheduler.advance(0)
    assert future.exception() is error
    assert scheduler.stats().failed == 2


def test_cancelled_while_queued_nothing_is_computed(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=4)
    future, neighbour = scheduler.submit_batch([1, 2, 3]), scheduler.submit(4)
    assert future.cancel()
    assert future.cancel()
    assert future.cancelled()
    scheduler.advance(0)
    assert neighbour.result() == 8
    assert [batch.items for batch in scheduler.batches] == [(4,)]
    assert scheduler.stats().cancelled == 3


def test_cancelled_in_the_middle_the_rest_is_not_computed(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=2, service_ms=10)
    future = scheduler.submit_batch(range(5))
    scheduler.advance(5)
    assert not future.running()  # some of it still is queued
    assert future.cancel()
    scheduler.advance(100)
    assert len(scheduler.batches) == 1
    assert (scheduler.stats().completed, scheduler.stats().cancelled) == (2, 3)
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()


def test_when_all_of_it_runs_it_cannot_be_cancelled(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=2, service_ms=10)
    future = scheduler.submit_batch(range(4))
    scheduler.advance(15)
    assert future.running()
    assert not future.cancel()
    scheduler.advance(5)
    assert future.result() == [0, 2, 4, 6]
    assert not future.running()


def test_the_first_row_that_is_too_late_ends_it(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=2, service_ms=10)
    future = scheduler.submit_batch(range(6), timeout_ms=15)
    scheduler.advance(100)
    with pytest.raises(DeadlineExceeded, match="timeout_ms of 15"):
        future.result()
    stats = scheduler.stats()
    assert stats.completed + stats.expired + stats.cancelled == 6
    assert stats.expired > 0


def test_too_late_at_submit_it_fails_at_once(stepping: Stepping) -> None:
    scheduler = stepping(doubled)
    future = scheduler.submit_batch([1, 2], timeout_ms=0)
    assert isinstance(future.exception(), DeadlineExceeded)
    assert scheduler.stats().expired == 2


def test_shutdown_answers_it_and_shutdown_that_cancels_cancels_it(stepping: Stepping) -> None:
    for cancel_futures in (False, True):
        scheduler = stepping(doubled, max_batch_size=2, service_ms=10)
        future = scheduler.submit_batch(range(5))
        scheduler.advance(5)
        scheduler.shutdown(cancel_futures=cancel_futures)
        assert future.cancelled() is cancel_futures
        assert cancel_futures or future.result() == [0, 2, 4, 6, 8]


def test_drain_waits_for_the_whole(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, policy="fixed", max_wait_ms=HOUR_MS, max_batch_size=4)
    future = scheduler.submit_batch(range(10))
    assert scheduler.drain(LIMIT_S)
    assert future.done()


# --- whoever waits


def test_callbacks_are_called_once_with_the_whole(stepping: Stepping) -> None:
    scheduler = stepping(doubled, max_batch_size=2)
    told: list[Any] = []
    future = scheduler.submit_batch(range(4))
    future.add_done_callback(lambda ended: told.append(ended.result()))
    scheduler.advance(0)
    assert told == [[0, 2, 4, 6]]


def test_concurrent_futures_wait_takes_it(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=3)
    futures = [scheduler.submit_batch(range(n)) for n in range(8)]
    assert not concurrent.futures.wait(futures, LIMIT_S).not_done
    assert [len(future.result()) for future in futures] == list(range(8))
    assert len(list(concurrent.futures.as_completed(futures, LIMIT_S))) == 8


@pytest.mark.parametrize("fn", [doubled, doubled_async])
def test_it_can_be_awaited(scheduler_of: SchedulerOf, fn: Any) -> None:
    scheduler = scheduler_of(fn, max_batch_size=3)

    async def main() -> list[Any]:
        return await asyncio.gather(*(scheduler.submit_batch(range(n)) for n in range(10)))

    assert run_loop(main()) == [[2 * item for item in range(n)] for n in range(10)]


def test_to_cancel_the_task_that_awaits_it_cancels_what_is_queued(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)

    async def main() -> None:
        async def ask() -> None:
            await scheduler.submit_batch(range(6))

        task = asyncio.ensure_future(ask())
        await gate.entered()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()

    run_loop(main())
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == [0, 1]


def test_fn_that_waits_for_its_own_batch_is_refused(scheduler_of: SchedulerOf) -> None:
    outcomes: list[Any] = []
    ready = threading.Event()

    def compute(items: list[int]) -> list[int]:
        assert ready.wait(LIMIT_S)
        with pytest.raises(WouldDeadlock) as caught:
            future.result(LIMIT_S)
        outcomes.append(caught.value)
        return items

    scheduler = scheduler_of(compute, max_batch_size=2)
    future = scheduler.submit_batch(range(4))
    ready.set()
    assert future.result(LIMIT_S) == [0, 1, 2, 3]
    assert len(outcomes) == 2


def test_fn_that_waits_for_a_later_row_of_what_it_computes_is_refused(scheduler_of: SchedulerOf) -> None:
    """The first row runs elsewhere, and could be waited for; a later one is here."""
    running = threading.Barrier(2)
    refused = threading.Event()
    ready = threading.Event()

    def compute(items: list[int]) -> list[int]:
        assert ready.wait(LIMIT_S)
        running.wait(LIMIT_S)
        if items == [0]:
            assert refused.wait(LIMIT_S)
        else:
            with pytest.raises(WouldDeadlock, match="the batch that it is computing"):
                future.result(LIMIT_S)
            refused.set()
        return items

    scheduler = scheduler_of(compute, max_batch_size=1, max_concurrent_batches=2)
    future = scheduler.submit_batch([0, 1])
    ready.set()
    assert future.result(LIMIT_S) == [0, 1]


# --- arrays in, arrays out


class Answer(NamedTuple):
    best: Any
    score: Any


def test_an_array_comes_back_as_an_array(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch * 2, batch_as="stack", max_batch_size=4)
    rows = np.arange(30, dtype=np.float32).reshape(10, 3)
    future = scheduler.submit_batch(rows)
    scheduler.advance(0)
    result = future.result()
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, rows * 2)


@pytest.mark.parametrize("sizes", [None, [4, 16]])
def test_structures_come_back_whole(stepping: Stepping, sizes: Any) -> None:
    def compute(batch: Any) -> dict[str, Any]:
        return {"sum": batch.sum(axis=1), "pair": (batch, [str(row) for row in batch[:, 0]])}

    scheduler = stepping(compute, batch_as="stack", max_batch_size=4, allowed_batch_sizes=sizes)
    rows = np.arange(30).reshape(10, 3)
    future = scheduler.submit_batch(rows)
    scheduler.advance(0)
    result = future.result()
    np.testing.assert_array_equal(result["sum"], rows.sum(axis=1))
    np.testing.assert_array_equal(result["pair"][0], rows)
    assert result["pair"][1] == [str(row) for row in rows[:, 0]]


def test_named_tuples_stay_what_they_are(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: Answer(batch.argmax(axis=1), batch.max(axis=1)), batch_as="stack")
    rows = np.array([[1, 5], [7, 2]])
    future, single = scheduler.submit_batch(rows), scheduler.submit(rows[1])
    scheduler.advance(0)
    assert type(single.result()) is type(future.result()) is Answer
    np.testing.assert_array_equal(future.result().best, [1, 0])
    assert single.result() == (0, 7)


def test_results_of_different_shape_come_as_a_list(stepping: Stepping) -> None:
    scheduler = stepping(lambda items: [np.arange(int(item)) for item in items])
    future = scheduler.submit_batch(np.array([1, 3]))
    scheduler.advance(0)
    assert [row.tolist() for row in future.result()] == [[0], [0, 1, 2]]


def test_masks_are_not_lost_where_results_are_merged(stepping: Stepping) -> None:
    scheduler = stepping(lambda items: [np.ma.array([1, 2], mask=[False, True]) for _ in items])
    future = scheduler.submit_batch(np.zeros(2))
    scheduler.advance(0)
    assert all(np.ma.is_masked(row) for row in future.result())


@pytest.mark.parametrize("error", [Refusal, KeyboardInterrupt])
def test_what_is_raised_where_results_are_merged_ends_the_whole(stepping: Stepping, error: type[BaseException]) -> None:
    class Odd(dict[str, Any]):
        def keys(self) -> Any:
            raise error

    scheduler = stepping(lambda items: [Odd() for _ in items])
    future, neighbour = scheduler.submit_batch(np.zeros(2)), scheduler.submit(0.0)
    with pytest.raises(error) if error is KeyboardInterrupt else nullcontext():
        scheduler.advance(0)
    assert isinstance(future.exception(), error)
    assert neighbour.exception() is None


def test_rows_keep_no_memory_of_each_other_alive(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda batch: batch * 2, batch_as="stack", copy_results=True, max_batch_size=4)
    result = scheduler.submit_batch(np.ones((4, 2))).result(LIMIT_S)
    assert result.base is None
