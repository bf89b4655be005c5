"""``async def`` batch functions, and callers on event loops that come and go."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import random
import threading
import weakref
from typing import Any

import pytest

from batchcore import loops
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
    until,
)
from pybatch import BatchAborted, DeadlineExceeded, SchedulerClosed, WouldDeadlock


@pytest.fixture(params=["plain", "debug"], autouse=True)
def _mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let asyncio check what it is given, as people let it while they develop."""
    if request.param == "debug":
        monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")


def test_an_async_fn_runs_on_the_callers_loop_in_the_callers_thread(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    gate.open()
    scheduler = scheduler_of(gate.hold)
    before = set(threading.enumerate())

    async def main() -> None:
        assert await scheduler.submit(1) == 1
        assert await asyncio.gather(*map(scheduler.submit, range(100))) == list(range(100))
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit(1, timeout_ms=0)
        assert set(gate.places) == {(threading.get_ident(), asyncio.get_running_loop())}
        assert set(threading.enumerate()) == before

    run_loop(main())


def test_an_async_fn_called_from_plain_threads_runs_on_one_loop_of_the_scheduler(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    before = set(threading.enumerate())
    answers = [in_thread(scheduler.submit(item).result, LIMIT_S) for item in range(5)]
    assert [answer.result(LIMIT_S) for answer in answers] == list(range(5))
    assert scheduler(5) == 5
    ((ident, _),) = set(gate.places)
    assert ident != threading.get_ident()
    (thread,) = (thread for thread in set(threading.enumerate()) - before if thread.ident == ident)
    assert thread.daemon
    scheduler.shutdown()
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_an_async_fn_serves_threads_and_loops_from_one_queue(scheduler_of: SchedulerOf) -> None:
    gate, each = AsyncGate(), 8
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


@pytest.mark.parametrize("limit", [1, 2, 4])
def test_as_many_async_batches_run_at_once_as_allowed_and_no_more(scheduler_of: SchedulerOf, limit: int) -> None:
    running, most, met = 0, 0, asyncio.Condition()

    async def meet(items: list[int]) -> list[int]:
        nonlocal running, most
        async with met:
            running += 1
            most = max(most, running)
            met.notify_all()
            await met.wait_for(lambda: most == limit)
        await one_turn()
        running -= 1
        return items

    async def main() -> None:
        scheduler = scheduler_of(meet, max_batch_size=1, max_concurrent_batches=limit)
        assert await asyncio.gather(*map(scheduler.submit, range(20))) == list(range(20))

    run_loop(main())
    assert most == limit


def test_the_loop_goes_round_while_a_plain_fn_computes(scheduler_of: SchedulerOf) -> None:
    gate, idents = Gate(), []

    def hold(items: list[Any]) -> list[Any]:
        idents.append(threading.get_ident())
        return gate.hold(items)

    scheduler = scheduler_of(hold)

    async def main() -> None:
        future = scheduler.submit("slow")
        await asyncio.to_thread(gate.wait_entered)
        for _ in range(10):
            await one_turn()
        assert not future.done()
        gate.open()
        assert await future == "slow"
        assert idents != [threading.get_ident()]

    run_loop(main())


def test_a_request_of_an_async_fn_expires_on_time_while_its_only_batch_waits(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running = scheduler.submit("running")
        await gate.entered()
        with pytest.raises(DeadlineExceeded):
            await scheduler.submit("expiring", timeout_ms=20)
        assert not running.done()
        gate.open()
        assert await running == "running"

    run_loop(main())
    assert gate.seen == ["running"]


def test_a_threads_request_expires_on_time_while_the_only_async_batch_waits(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running = scheduler.submit("running")
    gate.wait_entered()
    assert isinstance(scheduler.submit("expiring", timeout_ms=20).exception(LIMIT_S), DeadlineExceeded)
    assert not running.done()
    gate.open()
    assert running.result(LIMIT_S) == "running"
    assert gate.seen == ["running"]


def test_an_async_fn_has_its_window_full_batches_and_flush(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        assert await asyncio.gather(*map(scheduler.submit, range(4))) == [0, 1, 2, 3]
        future = scheduler.submit("flushed")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(future), MOMENT_S)
        # shield's inner task still awaits the future, so the request was not cancelled
        scheduler.flush()
        assert await future == "flushed"
        scheduler.reconfigure(max_wait_ms=20)
        assert await asyncio.gather(*map(scheduler.submit, range(3))) == [0, 1, 2]

    run_loop(main())
    assert gate.batches == [[0, 1, 2, 3], ["flushed"], [0, 1, 2]]
    reasons = scheduler.stats().batches_by_reason
    assert (reasons["full"], reasons["flush"], reasons["window"]) == (1, 1, 1)


def test_flush_from_another_thread_reaches_the_loop_that_holds_the_window(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        future = scheduler.submit(1)
        await one_turn()
        await asyncio.to_thread(scheduler.flush)
        assert await future == 2

    run_loop(main())


def test_one_scheduler_serves_loop_after_loop(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async)

    async def main() -> list[int]:
        return await asyncio.gather(*map(scheduler.submit, range(10)))

    for _ in range(5):
        assert run_loop(main()) == list(range(0, 20, 2))
        assert scheduler(21) == 42, "also between loops, from a plain thread"


def test_a_loop_that_has_ended_holds_no_request_of_a_thread(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    of_thread = []

    async def main() -> None:
        of_loop = scheduler.submit("of the loop")
        await gate.entered()
        of_thread.append(await asyncio.to_thread(scheduler.submit, "of the thread"))
        of_loop.add_done_callback(lambda _: gate.open())

    run_loop(main())  # ends here, with its batch under way and the thread's request behind it
    assert of_thread[0].result(LIMIT_S) == "of the thread"


def test_a_batch_whose_loop_ends_is_aborted_and_what_is_queued_is_still_computed(scheduler_of: SchedulerOf) -> None:
    gate, futures = AsyncGate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        futures.extend(map(scheduler.submit, range(3)))
        await gate.entered()

    run_loop(main())
    assert isinstance(futures[0].exception(LIMIT_S), BatchAborted)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures[1:]] == [1, 2]
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().failed == 1


def test_requests_in_a_window_outlive_their_loop(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=64, policy="fixed", max_wait_ms=100)

    async def main() -> list[Any]:
        return [scheduler.submit(item) for item in range(3)]

    futures = run_loop(main())
    assert [future.result(LIMIT_S) for future in futures] == [0, 2, 4]


def test_a_deadline_is_kept_after_the_loop_of_its_caller_ended(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    gate.open()
    scheduler = scheduler_of(gate.hold, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    assert scheduler.submit_many(range(64))[-1].result(LIMIT_S) == 63

    async def main() -> Any:
        return scheduler.submit("urgent", timeout_ms=100)

    future = run_loop(main())
    # a deadline leaves just before it is over; a late timer makes it expire: either way it ends
    assert future.exception(LIMIT_S) is None or isinstance(future.exception(0), DeadlineExceeded)


def test_a_loop_that_is_stopped_but_not_closed_holds_no_request_of_a_thread(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async)

    async def main() -> Any:
        return await scheduler.submit(1)

    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(main()) == 2
        assert scheduler.submit(2).result(LIMIT_S) == 4
        assert loop.run_until_complete(main()) == 2
        assert scheduler.submit(3).result(LIMIT_S) == 6
    finally:
        loop.close()


def test_a_request_left_on_a_stopped_loop_is_answered_when_the_loop_goes_on(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold)

    async def begin() -> Any:
        future = scheduler.submit("left")
        await gate.entered()
        return future

    async def finish(future: Any) -> Any:
        gate.open()
        return await asyncio.wait_for(future, LIMIT_S)

    loop = asyncio.new_event_loop()
    try:
        future = loop.run_until_complete(begin())
        assert not future.done()
        assert loop.run_until_complete(finish(future)) == "left"
    finally:
        loop.close()


async def never_if_stuck(items: list[Any]) -> list[Any]:
    """Return the items, but never come back from "stuck"."""
    if items == ["stuck"]:
        await asyncio.get_running_loop().create_future()
    return items


def begin_and_close(scheduler: Any) -> Any:
    """Have a loop begin a batch that never ends, and close the loop under it; return its future."""

    async def begin() -> Any:
        future = scheduler.submit("stuck")
        for _ in range(5):
            await one_turn()
        assert future.running()
        return future

    loop = asyncio.new_event_loop()
    future = loop.run_until_complete(begin())
    loop.close()
    return future


@pytest.mark.parametrize("how", ["result", "wait", "await"])
def test_a_loop_closed_under_its_batch_does_not_take_the_scheduler_with_it(scheduler_of: SchedulerOf, how: str) -> None:
    scheduler = scheduler_of(never_if_stuck, max_batch_size=1)

    async def answer(future: Any) -> Any:
        return await future

    async def ask(item: str) -> Any:
        return await scheduler.submit(item)

    with LoopThread() as living:
        stuck = begin_and_close(scheduler)
        behind = scheduler.submit("behind it")
        if how == "result":
            assert behind.result(LIMIT_S) == "behind it"
        elif how == "wait":
            assert concurrent.futures.wait([behind], LIMIT_S).done == {behind}
        else:
            assert living.run(answer(behind)) == "behind it"
        assert concurrent.futures.wait([stuck], LIMIT_S).done == {stuck}
        assert isinstance(stuck.exception(0), BatchAborted)
        assert living.run(ask("afterwards")) == "afterwards"


def test_a_batch_under_a_closed_loop_is_aborted_for_who_waits_for_nothing_else(scheduler_of: SchedulerOf) -> None:
    stuck = begin_and_close(scheduler_of(never_if_stuck))
    assert concurrent.futures.wait([stuck], LIMIT_S).done == {stuck}
    assert isinstance(stuck.exception(0), BatchAborted)


def test_a_batch_begun_while_its_loop_is_closing_is_aborted_and_what_is_queued_is_computed(
    scheduler_of: SchedulerOf,
) -> None:
    scheduler, futures, kept = scheduler_of(never_if_stuck, max_batch_size=1), [], []

    async def generator() -> Any:
        try:
            yield
        finally:  # asyncio.run has cancelled all tasks by now: nobody cancels what begins here
            futures.extend(map(scheduler.submit, ("stuck", "behind it")))
            for _ in range(5):
                await one_turn()

    async def main() -> None:
        kept.append(generator())
        await anext(kept[0])

    run_loop(main())
    assert concurrent.futures.wait(futures, LIMIT_S).done == set(futures)
    assert isinstance(futures[0].exception(0), BatchAborted)
    assert futures[1].result(0) == "behind it"


def test_a_request_made_while_its_loop_is_closing_is_computed_elsewhere(scheduler_of: SchedulerOf) -> None:
    scheduler, futures, kept = scheduler_of(doubled_async), [], []

    async def generator() -> Any:
        try:
            yield
        finally:
            futures.append(scheduler.submit(21))  # and not another turn of this loop

    async def main() -> None:
        kept.append(generator())
        await anext(kept[0])

    run_loop(main())
    assert concurrent.futures.wait(futures, LIMIT_S).done == set(futures)
    assert isinstance(futures[0].exception(0), BatchAborted) or futures[0].result(0) == 42


def test_loops_that_come_and_go_leave_nobody_waiting(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=4, max_concurrent_batches=2)

    def come_and_go(seed: int) -> int:
        choice, made = random.Random(seed), 0

        async def main() -> list[Any]:
            futures = [scheduler.submit(n) for n in range(choice.randrange(1, 20))]
            await asyncio.gather(*futures[: choice.randrange(len(futures) + 1)], return_exceptions=True)
            return futures

        for _ in range(50):
            futures = asyncio.run(main())
            assert not concurrent.futures.wait(futures, LIMIT_S).not_done
            made += len(futures)
        return made

    going = [in_thread(come_and_go, seed) for seed in range(4)]
    assert sum(each.result(2 * LIMIT_S) for each in going) == scheduler.stats().submitted


def test_a_loop_closed_before_its_answer_comes_hurts_no_neighbour(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=8, policy="fixed", max_wait_ms=HOUR_MS)

    async def ask(item: str) -> Any:
        return await scheduler.submit(item)

    with LoopThread() as living:
        leaving = LoopThread()
        leaving.__enter__()
        waiting = living.start(ask("on a living loop"))
        left = [leaving.start(ask("on a leaving loop")) for _ in range(2)]
        future = scheduler.submit("in a thread")
        in_batch = [scheduler.submit("filler") for _ in range(4)]
        gate.wait_entered()
        leaving.stop()
        leaving.loop.close()
        gate.open()
        assert future.result(LIMIT_S) == "in a thread"
        assert waiting.result(LIMIT_S) == "on a living loop"
        assert [each.result(LIMIT_S) for each in in_batch] == ["filler"] * 4
        assert not any(each.done() for each in left)
        assert living.run(ask_flushed(scheduler)) == "again"
    assert len(gate.batches[0]) == 8


async def ask_flushed(scheduler: Any) -> Any:
    future = scheduler.submit("again")
    scheduler.flush()
    return await future


def test_a_loop_that_ends_in_order_drops_the_answer_of_its_running_request(scheduler_of: SchedulerOf) -> None:
    gate, futures = Gate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        futures.extend(scheduler.submit_many(range(4)))
        tasks = [asyncio.ensure_future(future) for future in futures[:2]]
        await asyncio.to_thread(gate.wait_entered)
        assert not any(task.done() for task in tasks)

    run_loop(main())
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2, 3]


def test_a_loop_that_ends_in_order_cancels_its_queued_requests_that_are_awaited(scheduler_of: SchedulerOf) -> None:
    gate, futures = Gate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running = scheduler.submit("running")
    gate.wait_entered()

    async def main() -> None:
        futures.extend(map(scheduler.submit, ("awaited", "not awaited")))
        futures.append(asyncio.ensure_future(futures[0]))
        await one_turn()

    run_loop(main())
    assert futures[0].cancelled()
    gate.open()
    assert [running.result(LIMIT_S), futures[1].result(LIMIT_S)] == ["running", "not awaited"]
    assert gate.seen == ["running", "not awaited"]


def test_cancelling_the_task_that_awaits_a_queued_request_cancels_it_and_nothing_else(
    scheduler_of: SchedulerOf,
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4)

    async def main() -> None:
        first = scheduler.submit("first")
        await asyncio.to_thread(gate.wait_entered)
        futures = [scheduler.submit(item) for item in range(4)]
        tasks = [asyncio.ensure_future(future) for future in futures]
        await one_turn()
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert futures[1].cancelled()
        gate.open()
        assert await asyncio.gather(first, tasks[0], *tasks[2:]) == ["first", 0, 2, 3]

    run_loop(main())
    assert gate.batches == [["first"], [0, 2, 3]]


def test_cancelling_the_task_that_awaits_a_running_request_drops_its_answer_and_nothing_else(
    scheduler_of: SchedulerOf,
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        futures = scheduler.submit_many(range(4))
        tasks = [asyncio.ensure_future(future) for future in futures]
        await asyncio.to_thread(gate.wait_entered)
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        assert not futures[1].done()
        gate.open()
        assert await asyncio.gather(tasks[0], *tasks[2:]) == [0, 2, 3]
        assert await futures[1] == 1

    run_loop(main())
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().completed == 4


@pytest.mark.parametrize("ask", ["result", "exception"])
def test_blocking_the_loop_that_has_to_compute_is_refused(scheduler_of: SchedulerOf, ask: str) -> None:
    scheduler = scheduler_of(doubled_async)

    async def main() -> None:
        future = scheduler.submit(1)
        with pytest.raises(WouldDeadlock):
            getattr(future, ask)()
        with pytest.raises(WouldDeadlock):
            getattr(future, ask)(LIMIT_S)
        assert await future == 2
        assert future.result() == 2, "what is done may be asked for anywhere"
        with pytest.raises(WouldDeadlock):
            scheduler(1)
        assert await scheduler.submit(2) == 4

    run_loop(main())


def test_blocking_the_schedulers_own_loop_is_refused(scheduler_of: SchedulerOf) -> None:
    told: concurrent.futures.Future[Any] = concurrent.futures.Future()

    async def ask_again(items: list[str]) -> list[str]:
        if items == ["outer"]:
            inner = scheduler.submit("inner")
            try:
                told.set_result(inner.result())
            except BaseException as error:
                told.set_exception(error)
        return items

    scheduler = scheduler_of(ask_again, max_batch_size=1)
    assert scheduler.submit("outer").result(LIMIT_S) == "outer"
    with pytest.raises(WouldDeadlock):
        told.result(LIMIT_S)


def test_a_coroutine_may_block_on_a_plain_fn_though_it_should_not(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled)

    async def main() -> Any:
        return scheduler.submit(1).result(LIMIT_S)

    assert run_loop(main()) == 2


def test_a_plain_thread_may_wait_for_what_a_callers_loop_computes(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    async def main() -> None:
        running = scheduler.submit("of the loop")
        await gate.entered()
        waiting = in_thread(lambda: scheduler.submit("of a thread").result(LIMIT_S))
        gate.open()
        assert await asyncio.wrap_future(waiting) == "of a thread"
        assert await running == "of the loop"

    run_loop(main())


def test_an_async_fn_may_submit_and_await_more_when_another_batch_may_run(scheduler_of: SchedulerOf) -> None:
    async def factorial(items: list[int]) -> list[int]:
        return [item * (await scheduler.submit(item - 1) if item > 1 else 1) for item in items]

    async def main() -> None:
        assert await scheduler.submit(5) == 120

    scheduler = scheduler_of(factorial, max_batch_size=1, max_concurrent_batches=8)
    run_loop(main())


def test_async_with_ends_the_scheduler_without_blocking_the_loop(scheduler_of: SchedulerOf) -> None:
    gate = Gate()

    async def main() -> None:
        async with scheduler_of(gate.hold) as scheduler:
            future = scheduler.submit("accepted")
            await asyncio.to_thread(gate.wait_entered)
            asyncio.get_running_loop().call_later(MOMENT_S, gate.open)
        assert future.done()
        assert future.result() == "accepted"
        assert scheduler.closed
        with pytest.raises(SchedulerClosed):
            scheduler.submit("late")

    run_loop(main())


def test_async_with_lets_an_async_fn_finish_on_the_same_loop(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()

    async def main() -> None:
        async with scheduler_of(gate.hold, max_batch_size=2, policy="fixed", max_wait_ms=HOUR_MS) as scheduler:
            futures = scheduler.submit_many(range(5))
            await gate.entered()
            asyncio.get_running_loop().call_later(MOMENT_S, gate.open)
        assert [future.result() for future in futures] == list(range(5))

    run_loop(main())


def test_async_with_passes_on_the_error_of_its_body(scheduler_of: SchedulerOf) -> None:
    async def main() -> None:
        scheduler = scheduler_of(doubled_async)
        future = scheduler.submit(1)
        with pytest.raises(LookupError):
            async with scheduler:
                raise LookupError
        assert future.result() == 2

    run_loop(main())


def test_shutdown_on_the_loop_that_has_to_compute_refuses_to_wait_or_does_not_hang(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async)

    async def main() -> None:
        future = scheduler.submit(1)
        try:
            scheduler.shutdown(wait=True)
        except WouldDeadlock:
            scheduler.shutdown(wait=False)
        assert scheduler.closed
        assert await future == 2

    run_loop(main())


def test_shutdown_without_waiting_on_the_loop_that_has_to_compute_still_answers(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        futures = [scheduler.submit(item) for item in range(3)]
        scheduler.shutdown(wait=False)
        assert await asyncio.gather(*futures) == [0, 2, 4]

    run_loop(main())


def test_the_batch_of_an_async_fn_is_not_lost_to_the_garbage_collector(scheduler_of: SchedulerOf) -> None:
    async def collect(items: list[int]) -> list[int]:
        waiter = asyncio.get_running_loop().create_future()
        held = weakref.ref(waiter)  # by nobody but this coroutine

        def wake() -> None:
            if (waiter := held()) is not None:
                waiter.set_result(None)

        asyncio.get_running_loop().call_later(0.01, wake)
        gc.collect()
        await waiter
        return items

    scheduler = scheduler_of(collect)

    async def main() -> None:
        future = scheduler.submit(1)
        for _ in range(5):
            await one_turn()
            gc.collect()
        assert await future == 1

    run_loop(main())


def test_a_loop_thread_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    thread = loops.LoopThread("own")
    thread.start()
    until(thread.loop.is_running)
    waited: list[float | None] = []
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", lambda _, timeout=None: waited.append(timeout))
        thread.join(1.0)
    thread.stop()
    thread.join(LIMIT_S)
    assert waited == [1.0]
