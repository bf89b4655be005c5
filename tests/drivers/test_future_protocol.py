"""The future of a request: a standard one to everybody who knows ``concurrent.futures``, and awaitable besides."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import sys
import threading
import weakref
from typing import Any

import pytest

from gates import (
    HOUR_MS,
    LIMIT_S,
    MOMENT_S,
    Gate,
    LoopThread,
    SchedulerOf,
    doubled,
    in_thread,
    one_turn,
    run_loop,
    same,
)
from pybatch import DeadlineExceeded, Future


class Thing:
    """An item that can be watched while it goes away."""


def gone(thing: Any) -> threading.Event:
    """Tell by an event when nothing refers to `thing` any more."""
    event = threading.Event()
    weakref.finalize(thing, event.set).atexit = False
    return event


def test_who_listens_while_the_item_of_a_cancelled_request_goes_is_told(scheduler_of: SchedulerOf) -> None:
    class Parting:
        def __del__(self) -> None:
            futures[0].add_done_callback(told.append)

    told: list[Future[Any]] = []
    scheduler = scheduler_of(list, policy="fixed", max_wait_ms=HOUR_MS)
    futures = [scheduler.submit(Parting())]
    assert futures[0].cancel()
    assert told == futures


def test_a_request_is_queued_then_running_then_done(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    first = scheduler.submit("first")
    gate.wait_entered()
    second = scheduler.submit("second")
    assert (first.running(), first.done(), first.cancelled()) == (True, False, False)
    assert (second.running(), second.done(), second.cancelled()) == (False, False, False)
    gate.open()
    assert [first.result(LIMIT_S), second.result(LIMIT_S)] == ["first", "second"]
    assert (first.running(), first.done(), first.cancelled()) == (False, True, False)
    assert first.exception(LIMIT_S) is None


def test_the_call_of_a_scheduler_is_submit_and_wait(scheduler_of: SchedulerOf) -> None:
    assert scheduler_of(doubled)(21) == 42


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
@pytest.mark.parametrize("ask", ["result", "exception"])
def test_an_answer_that_takes_longer_than_the_caller_waits_is_still_computed(
    scheduler_of: SchedulerOf, ask: str, seconds: float
) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("slow")
    with pytest.raises(TimeoutError) as caught:
        getattr(future, ask)(seconds)
    assert not isinstance(caught.value, DeadlineExceeded)
    gate.open()
    assert future.result(LIMIT_S) == "slow"


def test_the_error_of_a_request_is_raised_by_result_and_returned_by_exception(scheduler_of: SchedulerOf) -> None:
    error = LookupError("no such thing")
    future = scheduler_of(lambda items: [error for _ in items]).submit("thing")
    assert future.exception(LIMIT_S) is error
    for _ in range(2):
        with pytest.raises(LookupError, match="no such thing") as caught:
            future.result(LIMIT_S)
        assert caught.value is error


def test_many_threads_may_wait_for_one_answer(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("shared")
    waiting = [in_thread(future.result, LIMIT_S) for _ in range(8)]
    gate.open()
    assert [each.result(LIMIT_S) for each in waiting] == ["shared"] * 8


def test_a_queued_request_can_be_cancelled_and_is_never_computed(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running, queued = scheduler.submit("running"), scheduler.submit("queued")
    gate.wait_entered()
    assert queued.cancel()
    assert queued.cancel(), "a second time says the same"
    assert (queued.cancelled(), queued.done(), queued.running()) == (True, True, False)
    for ask in (queued.result, queued.exception):
        with pytest.raises(concurrent.futures.CancelledError):
            ask(LIMIT_S)
    gate.open()
    assert running.result(LIMIT_S) == "running"
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running"]
    assert scheduler.stats().cancelled == 1


def test_a_running_request_and_a_done_one_cannot_be_cancelled(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("kept")
    gate.wait_entered()
    assert not future.cancel()
    gate.open()
    assert future.result(LIMIT_S) == "kept"
    assert not future.cancel()
    assert not future.cancelled()


def test_cancel_wakes_the_thread_that_waits_for_the_result(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    queued = scheduler.submit("queued")
    waiting = in_thread(queued.result, LIMIT_S)
    assert queued.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        waiting.result(LIMIT_S)
    gate.open()


def test_callbacks_run_in_the_order_they_were_added_with_the_future_that_is_done(scheduler_of: SchedulerOf) -> None:
    gate, calls, called = Gate(), [], threading.Event()
    future = scheduler_of(gate.hold).submit("answer")
    for number in range(5):
        future.add_done_callback(lambda done, number=number: calls.append((number, done, done.result(0))))
    future.add_done_callback(lambda _: called.set())
    assert calls == []
    gate.open()
    assert called.wait(LIMIT_S)
    assert calls == [(number, future, "answer") for number in range(5)]


def test_a_callback_added_to_a_done_future_runs_at_once_in_this_thread(scheduler_of: SchedulerOf) -> None:
    future = scheduler_of(same).submit("answer")
    future.result(LIMIT_S)
    calls: list[tuple[Any, int]] = []
    future.add_done_callback(lambda done: calls.append((done, threading.get_ident())))
    assert calls == [(future, threading.get_ident())]


def test_a_callback_added_by_a_callback_runs_too(scheduler_of: SchedulerOf) -> None:
    gate, called = Gate(), threading.Event()
    future = scheduler_of(gate.hold).submit("answer")
    future.add_done_callback(lambda done: done.add_done_callback(lambda _: called.set()))
    gate.open()
    assert called.wait(LIMIT_S)


def test_a_callback_runs_on_the_thread_that_ends_the_request(scheduler_of: SchedulerOf) -> None:
    gate, idents, called = Gate(), [], threading.Event()

    def hold(items: list[str]) -> list[str]:
        idents.append(threading.get_ident())
        return gate.hold(items)

    scheduler = scheduler_of(hold, max_batch_size=1)
    computed, cancelled = scheduler.submit("computed"), scheduler.submit("cancelled")
    gate.wait_entered()
    cancelled.add_done_callback(lambda _: idents.append(threading.get_ident()))
    computed.add_done_callback(lambda _: (idents.append(threading.get_ident()), called.set()))
    cancelled.cancel()
    assert idents[1:] == [threading.get_ident()]
    gate.open()
    assert called.wait(LIMIT_S)
    assert idents[2] == idents[0]


def test_a_callback_that_raises_is_reported_and_hurts_nobody(
    scheduler_of: SchedulerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, called, reports = Gate(), threading.Event(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_value))
    error = ValueError("the callback's own")

    def broken(_: Future[Any]) -> None:
        raise error

    scheduler = scheduler_of(gate.hold, max_batch_size=8)
    warm = scheduler.submit("warm")
    gate.wait_entered()
    future, neighbour = scheduler.submit("answer"), scheduler.submit("neighbour")
    future.add_done_callback(broken)
    future.add_done_callback(lambda _: called.set())
    gate.open()
    assert [each.result(LIMIT_S) for each in (warm, future, neighbour)] == ["warm", "answer", "neighbour"]
    assert called.wait(LIMIT_S)
    assert reports == [error]
    future.add_done_callback(broken)
    assert reports == [error, error], "also when it is called at once"
    assert scheduler(1) == 1


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_a_callback_cannot_end_the_worker(
    scheduler_of: SchedulerOf, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    gate, reports = Gate(), []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: reports.append(report.exc_value))

    def broken(_: Future[Any]) -> None:
        raise error

    scheduler = scheduler_of(gate.hold)
    future = scheduler.submit(1)
    future.add_done_callback(broken)
    gate.open()
    assert future.result(LIMIT_S) == 1
    assert scheduler.submit(2).result(LIMIT_S) == 2
    assert reports == [error]


def test_it_is_a_standard_future(scheduler_of: SchedulerOf) -> None:
    future = scheduler_of(same).submit(1)
    assert isinstance(future, Future)
    assert isinstance(future, concurrent.futures.Future)
    assert future.result(LIMIT_S) == 1


@pytest.mark.parametrize(
    ("return_when", "done_names"),
    [
        (concurrent.futures.FIRST_COMPLETED, {"good"}),
        (concurrent.futures.FIRST_EXCEPTION, {"good", "bad"}),
        (concurrent.futures.ALL_COMPLETED, {"good", "bad", "late"}),
    ],
)
def test_wait_returns_when_it_is_told_to(scheduler_of: SchedulerOf, return_when: str, done_names: set[str]) -> None:
    passes = {name: threading.Event() for name in ("good", "bad", "late")}

    def one(items: list[str]) -> list[Any]:
        (name,) = items
        assert passes[name].wait(LIMIT_S)
        return [ValueError(name) if name == "bad" else name]

    scheduler = scheduler_of(one, max_batch_size=1)
    futures = {scheduler.submit(name): name for name in passes}
    waiting = in_thread(concurrent.futures.wait, futures, LIMIT_S, return_when)
    for name in sorted(done_names, key=list(passes).index):
        assert not waiting.done()
        passes[name].set()
    answer = waiting.result(LIMIT_S)
    assert {futures[future] for future in answer.done} == done_names
    assert {futures[future] for future in answer.not_done} == set(passes) - done_names
    for each in passes.values():
        each.set()


def test_wait_times_out_and_tells_what_is_done_and_what_is_not(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler, idle = scheduler_of(gate.hold, max_batch_size=1), scheduler_of(same)
    held, done, cancelled = scheduler.submit("held"), idle.submit("done"), scheduler.submit("cancelled")
    done.result(LIMIT_S)
    cancelled.cancel()
    answer = concurrent.futures.wait([held, done, cancelled], timeout=MOMENT_S)
    assert (answer.done, answer.not_done) == ({done, cancelled}, {held})
    gate.open()
    assert concurrent.futures.wait([held], timeout=LIMIT_S).done == {held}


def test_its_state_stands_still_while_wait_looks_at_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("answer")
    gate.wait_entered()
    with future._condition:  # as wait does, which counts the pending twice and relies on the same count
        before = future._state
        gate.open()
        threading.Event().wait(MOMENT_S)
        assert future._state == before
    assert concurrent.futures.wait([future], LIMIT_S).done == {future}
    assert future._state == "FINISHED"


@pytest.mark.parametrize("ending", ["expired", "cancelled"])
def test_wait_sees_a_request_end_that_is_just_about_to_be_told(scheduler_of: SchedulerOf, ending: str) -> None:
    gate, begun, go_on = Gate(), threading.Event(), threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    first, second = scheduler.submit_many(["first", "second"], timeout_ms=50 if ending == "expired" else None)

    def linger(_: Future[Any]) -> None:
        begun.set()
        assert go_on.wait(LIMIT_S)

    first.add_done_callback(linger)  # both end at once: the second is told after the first
    if ending == "cancelled":
        stopping = in_thread(scheduler.shutdown, wait=False, cancel_futures=True)
    assert begun.wait(LIMIT_S)
    waiting = [
        in_thread(concurrent.futures.wait, [second], LIMIT_S),
        in_thread(lambda: concurrent.futures.wait(list(concurrent.futures.as_completed([second], LIMIT_S)))),
    ]
    concurrent.futures.wait(waiting, MOMENT_S)
    go_on.set()
    assert all(each.result(2 * LIMIT_S).done == {second} for each in waiting)
    gate.open()
    if ending == "cancelled":
        stopping.result(LIMIT_S)


def test_wait_misses_no_answer_however_threads_are_switched(scheduler_of: SchedulerOf) -> None:
    scheduler, interval = scheduler_of(same, max_batch_size=4, max_concurrent_batches=2), sys.getswitchinterval()

    def ask() -> None:
        for item in range(3000):
            future = scheduler.submit(item)
            assert concurrent.futures.wait([future], LIMIT_S).done == {future}

    sys.setswitchinterval(1e-6)
    try:
        asking = [in_thread(ask) for _ in range(8)]
        for each in asking:
            each.result(2 * LIMIT_S)
    finally:
        sys.setswitchinterval(interval)


def test_wait_takes_them_together_with_an_executors_futures(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        mine, theirs = scheduler.submit("mine"), pool.submit(str, "theirs")
        answer = concurrent.futures.wait([mine, theirs], LIMIT_S, concurrent.futures.FIRST_COMPLETED)
        assert answer.done == {theirs}
        gate.open()
        assert concurrent.futures.wait([mine, theirs], LIMIT_S).done == {mine, theirs}


def test_as_completed_yields_them_as_they_end(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running, queued, expiring = (
        scheduler.submit("running"),
        scheduler.submit("queued"),
        scheduler.submit("expiring", timeout_ms=1),
    )
    order = []
    for future in concurrent.futures.as_completed([queued, running, expiring], timeout=LIMIT_S):
        order.append(future)
        gate.open()
    assert order == [expiring, running, queued]


def test_as_completed_times_out(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("slow")
    with pytest.raises(TimeoutError):
        list(concurrent.futures.as_completed([future], timeout=0.01))
    gate.open()
    assert list(concurrent.futures.as_completed([future], timeout=LIMIT_S)) == [future]


@pytest.mark.parametrize(
    ("method", "arguments"),
    [("set_result", (1,)), ("set_exception", (ValueError(),)), ("set_running_or_notify_cancel", ())],
)
def test_only_the_scheduler_ends_a_request(scheduler_of: SchedulerOf, method: str, arguments: tuple[Any, ...]) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running, queued = scheduler.submit("running"), scheduler.submit("queued")
    gate.wait_entered()
    for future in (running, queued):
        with pytest.raises(RuntimeError):
            getattr(future, method)(*arguments)
    gate.open()
    assert [running.result(LIMIT_S), queued.result(LIMIT_S)] == ["running", "queued"]
    with pytest.raises(RuntimeError):
        getattr(running, method)(*arguments)
    assert running.result(0) == "running"


def test_its_repr_tells_the_state_it_is_in(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running, queued, cancelled = (scheduler.submit(name) for name in ("running", "queued", "cancelled"))
    gate.wait_entered()
    cancelled.cancel()
    texts = [repr(running), repr(queued), repr(cancelled)]
    gate.open()
    queued.result(LIMIT_S)
    texts.append(repr(running))
    assert all("Future" in text for text in texts)
    states = ["running", "queued", "cancelled", "completed"]
    assert all(state in text for state, text in zip(states, texts, strict=True)), texts


def test_it_can_be_a_key_and_weakly_referenced_and_subscripted(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    one, other = scheduler.submit(1), scheduler.submit(1)
    assert len({one, other, one}) == 2
    assert weakref.ref(one)() is one
    assert Future[int] is not None


def test_it_is_awaited_before_and_after_it_is_done_and_more_than_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)

    async def main() -> None:
        future = scheduler.submit("answer")
        waiting = [asyncio.ensure_future(future) for _ in range(3)]
        await one_turn()
        assert not any(task.done() for task in waiting)
        gate.open()
        assert await asyncio.gather(*waiting) == ["answer"] * 3
        assert await future == "answer"

    run_loop(main())


def test_it_is_awaited_on_several_loops_at_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    future = scheduler_of(gate.hold).submit("shared")

    async def wait() -> Any:
        return await future

    with LoopThread() as one, LoopThread() as other:
        waiting = [one.start(wait()), other.start(wait()), one.start(wait())]
        gate.open()
        assert [each.result(LIMIT_S) for each in waiting] == ["shared"] * 3


def test_an_error_is_raised_where_it_is_awaited(scheduler_of: SchedulerOf) -> None:
    error = LookupError("no such thing")
    scheduler = scheduler_of(lambda items: [error for _ in items])

    async def main() -> None:
        with pytest.raises(LookupError) as caught:
            await scheduler.submit("thing")
        assert caught.value is error

    run_loop(main())


def test_a_cancelled_request_cancels_who_awaits_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running, queued = scheduler.submit("running"), scheduler.submit("queued")
        waiting = asyncio.ensure_future(queued)
        await one_turn()
        assert queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(asyncio.CancelledError):
            await queued
        gate.open()
        assert await running == "running"

    run_loop(main())


def test_gather_and_wait_and_as_completed_of_asyncio_take_it(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=4)

    async def main() -> None:
        assert await asyncio.gather(*map(scheduler.submit, range(10))) == list(range(0, 20, 2))
        done, pending = await asyncio.wait([asyncio.ensure_future(scheduler.submit(n)) for n in range(3)])
        assert (sorted(task.result() for task in done), pending) == ([0, 2, 4], set())
        assert sorted([await each for each in asyncio.as_completed(map(scheduler.submit, range(3)))]) == [0, 2, 4]
        assert await asyncio.shield(scheduler.submit(4)) == 8

    run_loop(main())


def test_wrap_future_gives_its_answer_and_cancels_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running, queued = scheduler.submit("running"), scheduler.submit("queued")
        wrapped = asyncio.wrap_future(queued)
        wrapped.cancel()
        await one_turn()
        assert queued.cancelled()
        gate.open()
        assert await asyncio.wrap_future(running) == "running"

    run_loop(main())
    assert gate.seen == ["running"]


def test_wait_for_that_times_out_cancels_the_queued_request(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running, queued = scheduler.submit("running"), scheduler.submit("queued")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queued, 0.01)
        assert queued.cancelled()
        gate.open()
        assert await asyncio.wait_for(running, LIMIT_S) == "running"

    run_loop(main())
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == ["running"]
    assert scheduler.stats().cancelled == 1


def test_wait_for_that_times_out_on_a_running_request_drops_the_answer_for_this_caller_only(
    scheduler_of: SchedulerOf,
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)

    async def main() -> None:
        future = scheduler.submit("running")
        other = asyncio.ensure_future(future)
        await asyncio.to_thread(gate.wait_entered)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0.01)
        assert not future.done()
        gate.open()
        assert await other == "running"
        assert await future == "running"

    run_loop(main())


def test_a_timeout_block_and_a_task_group_cancel_the_queued_requests_of_their_tasks(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def ask(future: Future[Any]) -> Any:
        return await future

    async def fail() -> None:
        raise LookupError

    async def ask_in_vain(future: Future[Any]) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ask(future))
            await one_turn()
            group.create_task(fail())

    async def main() -> None:
        running, late, sibling = (scheduler.submit(item) for item in ("running", "late", "sibling"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await late
        with pytest.raises(ExceptionGroup):
            await ask_in_vain(sibling)
        assert late.cancelled()
        assert sibling.cancelled()
        gate.open()
        assert await running == "running"

    run_loop(main())
    assert gate.seen == ["running"]


def test_each_task_wakes_as_itself_in_its_own_context(scheduler_of: SchedulerOf) -> None:
    gate, variable = Gate(), contextvars.ContextVar("variable", default=-1)
    scheduler = scheduler_of(gate.hold, max_batch_size=64)

    async def ask(item: int) -> None:
        task = asyncio.current_task()
        variable.set(item)
        for _ in range(3):
            assert await scheduler.submit(item) == item
            assert variable.get() == item
            assert asyncio.current_task() is task
            variable.set(item)

    async def main() -> None:
        asking = [asyncio.ensure_future(ask(item)) for item in range(64)]
        await one_turn()
        gate.open()
        await asyncio.gather(*asking)
        assert variable.get() == -1

    run_loop(main())


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()], ids=lambda error: type(error).__name__)
def test_a_task_that_stops_its_loop_when_it_wakes_does_not_take_its_neighbours_wake_up_with_it(
    scheduler_of: SchedulerOf, error: BaseException
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=3, policy="fixed", max_wait_ms=3_600_000)

    async def ask(item: int) -> int:
        result: int = await scheduler.submit(item)
        if item == 0:
            raise error
        return result

    async def begin() -> list[asyncio.Task[int]]:
        tasks = [asyncio.create_task(ask(item)) for item in range(3)]
        await one_turn()
        return tasks

    loop = asyncio.new_event_loop()
    try:
        first, *others = loop.run_until_complete(begin())
        gate.open()
        with pytest.raises(type(error)):
            loop.run_until_complete(asyncio.wait_for(asyncio.gather(*others), LIMIT_S))
        assert loop.run_until_complete(asyncio.wait_for(asyncio.gather(*others), LIMIT_S)) == [1, 2]
        assert first.exception() is error
    finally:
        loop.close()


def test_a_task_that_cancels_its_neighbour_of_the_same_batch_when_it_wakes(scheduler_of: SchedulerOf) -> None:
    gate, tasks = Gate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=3, policy="fixed", max_wait_ms=3_600_000)

    async def ask(item: int) -> int:
        result: int = await scheduler.submit(item)
        if item == 0:
            tasks[1].cancel()
        return result

    async def main() -> None:
        tasks.extend(asyncio.create_task(ask(item)) for item in range(3))
        await one_turn()
        gate.open()
        one, other, third = await asyncio.gather(*tasks, return_exceptions=True)
        assert (one, third) == (0, 2)
        assert isinstance(other, asyncio.CancelledError)

    run_loop(main())


def test_a_task_cancelled_after_its_answer_was_sent_is_cancelled_all_the_same(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold)

    async def main() -> None:
        future = scheduler.submit("answer")
        task = asyncio.ensure_future(future)
        await one_turn()
        gate.open()
        assert future.result(LIMIT_S) == "answer"  # the loop has been told by now, and has not gone round since
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert future.result(0) == "answer"

    run_loop(main())


def test_a_result_that_refers_to_its_own_future_is_collected(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [Thing() for _ in items])
    future = scheduler.submit(1)
    result = future.result(LIMIT_S)
    result.future = future
    future.add_done_callback(lambda _: None)
    result_gone = gone(result)
    del result, future
    gc.collect()
    assert result_gone.wait(LIMIT_S)


def test_many_callbacks_and_awaits_of_one_request_are_all_served(scheduler_of: SchedulerOf) -> None:
    gate, count = Gate(), 5000
    future = scheduler_of(gate.hold).submit("popular")
    calls: list[Any] = []
    for _ in range(count):
        future.add_done_callback(calls.append)

    async def main() -> None:
        waiting = [asyncio.ensure_future(future) for _ in range(count)]
        await one_turn()
        gate.open()
        assert await asyncio.gather(*waiting) == ["popular"] * count

    run_loop(main())
    assert calls == [future] * count


def test_nothing_refers_to_the_item_once_the_request_is_done(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [None for _ in items])
    item = Thing()
    item_gone = gone(item)
    future = scheduler.submit(item)
    del item
    assert future.result(LIMIT_S) is None
    assert item_gone.wait(LIMIT_S)


def test_nothing_refers_to_the_result_once_the_caller_let_it_go(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [Thing() for _ in items])
    future = scheduler.submit(1)
    result = future.result(LIMIT_S)
    result_gone = gone(result)
    del result
    assert not result_gone.is_set(), "the future keeps its result"
    del future
    assert result_gone.wait(LIMIT_S)


def test_nothing_refers_to_the_awaited_result_once_the_caller_let_it_go(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [Thing() for _ in items])

    async def main() -> threading.Event:
        return gone(await scheduler.submit(1))

    assert run_loop(main()).wait(LIMIT_S)


def test_nothing_refers_to_the_error_once_the_caller_let_it_go(scheduler_of: SchedulerOf) -> None:
    class Refusal(Exception):
        pass

    def refuse(items: list[Any]) -> list[Any]:
        raise Refusal

    future = scheduler_of(refuse).submit(1)
    error_gone = gone(future.exception(LIMIT_S))
    del future
    gc.collect()
    assert error_gone.wait(LIMIT_S)


@pytest.mark.parametrize("ending", ["cancelled", "expired"])
def test_a_request_that_ends_in_the_queue_lets_its_item_go_while_the_worker_is_busy(
    scheduler_of: SchedulerOf, ending: str
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running = scheduler.submit("running")
    gate.wait_entered()
    item = Thing()
    item_gone = gone(item)
    future = scheduler.submit(item, timeout_ms=1 if ending == "expired" else None)
    del item
    if ending == "expired":
        assert isinstance(future.exception(LIMIT_S), DeadlineExceeded)
    else:
        assert future.cancel()
    assert item_gone.wait(LIMIT_S)
    gate.open()
    assert running.result(LIMIT_S) == "running"


def test_an_item_expired_at_once_is_let_go_at_once(scheduler_of: SchedulerOf) -> None:
    item = Thing()
    item_gone = gone(item)
    future = scheduler_of(same).submit(item, timeout_ms=0)
    del item
    assert isinstance(future.exception(LIMIT_S), DeadlineExceeded)
    assert item_gone.wait(LIMIT_S)


def test_a_request_that_nobody_waits_for_is_computed_all_the_same(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    for item in range(3):
        scheduler.submit(item)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert gate.seen == [0, 1, 2]


def test_callbacks_are_let_go_once_they_ran(scheduler_of: SchedulerOf) -> None:
    gate, thing = Gate(), Thing()
    thing_gone = gone(thing)
    future = scheduler_of(gate.hold).submit(1)
    future.add_done_callback(lambda _, thing=thing: None)
    del thing
    gate.open()
    assert future.result(LIMIT_S) == 1
    assert thing_gone.wait(LIMIT_S)


@pytest.mark.parametrize("ending", ["completed", "cancelled"])
def test_the_collector_looks_at_a_future_from_its_end_on(scheduler_of: SchedulerOf, ending: str) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit(1)
    gate.wait_entered()
    future: Any = scheduler.submit(2)
    tracked = gc.is_tracked(future)
    if ending == "cancelled":
        assert future.cancel()
    gate.open()
    assert concurrent.futures.wait([future], LIMIT_S).done
    assert not tracked, "the queue held it: it was no garbage"
    future.me = future
    seen = weakref.ref(future)
    del future
    gc.collect()
    assert seen() is None
