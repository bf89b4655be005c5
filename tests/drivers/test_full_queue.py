"""What a submit does when the queue is full: refuse, or wait in its thread, or wait without blocking its loop."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gates import (
    HOUR_MS,
    LIMIT_S,
    MOMENT_S,
    AsyncGate,
    Gate,
    LoopThread,
    SchedulerOf,
    doubled,
    doubled_async,
    in_thread,
    one_turn,
    run_loop,
    same,
    stays_pending,
    until,
)
from pybatch import BatchError, DeadlineExceeded, Future, QueueFull, Scheduler, SchedulerClosed


@pytest.fixture
def full(scheduler_of: SchedulerOf) -> Iterator[tuple[Scheduler[Any, Any], Gate, Future[Any]]]:
    """One request runs and another fills the queue of a scheduler that blocks; the gate opens when the test ends."""
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block")
    scheduler.submit("running")
    gate.wait_entered()
    yield scheduler, gate, scheduler.submit("queued")
    gate.open()


def test_a_full_queue_refuses_and_says_how_full_it_is_and_what_to_do(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=3)
    scheduler.submit("running")
    gate.wait_entered()
    queued = [scheduler.submit(item) for item in range(3)]
    with pytest.raises(QueueFull, match=r"3 of 3.*max_queue_size"):
        scheduler.submit("one too many")
    assert scheduler.stats().rejected == 1
    gate.open()
    assert [future.result(LIMIT_S) for future in queued] == [0, 1, 2]
    assert scheduler.submit("there is room again").result(LIMIT_S) == "there is room again"
    assert "one too many" not in gate.seen


def test_a_full_queue_refuses_a_callers_loop_too(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1)

    async def main() -> None:
        running = scheduler.submit("running")
        await gate.entered()
        queued = scheduler.submit("queued")
        with pytest.raises(QueueFull):
            scheduler.submit("one too many")
        gate.open()
        assert await asyncio.gather(running, queued) == ["running", "queued"]

    run_loop(main())


def test_a_blocked_thread_gets_in_when_a_batch_leaves(full: tuple[Scheduler[Any, Any], Gate, Future[Any]]) -> None:
    scheduler, gate, queued = full
    blocked = in_thread(scheduler.submit, "blocked")
    assert stays_pending(blocked)
    gate.open()
    assert blocked.result(LIMIT_S).result(LIMIT_S) == "blocked"
    assert queued.result(LIMIT_S) == "queued"
    assert scheduler.stats().rejected == 0, "who waited was not refused"


def test_a_blocked_thread_gets_in_when_a_request_is_cancelled(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, queued = full
    blocked = in_thread(scheduler.submit, "blocked")
    assert stays_pending(blocked)
    assert queued.cancel()
    future = blocked.result(LIMIT_S)
    assert not future.done()
    gate.open()
    assert future.result(LIMIT_S) == "blocked"


def test_a_blocked_thread_gets_in_when_a_request_expires(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block")
    scheduler.submit("running")
    gate.wait_entered()
    expiring = scheduler.submit("expiring", timeout_ms=2 * MOMENT_S * 1000)
    future = in_thread(scheduler.submit, "blocked").result(LIMIT_S)
    assert isinstance(expiring.exception(LIMIT_S), DeadlineExceeded)
    gate.open()
    assert future.result(LIMIT_S) == "blocked"


def test_a_blocked_thread_gets_in_when_the_queue_is_made_larger(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, _ = full
    blocked = in_thread(scheduler.submit, "blocked")
    assert stays_pending(blocked)
    scheduler.reconfigure(max_queue_size=2)
    future = blocked.result(LIMIT_S)
    gate.open()
    assert future.result(LIMIT_S) == "blocked"


@pytest.mark.parametrize("options", [{"wait": False}, {"wait": False, "cancel_futures": True}], ids=str)
def test_shutdown_lets_blocked_threads_go_with_an_error(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]], options: dict[str, bool]
) -> None:
    scheduler, gate, _ = full
    blocked = [in_thread(scheduler.submit, "blocked") for _ in range(3)]
    assert all(stays_pending(each) for each in blocked)
    scheduler.shutdown(**options)
    for each in blocked:
        with pytest.raises(SchedulerClosed):
            each.result(LIMIT_S)
    gate.open()
    scheduler.shutdown()
    assert "blocked" not in gate.seen


def test_a_blocked_thread_waits_no_longer_than_the_requests_own_timeout(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, _ = full
    future = in_thread(scheduler.submit, "blocked", timeout_ms=20).result(LIMIT_S)
    assert isinstance(future.exception(LIMIT_S), DeadlineExceeded)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert "blocked" not in gate.seen


def test_the_time_a_thread_was_blocked_counts_towards_its_timeout(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block")
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit("expires first", timeout_ms=100)
    future = in_thread(scheduler.submit, "blocked", timeout_ms=200).result(LIMIT_S)
    assert isinstance(future.exception(LIMIT_S), DeadlineExceeded)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running"]


def test_no_blocked_thread_is_forgotten(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=2, on_full="block")

    def ask(start: int) -> list[int]:
        futures = [scheduler.submit(item) for item in range(start, start + 100)]
        return [future.result(LIMIT_S) for future in futures]

    asking = {start: in_thread(ask, start) for start in range(0, 800, 100)}
    for start, answer in asking.items():
        assert answer.result(LIMIT_S) == list(range(2 * start, 2 * start + 200, 2))
    assert scheduler.stats().rejected == 0


def test_a_thread_that_runs_a_loop_is_not_blocked_but_told_of_submit_wait(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, _, _ = full

    async def main() -> None:
        with pytest.raises(QueueFull, match="submit_wait"):
            scheduler.submit("one too many")

    run_loop(main())


def test_the_worker_that_has_to_make_room_is_not_blocked(scheduler_of: SchedulerOf) -> None:
    told: list[Any] = []

    def submit_more(items: list[str]) -> list[str]:
        if items == ["outer"]:
            told.append(scheduler.submit("fills the queue"))
            try:
                told.append(scheduler.submit("would wait for ever"))
            except BatchError as error:
                told.append(error)
        return items

    scheduler = scheduler_of(submit_more, max_batch_size=1, max_queue_size=1, on_full="block")
    assert scheduler.submit("outer").result(LIMIT_S) == "outer"
    assert told[0].result(LIMIT_S) == "fills the queue"
    assert isinstance(told[1], BatchError)


def test_a_callback_that_has_to_make_room_is_not_blocked(scheduler_of: SchedulerOf) -> None:
    gate, told, called = Gate(), [], threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block")

    def submit_more(_: Future[Any]) -> None:
        try:
            for item in range(3):
                told.append(scheduler.submit(item))
        except BatchError as error:
            told.append(error)
        called.set()

    scheduler.submit("running").add_done_callback(submit_more)
    gate.wait_entered()
    queued = scheduler.submit("queued")
    gate.open()
    assert called.wait(LIMIT_S)
    assert isinstance(told[-1], BatchError)
    assert queued.result(LIMIT_S) == "queued"


def test_submit_wait_gets_in_when_there_is_room_while_its_loop_goes_round(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, _ = full

    async def main() -> None:
        waiting = [asyncio.ensure_future(scheduler.submit_wait(item)) for item in range(5)]
        for _ in range(5):
            await one_turn()
        assert not any(task.done() for task in waiting)
        gate.open()
        futures = await asyncio.gather(*waiting)
        assert all(isinstance(future, Future) for future in futures)
        assert sorted(await asyncio.gather(*futures)) == [0, 1, 2, 3, 4]

    run_loop(main())
    assert scheduler.stats().rejected == 0


@pytest.mark.parametrize("on_full", ["raise", "block"])
def test_submit_wait_waits_whatever_on_full_says(scheduler_of: SchedulerOf, on_full: str) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=2, max_queue_size=1, on_full=on_full)

    async def ask(item: int) -> Any:
        return await (await scheduler.submit_wait(item))

    async def main() -> None:
        assert await asyncio.gather(*map(ask, range(50))) == list(range(0, 100, 2))

    run_loop(main())
    assert scheduler.stats().rejected == 0


def test_submit_wait_into_an_empty_queue_is_a_submit(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled)

    async def main() -> None:
        future = await scheduler.submit_wait(4, timeout_ms=HOUR_MS, priority=-1)
        assert isinstance(future, Future)
        assert await future == 8

    run_loop(main())


def test_submit_wait_of_several_loops_and_threads_all_get_in(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=2, on_full="block")

    async def ask(item: int) -> Any:
        return await (await scheduler.submit_wait(item))

    async def ask_many() -> list[Any]:
        return await asyncio.gather(*map(ask, range(100)))

    def submit_many() -> list[Any]:
        return [scheduler.submit(item).result(LIMIT_S) for item in range(100)]

    with LoopThread() as one, LoopThread() as other:
        asking = [one.start(ask_many()), other.start(ask_many()), in_thread(submit_many), in_thread(submit_many)]
        assert [each.result(LIMIT_S) for each in asking] == [list(range(0, 200, 2))] * 4
    assert scheduler.stats().rejected == 0


def test_submit_wait_that_is_cancelled_while_it_waits_leaves_no_trace(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, queued = full
    before = scheduler.stats()

    async def main() -> None:
        waiting = asyncio.ensure_future(scheduler.submit_wait("cancelled"))
        await one_turn()
        await one_turn()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    run_loop(main())
    assert scheduler.stats() == before
    gate.open()
    assert queued.result(LIMIT_S) == "queued"
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running", "queued"]


def test_a_place_given_to_a_waiter_that_is_cancelled_goes_to_the_next(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, queued = full

    async def main() -> None:
        one, other = (asyncio.ensure_future(scheduler.submit_wait(item)) for item in ("one", "other"))
        await one_turn()
        await one_turn()
        queued.cancel()  # there is room, and the first waiter is about to be told ...
        one.cancel()  # ... when it gives up
        future = await asyncio.wait_for(other, LIMIT_S)
        gate.open()
        assert await future == "other"
        with pytest.raises(asyncio.CancelledError):
            await one

    run_loop(main())


def test_submit_wait_is_let_go_by_shutdown(full: tuple[Scheduler[Any, Any], Gate, Future[Any]]) -> None:
    scheduler, gate, _ = full

    async def main() -> None:
        waiting = [asyncio.ensure_future(scheduler.submit_wait("waiting")) for _ in range(3)]
        await one_turn()
        scheduler.shutdown(wait=False)
        for each in waiting:
            with pytest.raises(SchedulerClosed):
                await asyncio.wait_for(each, LIMIT_S)

    run_loop(main())
    gate.open()
    scheduler.shutdown()
    assert "waiting" not in gate.seen


def test_submit_wait_waits_no_longer_than_the_requests_own_timeout(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, _ = full

    async def main() -> None:
        future = await scheduler.submit_wait("late", timeout_ms=20)
        with pytest.raises(DeadlineExceeded):
            await future

    run_loop(main())
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert "late" not in gate.seen


def test_a_loop_that_ends_while_submit_wait_waits_leaves_no_trace(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, queued = full
    waiting = []

    async def main() -> None:
        waiting.append(asyncio.ensure_future(scheduler.submit_wait("waiting")))
        await one_turn()

    run_loop(main())
    assert waiting[0].cancelled()
    gate.open()
    assert queued.result(LIMIT_S) == "queued"
    assert scheduler.submit("afterwards").result(LIMIT_S) == "afterwards"
    assert "waiting" not in gate.seen


def test_a_loop_closed_while_submit_wait_waits_does_not_keep_the_place_from_others(
    full: tuple[Scheduler[Any, Any], Gate, Future[Any]],
) -> None:
    scheduler, gate, queued = full
    leaving = LoopThread()
    leaving.__enter__()
    waiting = leaving.start(scheduler.submit_wait("waiting"))
    assert stays_pending(waiting)
    leaving.stop()
    leaving.loop.close()
    blocked = in_thread(scheduler.submit, "blocked")
    assert stays_pending(blocked)
    gate.open()
    assert queued.result(LIMIT_S) == "queued"
    assert blocked.result(LIMIT_S).result(LIMIT_S) == "blocked"


def test_submit_many_answers_in_the_order_of_its_items(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=7)
    for items in ([], [1], (2, 3), range(100), iter([4, 5]), (item for item in range(3))):
        expected = list(items) if not isinstance(items, Iterator) else None
        futures = scheduler.submit_many(items if expected is None else expected)
        results = [future.result(LIMIT_S) for future in futures]
        assert expected is None or results == [item * 2 for item in expected]
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().completed == 108


def test_submit_many_takes_all_or_nothing(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=4)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit_many(["a", "b"])
    with pytest.raises(QueueFull):
        scheduler.submit_many(["c", "d", "e"])
    assert scheduler.stats().queued == 2
    scheduler.submit_many(["C", "D"])
    with pytest.raises(QueueFull):
        scheduler.submit_many(["f"])
    assert scheduler.submit_many([]) == []
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running", "a", "b", "C", "D"]


def test_submit_many_of_items_that_break_submits_nothing(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(gate.hold)

    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    with pytest.raises(LookupError, match="no more"):
        scheduler.submit_many(items())
    with pytest.raises(TypeError):
        scheduler.submit_many(3)  # type: ignore[arg-type]
    assert scheduler.stats().submitted == 0
    assert gate.seen == []


def test_submit_many_waits_for_room_where_submit_would(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=2, on_full="block")
    futures = in_thread(scheduler.submit_many, range(20)).result(LIMIT_S)
    assert [future.result(LIMIT_S) for future in futures] == list(range(0, 40, 2))


def test_submit_many_of_more_than_the_queue_holds_is_refused(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_queue_size=8)
    with pytest.raises(QueueFull):
        scheduler.submit_many(range(9))
    assert [future.result(LIMIT_S) for future in scheduler.submit_many(range(8))] == list(range(0, 16, 2))


def test_map_answers_in_order(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=4, max_concurrent_batches=2)
    assert list(scheduler.map(range(200))) == list(range(0, 400, 2))
    assert list(scheduler.map([])) == []


def test_map_takes_no_item_before_it_is_asked(scheduler_of: SchedulerOf) -> None:
    taken = []
    scheduler = scheduler_of(doubled)
    answers = scheduler.map(taken.append(item) or item for item in range(3))
    assert taken == []
    assert list(answers) == [0, 2, 4]


def test_map_works_on_endless_items_and_takes_no_more_than_a_bounded_window(scheduler_of: SchedulerOf) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        for item in itertools.count():
            taken += 1
            yield item

    scheduler = scheduler_of(doubled, max_batch_size=4, max_queue_size=8)
    answers = scheduler.map(items())
    assert list(itertools.islice(answers, 10)) == list(range(0, 20, 2))
    assert taken <= 10 + 8 + 2 * 4
    answers.close()
    assert scheduler.drain(LIMIT_S)


def test_map_keeps_enough_outstanding_to_fill_batches(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=8, policy="fixed", max_wait_ms=HOUR_MS, max_queue_size=64)
    answers = scheduler.map(range(64))
    assert in_thread(lambda: [next(answers) for _ in range(32)]).result(LIMIT_S) == list(range(32))
    assert all(len(batch) == 8 for batch in gate.batches)
    answers.close()


@pytest.mark.parametrize("batch_ms", [0, 2])
def test_map_goes_further_ahead_only_where_batches_are_quick(scheduler_of: SchedulerOf, batch_ms: float) -> None:
    taken, lead = 0, 0
    pause = threading.Event()

    def items(count: int) -> Iterator[int]:
        nonlocal taken
        for item in range(count):
            taken = item
            yield item

    def compute(items: list[int]) -> list[int]:
        if batch_ms:
            pause.wait(batch_ms / 1000)
        return doubled(items)

    scheduler = scheduler_of(compute, max_batch_size=1)
    count = 50 if batch_ms else 20_000
    for item, answer in enumerate(scheduler.map(items(count))):
        assert answer == 2 * item
        lead = max(lead, taken - item)
    assert lead == 4 if batch_ms else 4 < lead <= 4096


def test_map_ends_its_last_batch_though_it_is_not_full(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=8, policy="fixed", max_wait_ms=100)
    assert in_thread(lambda: list(scheduler.map(range(11)))).result(LIMIT_S) == list(range(11))


@pytest.mark.parametrize("on_full", ["raise", "block"])
@pytest.mark.parametrize("max_queue_size", [1, 2])
def test_map_waits_for_room_in_a_small_queue(scheduler_of: SchedulerOf, max_queue_size: int, on_full: str) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=max_queue_size, on_full=on_full)
    assert in_thread(lambda: list(scheduler.map(range(50)))).result(LIMIT_S) == list(range(0, 100, 2))
    stats = scheduler.stats()
    assert (stats.submitted, stats.rejected) == (50, 0)


def test_map_waits_for_room_that_others_take(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=2)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit_many(["one", "two"])
    mapped = in_thread(lambda: list(scheduler.map(range(5))))
    assert stays_pending(mapped)
    gate.open()
    assert mapped.result(LIMIT_S) == [0, 1, 2, 3, 4]
    assert scheduler.stats().rejected == 0


def test_several_maps_share_a_small_queue(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=2, max_queue_size=2)
    mapped = [in_thread(lambda: list(scheduler.map(range(100)))) for _ in range(4)]
    assert [each.result(LIMIT_S) for each in mapped] == [list(range(0, 200, 2))] * 4


@pytest.mark.parametrize("how", ["close", "forget"])
def test_a_map_that_is_closed_cancels_what_is_outstanding(scheduler_of: SchedulerOf, how: str) -> None:
    gate = Gate()

    def one(items: list[int]) -> list[int]:
        return items if items == [0] else gate.hold(items)

    scheduler = scheduler_of(one, max_batch_size=1)
    answers = scheduler.map(range(1000))
    assert next(answers) == 0
    gate.wait_entered()
    if how == "close":
        answers.close()
    else:
        del answers
    stats = scheduler.stats()
    assert (stats.queued, stats.running) == (0, 1)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == [1]


def test_the_error_of_an_item_is_raised_by_map_in_its_turn_and_the_rest_is_cancelled(
    scheduler_of: SchedulerOf,
) -> None:
    gate = Gate()

    def one(items: list[int]) -> list[Any]:
        if items > [2]:
            return gate.hold(items)
        return [LookupError("no 2") if item == 2 else item for item in items]

    scheduler = scheduler_of(one, max_batch_size=1)
    answers = scheduler.map(range(100))
    assert [next(answers), next(answers)] == [0, 1]
    with pytest.raises(LookupError, match="no 2"):
        next(answers)
    assert list(answers) == []
    assert scheduler.stats().queued == 0
    gate.open()


def test_the_error_of_the_items_is_raised_by_map_and_the_rest_is_cancelled(scheduler_of: SchedulerOf) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise LookupError("no more")

    scheduler = scheduler_of(same, max_batch_size=1)
    answers = []
    with pytest.raises(LookupError, match="no more"):
        answers.extend(scheduler.map(items()))
    assert answers == list(range(len(answers)))
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().queued == 0


def test_map_passes_its_timeout_and_priority_on(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled)
    assert list(scheduler.map(range(5), timeout_ms=HOUR_MS, priority=3)) == [0, 2, 4, 6, 8]
    with pytest.raises(DeadlineExceeded):
        list(scheduler.map(range(5), timeout_ms=0))
    with pytest.raises(ValueError, match="nan"):
        list(scheduler.map(range(5), timeout_ms=float("nan")))


def test_map_on_a_scheduler_that_ends_meanwhile_is_told(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=1)
    answers = scheduler.map(itertools.count())
    assert next(answers) == 0
    scheduler.shutdown(wait=False)
    with pytest.raises(SchedulerClosed):
        for _ in answers:
            pass


def test_map_over_an_async_fn(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=4, max_queue_size=4)
    assert in_thread(lambda: list(scheduler.map(range(50)))).result(LIMIT_S) == list(range(0, 100, 2))


def test_places_are_counted_right_after_all_endings(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=4)
    scheduler.submit("running")
    gate.wait_entered()
    for _ in range(100):
        futures = [scheduler.submit("cancelled"), scheduler.submit("expired", timeout_ms=0.5)]
        futures[0].cancel()
        until(futures[1].done)
    futures = [scheduler.submit(item) for item in range(4)]
    with pytest.raises(QueueFull):
        scheduler.submit("one too many")
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2, 3]
    stats = scheduler.stats()
    assert (stats.cancelled, stats.expired, stats.rejected) == (100, 100, 1)
