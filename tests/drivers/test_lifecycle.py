"""From the first request to the last: closing, waiting, being forgotten, and being called from where nobody expects."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import itertools
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gates import (
    HOUR_MS,
    LIMIT_S,
    MOMENT_S,
    AsyncGate,
    Gate,
    SchedulerOf,
    doubled,
    doubled_async,
    in_thread,
    one_turn,
    run_loop,
    same,
    stays_pending,
)
from pybatch import Future, Scheduler, SchedulerClosed, Stats, WouldDeadlock


def test_shutdown_waits_until_everything_accepted_is_answered(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)
    futures = scheduler.submit_many(range(9))
    stopping = in_thread(scheduler.shutdown)
    assert stays_pending(stopping)
    assert scheduler.closed
    gate.open()
    stopping.result(LIMIT_S)
    assert all(future.done() for future in futures)
    assert [future.result(0) for future in futures] == list(range(9))


def test_shutdown_without_waiting_returns_at_once_and_everything_accepted_is_answered(
    scheduler_of: SchedulerOf,
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)
    futures = scheduler.submit_many(range(9))
    scheduler.shutdown(wait=False)
    assert not any(future.done() for future in futures)
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == list(range(9))


def test_shutdown_ends_the_window(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    futures = scheduler.submit_many(range(3))
    scheduler.shutdown()
    assert [future.result(0) for future in futures] == [0, 2, 4]
    assert scheduler.stats().batches_by_reason["drain"] == 1


def test_shutdown_that_cancels_lets_the_running_finish_and_cancels_the_queued(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    running, *queued = (scheduler.submit(item) for item in range(5))
    gate.wait_entered()
    scheduler.shutdown(wait=False, cancel_futures=True)
    for future in queued:
        assert future.cancelled()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(0)
    assert running.running()
    gate.open()
    assert running.result(LIMIT_S) == 0
    scheduler.shutdown()
    assert gate.seen == [0]
    stats = scheduler.stats()
    assert stats.cancelled + stats.shut_down == 4


def test_shutdown_that_cancels_wakes_who_awaits_and_who_waits(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()

    async def main() -> None:
        awaited, waited = scheduler.submit("awaited"), scheduler.submit("waited")
        task, thread = asyncio.ensure_future(awaited), in_thread(waited.result, LIMIT_S)
        await one_turn()
        scheduler.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises((concurrent.futures.CancelledError, asyncio.CancelledError)):
            await asyncio.wrap_future(thread)

    run_loop(main())
    gate.open()


def test_shutdown_first_without_then_with_cancelling_cancels(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    _, queued = scheduler.submit("running"), scheduler.submit("queued")
    gate.wait_entered()
    scheduler.shutdown(wait=False)
    assert not queued.done()
    scheduler.shutdown(wait=False, cancel_futures=True)
    assert queued.cancelled()
    gate.open()


def test_shutdown_twice_and_by_many_at_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)
    futures = scheduler.submit_many(range(5))
    stopping = [in_thread(scheduler.shutdown) for _ in range(4)]
    gate.open()
    for each in stopping:
        each.result(LIMIT_S)
    scheduler.shutdown()
    assert [future.result(0) for future in futures] == list(range(5))


def test_shutdown_of_a_scheduler_that_was_never_used(scheduler_of: SchedulerOf) -> None:
    before = set(threading.enumerate())
    scheduler = scheduler_of(same)
    scheduler.shutdown()
    assert set(threading.enumerate()) == before
    with pytest.raises(SchedulerClosed):
        scheduler.submit(1)


@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_from_inside_fn_does_not_wait_for_itself(scheduler_of: SchedulerOf, wait: bool) -> None:
    def stop(items: list[int]) -> list[int]:
        with contextlib.suppress(WouldDeadlock):
            scheduler.shutdown(wait=wait)
        return items

    scheduler = scheduler_of(stop, max_batch_size=1)
    futures = []
    with contextlib.suppress(SchedulerClosed):
        futures += [scheduler.submit(item) for item in range(5)]
    assert [future.result(LIMIT_S) for future in futures] == list(range(len(futures)))
    assert scheduler.closed


@pytest.mark.parametrize("wait", [False, True])
def test_shutdown_from_a_callback_does_not_wait_for_itself(scheduler_of: SchedulerOf, wait: bool) -> None:
    gate, called = Gate(), threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    def stop(_: Future[Any]) -> None:
        with contextlib.suppress(WouldDeadlock):
            scheduler.shutdown(wait=wait)
        called.set()

    first, second = scheduler.submit(1), scheduler.submit(2)
    first.add_done_callback(stop)
    gate.open()
    assert called.wait(LIMIT_S)
    assert [first.result(LIMIT_S), second.result(LIMIT_S)] == [1, 2]
    assert scheduler.closed


def test_everything_is_refused_after_shutdown_and_nothing_is_counted(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    assert scheduler(1) == 1
    assert not scheduler.closed
    scheduler.shutdown()
    assert scheduler.closed
    before = scheduler.stats()

    async def submit_wait() -> None:
        await scheduler.submit_wait(1)

    for refused in (
        lambda: scheduler.submit(1),
        lambda: scheduler.submit(1, timeout_ms=0),
        lambda: scheduler.submit_many([1, 2]),
        lambda: list(scheduler.map([1, 2])),
        lambda: scheduler(1),
        lambda: run_loop(submit_wait()),
    ):
        with pytest.raises(SchedulerClosed):
            refused()
    assert scheduler.stats() == before
    assert scheduler.drain(LIMIT_S)
    scheduler.flush()


def test_with_ends_the_scheduler_when_all_is_answered(scheduler_of: SchedulerOf) -> None:
    with scheduler_of(doubled, policy="fixed", max_wait_ms=HOUR_MS) as scheduler:
        futures = scheduler.submit_many(range(3))
    assert scheduler.closed
    assert [future.result(0) for future in futures] == [0, 2, 4]


def test_with_passes_on_the_error_of_its_body(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled)
    future = scheduler.submit(1)
    with pytest.raises(LookupError), scheduler:
        raise LookupError
    assert future.result(0) == 2
    assert scheduler.closed


def test_drain_tells_whether_all_ended_in_time_and_leaves_the_scheduler_open(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=2)
    assert scheduler.drain(0), "there is nothing to wait for"
    futures = scheduler.submit_many(range(5))
    assert not scheduler.drain(0)
    assert not scheduler.drain(MOMENT_S)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert all(future.done() for future in futures)
    assert scheduler.drain()
    assert not scheduler.closed
    assert scheduler.submit(1).result(LIMIT_S) == 1


def test_drain_ends_the_window(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS)
    futures = scheduler.submit_many(range(3))
    assert scheduler.drain(LIMIT_S)
    assert [future.result(0) for future in futures] == [0, 2, 4]
    late = scheduler.submit(3)
    with pytest.raises(TimeoutError):
        late.result(MOMENT_S)
    assert scheduler.drain(LIMIT_S)
    assert late.result(0) == 6


def test_drain_waits_for_what_is_accepted_so_far_and_not_for_what_comes_later(scheduler_of: SchedulerOf) -> None:
    scheduler, stop = scheduler_of(same, max_batch_size=1), threading.Event()

    def again(done: Future[int]) -> None:
        if not stop.is_set():
            scheduler.submit(done.result(0) + 1).add_done_callback(again)

    for _ in range(4):
        scheduler.submit(0).add_done_callback(again)
    for _ in range(10):
        assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().queued + scheduler.stats().running > 0, "it never came to rest"
    stop.set()


def test_drain_counts_every_way_to_end(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    scheduler.submit("expiring", timeout_ms=2 * MOMENT_S * 1000)
    cancelled = scheduler.submit("cancelled")
    draining = in_thread(scheduler.drain, LIMIT_S)
    assert stays_pending(draining)
    cancelled.cancel()
    gate.open()
    assert draining.result(LIMIT_S)


def test_many_drain_at_once(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit_many(range(5))
    draining = [in_thread(scheduler.drain, LIMIT_S) for _ in range(5)]
    short = [in_thread(scheduler.drain, 0.01) for _ in range(5)]
    assert not any(each.result(LIMIT_S) for each in short)
    gate.open()
    assert all(each.result(LIMIT_S) for each in draining)


def test_drain_of_an_async_fn_on_a_loop_from_another_thread(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, max_batch_size=2, policy="fixed", max_wait_ms=HOUR_MS)

    async def main() -> None:
        futures = scheduler.submit_many(range(5))
        assert await asyncio.to_thread(scheduler.drain, LIMIT_S)
        assert [await future for future in futures] == [0, 2, 4, 6, 8]

    run_loop(main())


def test_fn_may_submit_another_item_and_not_wait_for_it(scheduler_of: SchedulerOf) -> None:
    more: list[Future[int]] = []

    def submit_smaller(items: list[int]) -> list[int]:
        more.extend(scheduler.submit(item - 1) for item in items if item)
        return items

    scheduler = scheduler_of(submit_smaller)
    assert scheduler.submit(20).result(LIMIT_S) == 20
    for left in range(20):
        assert more[left].result(LIMIT_S) == 19 - left


def test_a_callback_may_submit_another_item(scheduler_of: SchedulerOf) -> None:
    scheduler, ended = scheduler_of(same), threading.Event()

    def again(done: Future[int]) -> None:
        if done.result(0):
            scheduler.submit(done.result(0) - 1).add_done_callback(again)
        else:
            ended.set()

    scheduler.submit(200).add_done_callback(again)
    assert ended.wait(LIMIT_S)


def test_a_callback_may_do_anything_to_the_scheduler(scheduler_of: SchedulerOf) -> None:
    gate, told, called = Gate(), [], threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, policy="fixed", max_wait_ms=HOUR_MS)
    first, second, third = (scheduler.submit(item) for item in (1, 2, 3))

    def meddle(_: Future[int]) -> None:
        told.append(third.cancel())
        told.append(scheduler.stats().cancelled)
        scheduler.flush()
        scheduler.reconfigure(max_batch_size=2)
        told.append(scheduler.name)
        called.set()

    first.add_done_callback(meddle)
    gate.open()
    assert called.wait(LIMIT_S)
    assert told == [True, 1, scheduler.name]
    assert second.result(LIMIT_S) == 2


def test_a_callback_of_a_cancelled_request_may_do_anything_to_the_scheduler(scheduler_of: SchedulerOf) -> None:
    gate, more = Gate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1)
    scheduler.submit("running")
    gate.wait_entered()
    queued = scheduler.submit("queued")
    queued.add_done_callback(lambda _: more.append(scheduler.submit("in its place")))
    assert queued.cancel()
    gate.open()
    assert more[0].result(LIMIT_S) == "in its place"


def test_waiting_for_ones_own_worker_is_refused(scheduler_of: SchedulerOf) -> None:
    told: list[BaseException] = []

    def ask_again(items: list[str]) -> list[str]:
        if items == ["outer"]:
            inner = scheduler.submit("inner")
            for ask in (inner.result, inner.exception, functools.partial(inner.result, LIMIT_S)):
                try:
                    ask()
                except BaseException as error:
                    told.append(error)
            told.append(inner)  # type: ignore[arg-type]
        return items

    scheduler = scheduler_of(ask_again, max_batch_size=1)
    assert scheduler.submit("outer").result(LIMIT_S) == "outer"
    inner: Any = told.pop()
    assert inner.result(LIMIT_S) == "inner"
    assert [type(error) for error in told] == [WouldDeadlock] * 3


def test_a_callback_that_waits_for_its_own_worker_is_refused(scheduler_of: SchedulerOf) -> None:
    gate, told = Gate(), []
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    def ask_again(_: Future[Any]) -> None:
        inner = scheduler.submit("inner")
        told.append(inner)
        with pytest.raises(WouldDeadlock):
            inner.result(LIMIT_S)
        told.append("refused")

    scheduler.submit("outer").add_done_callback(ask_again)
    gate.open()
    assert scheduler.drain(LIMIT_S)
    assert scheduler.drain(LIMIT_S), "now also what the callback submitted"
    assert told[0].result(LIMIT_S) == "inner"
    assert told[1:] == ["refused"]


def test_a_callback_of_an_expired_request_may_wait_for_another(scheduler_of: SchedulerOf) -> None:
    gate, told, called = Gate(), [], threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)
    scheduler.submit("running")
    gate.wait_entered()

    def ask_again(_: Future[Any]) -> None:
        gate.open()
        told.append(scheduler.submit("inner").result(LIMIT_S))
        called.set()

    scheduler.submit("expiring", timeout_ms=20).add_done_callback(ask_again)
    assert called.wait(LIMIT_S)
    assert told == ["inner"]


@pytest.mark.parametrize("how", ["submit", "submit_many"])
@pytest.mark.parametrize("is_async", [False, True])
def test_when_no_thread_can_be_started_the_caller_is_told_and_nothing_stays_behind(
    scheduler_of: SchedulerOf, monkeypatch: pytest.MonkeyPatch, how: str, is_async: bool
) -> None:
    scheduler = scheduler_of(doubled_async if is_async else doubled)
    ways: dict[str, Callable[[], Any]] = {
        "submit": lambda: scheduler.submit(1),
        "submit_many": lambda: scheduler.submit_many([1, 2]),
    }

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can't start new thread"):
                ways[how]()
            assert scheduler.stats().queued == 0
    assert scheduler.submit(21).result(LIMIT_S) == 42


def test_a_second_worker_that_cannot_be_started_is_done_without(
    scheduler_of: SchedulerOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_concurrent_batches=2)
    futures = [scheduler.submit(0)]
    gate.wait_entered()

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        futures += [scheduler.submit(item) for item in range(1, 4)]
    gate.open()
    assert [future.result(LIMIT_S) for future in futures] == [0, 1, 2, 3]


def test_fn_may_ask_for_a_request_that_is_done(scheduler_of: SchedulerOf) -> None:
    def ask(items: list[Any]) -> list[Any]:
        return [item.result() if isinstance(item, Future) else item for item in items]

    scheduler = scheduler_of(ask)
    done = scheduler.submit("done")
    assert done.result(LIMIT_S) == "done"
    assert scheduler.submit(done).result(LIMIT_S) == "done"


def test_fn_may_wait_for_another_scheduler(scheduler_of: SchedulerOf) -> None:
    inner = scheduler_of(doubled)
    outer = scheduler_of(lambda items: [inner.submit(item).result(LIMIT_S) + 1 for item in items])
    assert outer.submit(4).result(LIMIT_S) == 9


def test_waiting_in_fn_works_while_another_worker_can_compute(scheduler_of: SchedulerOf) -> None:
    def ask_again(items: list[str]) -> list[str]:
        return [scheduler.submit("inner").result(LIMIT_S) + " in outer" if item == "outer" else item for item in items]

    scheduler = scheduler_of(ask_again, max_batch_size=1, max_concurrent_batches=2)
    assert scheduler.submit("outer").result(LIMIT_S) == "inner in outer"


def test_when_every_worker_would_wait_for_the_others_one_is_refused(scheduler_of: SchedulerOf) -> None:
    meeting = threading.Barrier(2)

    def ask_again(items: list[str]) -> list[Any]:
        if items == ["outer"]:
            meeting.wait(LIMIT_S)
            return [scheduler.submit("inner").result(LIMIT_S)]
        return items

    scheduler = scheduler_of(ask_again, max_batch_size=1, max_concurrent_batches=2)
    outer = [scheduler.submit("outer"), scheduler.submit("outer")]
    errors = [type(future.exception(LIMIT_S)) for future in outer]
    assert WouldDeadlock in errors
    assert set(errors) <= {WouldDeadlock, type(None)}


def test_drain_from_inside_fn_does_not_hang(scheduler_of: SchedulerOf) -> None:
    told: list[Any] = []

    def drain(items: list[int]) -> list[int]:
        try:
            told.append(scheduler.drain())
        except WouldDeadlock as error:
            told.append(error)
        return items

    scheduler = scheduler_of(drain)
    assert scheduler.submit(1).result(LIMIT_S) == 1
    assert isinstance(told[0], WouldDeadlock) or told[0] is False


def test_reading_stats_in_fn_and_after(scheduler_of: SchedulerOf) -> None:
    told: list[Stats] = []

    def look(items: list[int]) -> list[int]:
        told.append(scheduler.stats())
        return items

    scheduler = scheduler_of(look, max_batch_size=4, max_queue_size=100, max_latency_ms=10, name="looked at")
    assert scheduler.stats().last_progress_at_ns is None
    [future.result(LIMIT_S) for future in scheduler.submit_many(range(4))]
    assert (told[0].running, told[0].queued, told[0].in_flight_batches) == (4, 0, 1)
    assert scheduler.drain(LIMIT_S)
    stats = scheduler.stats()
    assert (stats.submitted, stats.completed, stats.running, stats.batches) == (4, 4, 0, 1)
    assert (stats.max_batch_size, stats.max_queue_size, stats.capacity) == (4, 100, 1)
    assert (stats.policy, stats.max_wait_ns, stats.max_latency_ns) == ("adaptive", None, 10_000_000)
    assert isinstance(stats.last_progress_at_ns, int)


def test_stats_are_frozen_and_typed(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    assert scheduler(1) == 1
    assert scheduler.drain(LIMIT_S)
    stats = scheduler.stats()
    assert isinstance(stats, Stats)
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.submitted = 0  # type: ignore[misc]
    counters = [stats.submitted, stats.completed, stats.queued, stats.running, stats.batches]
    assert [type(counter) for counter in counters] == [int] * 5
    assert counters == [1, 1, 0, 0, 1]
    scheduler.submit(2).result(LIMIT_S)
    assert stats.submitted == 1, "a snapshot stays as it is"


def test_the_name_comes_from_fn_and_is_unique_among_the_living_of_a_registry(scheduler_of: SchedulerOf) -> None:
    registry, other = CollectorRegistry(), CollectorRegistry()
    first, second = (scheduler_of(doubled, registry=registry) for _ in range(2))
    assert (first.name, second.name) == ("doubled", "doubled-2")
    assert scheduler_of(doubled, registry=other).name == "doubled"
    named = [scheduler_of(doubled, registry=registry, name="mine") for _ in range(3)]
    assert [each.name for each in named] == ["mine", "mine-2", "mine-3"]


def test_a_scheduler_tells_its_name_in_its_repr(scheduler_of: SchedulerOf) -> None:
    assert "mine" in repr(scheduler_of(doubled, name="mine"))


def collect_and_list_warnings(forget: Callable[[], None], ended: Callable[[], None]) -> list[str]:
    """Forget a scheduler, collect garbage, wait until it ended; return the categories of the warnings meanwhile."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        forget()
        gc.collect()
        ended()
        gc.collect()
    return [warning.category.__name__ for warning in caught]


@pytest.fixture
def my_threads() -> Iterator[Callable[[], set[threading.Thread]]]:
    """Tell the threads that were started since the test began; they have to end when it ends."""
    before = set(threading.enumerate())
    yield lambda: set(threading.enumerate()) - before
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), thread


@pytest.mark.parametrize("is_async", [False, True])
def test_a_forgotten_scheduler_that_is_idle_warns_and_its_threads_end(
    my_threads: Callable[[], set[threading.Thread]], is_async: bool
) -> None:
    kept = [Scheduler(doubled_async if is_async else doubled, metrics=False)]
    assert kept[0].submit(1).result(LIMIT_S) == 2
    threads = my_threads()
    assert threads

    def ended() -> None:
        for thread in threads:
            thread.join(LIMIT_S)

    assert collect_and_list_warnings(kept.clear, ended) == ["ResourceWarning"]
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("is_async", [False, True])
def test_a_forgotten_scheduler_still_answers_what_it_accepted(
    my_threads: Callable[[], set[threading.Thread]], is_async: bool
) -> None:
    gate = AsyncGate() if is_async else Gate()
    kept = [Scheduler(gate.hold, max_batch_size=1, metrics=False)]
    futures = [kept[0].submit(item) for item in range(5)]
    gate.wait_entered()
    threads = my_threads()

    def ended() -> None:
        gate.open()
        assert [future.result(LIMIT_S) for future in futures] == list(range(5))
        futures.clear()
        for thread in threads:
            thread.join(LIMIT_S)

    assert collect_and_list_warnings(kept.clear, ended) == ["ResourceWarning"]
    assert not any(thread.is_alive() for thread in threads)


def test_a_forgotten_scheduler_in_its_window_answers_what_it_accepted(
    my_threads: Callable[[], set[threading.Thread]],
) -> None:
    kept = [Scheduler(doubled, max_batch_size=64, policy="fixed", max_wait_ms=HOUR_MS, metrics=False)]
    futures = kept[0].submit_many(range(3))

    def ended() -> None:
        assert [future.result(LIMIT_S) for future in futures] == [0, 2, 4]
        futures.clear()
        for thread in my_threads():
            thread.join(LIMIT_S)

    assert collect_and_list_warnings(kept.clear, ended) == ["ResourceWarning"]


def test_a_forgotten_scheduler_that_was_shut_down_says_nothing() -> None:
    kept = [Scheduler(doubled, metrics=False)]
    assert kept[0].submit(1).result(LIMIT_S) == 2
    kept[0].shutdown()
    assert collect_and_list_warnings(kept.clear, lambda: None) == []


def test_a_model_that_holds_its_own_scheduler_can_be_forgotten(
    my_threads: Callable[[], set[threading.Thread]],
) -> None:
    class Model:
        def __init__(self) -> None:
            self.scheduler = Scheduler(self.predict, metrics=False)

        def predict(self, items: list[int]) -> list[int]:
            return [item * 2 for item in items]

    kept = [Model()]
    assert kept[0].scheduler.submit(1).result(LIMIT_S) == 2
    model_gone = threading.Event()
    weakref.finalize(kept[0], model_gone.set).atexit = False
    assert collect_and_list_warnings(kept.clear, lambda: None) in (["ResourceWarning"], [])
    assert model_gone.wait(LIMIT_S)


def test_a_scheduler_that_was_shut_down_lets_its_fn_go(scheduler_of: SchedulerOf) -> None:
    class Model:
        def __call__(self, items: list[int]) -> list[int]:
            return items

    model = Model()
    model_gone = threading.Event()
    weakref.finalize(model, model_gone.set).atexit = False
    scheduler = Scheduler(model, metrics=False)
    assert scheduler.submit(1).result(LIMIT_S) == 1
    scheduler.shutdown()
    del model, scheduler
    gc.collect()
    assert model_gone.wait(LIMIT_S)


def send_to_main(number: int, after: threading.Event) -> None:
    """Send the main thread a signal, a moment after the event."""
    assert after.wait(LIMIT_S)
    threading.Event().wait(MOMENT_S)
    signal.pthread_kill(threading.main_thread().ident or 0, number)


@pytest.mark.parametrize(
    "where", ["result", "exception", "await", "submit", "drain", "shutdown", "call", "map", "wait"]
)
@pytest.mark.parametrize("is_async", [False, True])
def test_ctrl_c_interrupts_who_waits_and_the_scheduler_goes_on(
    scheduler_of: SchedulerOf, where: str, is_async: bool
) -> None:
    gate = AsyncGate() if is_async else Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block")
    running = scheduler.submit("running")
    gate.wait_entered()
    if where in ("submit", "map"):
        scheduler.submit("queued")  # there is no room for more

    async def wait_on_loop() -> Any:
        return await asyncio.shield(running)

    waits: dict[str, Callable[[], Any]] = {
        "result": lambda: running.result(LIMIT_S),
        "exception": running.exception,
        "await": lambda: asyncio.run(wait_on_loop()),
        "submit": lambda: scheduler.submit("blocked"),
        "drain": scheduler.drain,
        "shutdown": scheduler.shutdown,
        "call": lambda: scheduler("called"),
        "map": lambda: list(scheduler.map(["mapped"])),
        "wait": lambda: concurrent.futures.wait([running]),
    }
    ready = threading.Event()
    sending = in_thread(send_to_main, signal.SIGINT, ready)
    began = time.monotonic()
    ready.set()
    with pytest.raises(KeyboardInterrupt):
        waits[where]()
    assert time.monotonic() - began < LIMIT_S / 2, "it was interrupted, not let go"
    sending.result(LIMIT_S)
    gate.open()
    assert running.result(LIMIT_S) == "running"
    if where == "shutdown":
        assert scheduler.closed
    else:
        assert scheduler.submit("afterwards").result(LIMIT_S) == "afterwards"


@contextlib.contextmanager
def handled(number: int, handler: Callable[..., None]) -> Iterator[None]:
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, signal.SIG_IGN)  # a sender that a broken test left behind must not end the process


def test_a_signal_handler_may_submit_while_its_thread_waits(scheduler_of: SchedulerOf) -> None:
    gate, from_handler, handled_once = Gate(), [], threading.Event()
    scheduler = scheduler_of(gate.hold, max_batch_size=1)

    def handler(*_: object) -> None:
        from_handler.append(scheduler.submit("from the handler"))
        handled_once.set()

    with handled(signal.SIGUSR1, handler):
        running, ready = scheduler.submit("running"), threading.Event()
        gate.wait_entered()
        sending = in_thread(send_to_main, signal.SIGUSR1, ready)
        opening = in_thread(lambda: handled_once.wait(LIMIT_S) and gate.open())
        ready.set()
        assert running.result(LIMIT_S) == "running"
        sending.result(LIMIT_S)
        opening.result(LIMIT_S)
    assert from_handler[0].result(LIMIT_S) == "from the handler"


def test_a_signal_handler_may_submit_and_cancel_in_the_middle_of_anything(scheduler_of: SchedulerOf) -> None:
    scheduler, count, from_handler = scheduler_of(same, max_batch_size=8), 300, []

    def handler(*_: object) -> None:
        one, other = scheduler.submit("handled"), scheduler.submit("dropped")
        other.cancel()
        scheduler.stats()
        from_handler.append(one)

    def send_all() -> None:
        pause = threading.Event()
        for _ in range(count):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            pause.wait(0.0005)

    with handled(signal.SIGUSR1, handler):
        sending, futures = in_thread(send_all), []
        while not sending.done():
            future = scheduler.submit(len(futures))
            futures.append(future)
            if len(futures) % 16 == 0:
                future.result(LIMIT_S)
                scheduler.flush()
        sending.result(LIMIT_S)
    assert [future.result(LIMIT_S) for future in futures] == list(range(len(futures)))
    assert from_handler
    assert {future.result(LIMIT_S) for future in from_handler} == {"handled"}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_signal_that_interrupts_at_any_moment_loses_no_request_and_no_place(
    scheduler_of: SchedulerOf, is_async: bool
) -> None:
    fn = doubled_async if is_async else doubled
    scheduler = scheduler_of(fn, max_batch_size=4, max_queue_size=4, on_full="block")
    armed, interrupted = False, 0
    if is_async:
        assert scheduler(1) == 2  # its loop is there: interrupted while asyncio makes it, it would never be closed

    def handler(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise KeyboardInterrupt

    def send_all() -> None:
        pause = threading.Event()
        for _ in range(400):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            pause.wait(0.0005)

    def use(item: int) -> None:
        assert scheduler.submit(item).result(LIMIT_S) == 2 * item
        futures = [scheduler.submit(item, timeout_ms=HOUR_MS) for _ in range(6)]
        futures[5].cancel()
        concurrent.futures.wait(futures, LIMIT_S)
        assert list(scheduler.map(range(10))) == list(range(0, 20, 2))
        assert scheduler(item) == 2 * item
        assert scheduler.drain(LIMIT_S)

    with handled(signal.SIGUSR1, handler):
        sending = in_thread(send_all)
        for item in itertools.count():
            try:
                armed = True
                use(item)
                armed = False
            except KeyboardInterrupt:
                interrupted += 1
            if sending.done():
                break
        sending.result(LIMIT_S)
    assert interrupted > 0
    assert scheduler.drain(LIMIT_S)
    assert [future.result(LIMIT_S) for future in in_thread(scheduler.submit_many, range(9)).result(LIMIT_S)] == list(
        range(0, 18, 2)
    )
    assert scheduler.stats().rejected == 0


def test_a_destructor_may_submit_and_cancel(scheduler_of: SchedulerOf) -> None:
    scheduler, more = scheduler_of(same, max_batch_size=4), []

    class Meddler:
        def __del__(self) -> None:
            more.append(scheduler.submit("from the destructor"))
            scheduler.submit("dropped").cancel()

    def ignore(_: Meddler, __: Future[Any]) -> None:
        pass

    for _ in range(50):
        scheduler.submit(Meddler())
        scheduler.submit(Meddler(), timeout_ms=0)
        scheduler.submit(Meddler()).cancel()
        scheduler.submit(None).add_done_callback(functools.partial(ignore, Meddler()))
    assert scheduler.drain(LIMIT_S)
    gc.collect()
    assert len(more) == 200
    assert {future.result(LIMIT_S) for future in more} == {"from the destructor"}
