"""The test kit: a scheduler whose time the test keeps."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batchcore.records import REASONS, Wait
from pybatch import DeadlineExceeded, Future, QueueFull, Scheduler, SchedulerClosed, WouldDeadlock
from pybatch.policies import View
from pybatch.simulation import PROFILES, Poisson, Trace, simulate
from pybatch.testing import Batch, ManualClock, SteppingScheduler


async def turn() -> None:
    """Let the loop get to everything that is ready."""
    done = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(done.set_result, None)
    await done


def told(scheduler: SteppingScheduler[Any, Any]) -> list[tuple[float, int, str]]:
    return [(batch.at_ms, len(batch.items), batch.reason) for batch in scheduler.batches]


# --- time


def test_nothing_happens_unless_time_is_told_to_go_on(stepping: Callable[..., Any]) -> None:
    threads = threading.active_count()
    calls: list[list[int]] = []
    scheduler = stepping(lambda xs: calls.append(xs) or xs)
    future = scheduler.submit(1)
    assert isinstance(future, Future)
    assert (future.done(), calls, scheduler.clock.now_ns) == (False, [], 0)
    scheduler.advance(0)
    assert (future.result(), calls, scheduler.clock.now_ns) == (1, [[1]], 0)
    assert threading.active_count() == threads


def test_what_comes_between_two_advances_comes_together(stepping: Callable[..., Any]) -> None:
    scheduler = stepping()
    for item in range(3):
        scheduler.submit(item)
    scheduler.advance(7)
    assert list(scheduler.batches) == [Batch(1, 0.0, (0, 1, 2), "idle_worker")]
    assert scheduler.clock.now_ms == 7


def test_a_window_ends_at_its_very_nanosecond(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(policy="fixed", max_wait_ms=5)
    futures = [scheduler.submit(1)]
    scheduler.advance(3)
    futures.append(scheduler.submit(2))
    scheduler.advance(1.999_999)
    assert not scheduler.batches
    scheduler.advance(0.000_001)
    assert [future.result() for future in futures] == [1, 2]
    assert told(scheduler) == [(5.0, 2, "window")]


def test_one_long_advance_does_what_many_short_ones_do(stepping: Callable[..., Any]) -> None:
    seen = []
    for steps in (1, 10, 1000):
        scheduler = stepping(policy="fixed", max_wait_ms=5, max_batch_size=3, service_ms=12)
        scheduler.submit_many(range(8))
        for _ in range(steps):
            scheduler.advance(100 / steps)
        assert scheduler.clock.now_ns == 100_000_000
        seen.append(scheduler.batches)
    assert seen[0] == seen[1] == seen[2]
    assert [batch.at_ms for batch in seen[0]] == [0, 12, 24]


def test_a_batch_takes_the_time_it_is_told_to(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_batch_size=4, service_ms=lambda size: 10 + size)
    first, *_, last = scheduler.submit_many(range(6))
    scheduler.advance(13.999)
    assert first.running()
    assert last.status == "queued"
    scheduler.advance(0.001)
    assert first.done()
    assert last.running()
    scheduler.advance(12)
    assert last.done()
    assert told(scheduler) == [(0.0, 4, "full"), (14.0, 2, "idle_worker")]
    assert scheduler.stats().service_ns.sum == 26_000_000


def test_as_many_batches_run_at_once_as_may(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_batch_size=1, max_concurrent_batches=2, service_ms=10)
    scheduler.submit_many(range(3))
    scheduler.advance(5)
    assert scheduler.stats().in_flight_batches == 2
    scheduler.advance(5)
    assert [batch.at_ms for batch in scheduler.batches] == [0, 0, 10]


def test_schedulers_of_one_clock_keep_the_order_of_time(stepping: Callable[..., Any]) -> None:
    clock = ManualClock()
    log: list[tuple[str, float]] = []

    def step(name: str) -> Callable[[list[int]], list[int]]:
        return lambda xs: log.append((name, clock.now_ms)) or xs  # type: ignore[func-returns-value]

    second = stepping(step("second"), clock=clock, service_ms=3)
    first = stepping(step("first"), clock=clock, service_ms=4)
    for at_ms in (0, 2):
        clock.advance(at_ms)
        first.submit(at_ms).add_done_callback(lambda future: second.submit(future.result()))
    clock.advance(20)
    assert log == [("first", 0), ("first", 4), ("second", 4), ("second", 8)]
    assert second.stats().completed == 2


def test_what_is_submitted_while_a_batch_runs_is_decided_at_that_instant(stepping: Callable[..., Any]) -> None:
    def fn(xs: list[int]) -> list[int]:
        if xs[0] < 3:
            scheduler.submit(xs[0] + 1)
        return xs

    scheduler = stepping(fn)
    scheduler.submit(0)
    scheduler.advance(0)
    assert [batch.items for batch in scheduler.batches] == [(0,), (1,), (2,), (3,)]


def test_time_does_not_pass_from_within(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(lambda xs: scheduler.advance(1))
    future = scheduler.submit(1)
    scheduler.advance(5)
    with pytest.raises(RuntimeError, match="time passes already"):
        future.result()
    assert scheduler.clock.now_ms == 5


# --- it decides as the scheduler does


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("timeout_ms", [None, 25])
@pytest.mark.parametrize("policy", ["immediate", "fixed", "adaptive"])
def test_it_decides_as_the_simulator_does(
    stepping: Callable[..., Any], policy: str, timeout_ms: float | None, workers: int
) -> None:
    """Arrivals and ends never meet in these runs, so it does not matter that here the end would be first."""
    service = PROFILES["resnet"]
    load = 0.9 * workers * service.capacity_per_second(8)
    drawn = simulate(Poisson(load), service, requests=400, max_batch_size=8).arrival_ns
    trace = Trace(drawn / 1e6)
    options = {"policy": policy, "max_batch_size": 8, "max_wait_ms": 3 if policy == "fixed" else None}
    wanted = simulate(trace, service, workers=workers, timeout_ms=timeout_ms, **options)

    scheduler = stepping(max_concurrent_batches=workers, timeout_ms=timeout_ms, service_ms=service.ms, **options)
    for arrival_ns in wanted.arrival_ns.tolist():
        scheduler.advance((arrival_ns - scheduler.clock.now_ns) / 1e6)
        assert scheduler.clock.now_ns == arrival_ns
        scheduler.submit(None)
    scheduler.advance(1000)
    assert [round(1e6 * batch.at_ms) for batch in scheduler.batches] == wanted.batches.at_ns.tolist()
    assert [len(batch.items) for batch in scheduler.batches] == wanted.batches.size.tolist()
    assert [REASONS.index(batch.reason) for batch in scheduler.batches] == wanted.batches.reason.tolist()
    assert scheduler.stats().expired == np.count_nonzero(wanted.batch_of < 0)


def test_a_timeout_ends_a_request_at_its_instant(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_batch_size=1, service_ms=10, policy="immediate")
    scheduler.submit(1)
    scheduler.advance(0)
    late = scheduler.submit(2, timeout_ms=4)
    scheduler.advance(3.999_999)
    assert not late.done()
    scheduler.advance(0.000_001)
    with pytest.raises(DeadlineExceeded):
        late.result()


def test_a_policy_of_ones_own_is_asked_when_it_wants(stepping: Callable[..., Any]) -> None:
    asked: list[float] = []

    def policy(view: View) -> int | Wait:
        asked.append(view.now_ns / 1e6)
        return view.queued if view.now_ns >= view.oldest_arrival_ns + 6_000_000 else Wait(view.now_ns + 2_500_000)

    scheduler = stepping(policy=policy)
    scheduler.advance(1)
    scheduler.submit(1)
    scheduler.advance(20)
    assert asked == [1, 3.5, 6, 8.5]
    assert told(scheduler) == [(8.5, 1, "chosen")]


def test_priorities_cancellation_flush_and_reconfigure(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(policy="fixed", max_wait_ms=50, max_batch_size=4)
    scheduler.submit("usual")
    given_up = scheduler.submit("given up")
    scheduler.submit("urgent", priority=-1)
    assert given_up.cancel()
    scheduler.flush()
    scheduler.advance(0)
    assert [batch.items for batch in scheduler.batches] == [("urgent", "usual")]
    scheduler.submit("a")
    scheduler.advance(10)
    scheduler.reconfigure(max_wait_ms=12)
    scheduler.advance(10)
    assert told(scheduler)[1:] == [(12.0, 1, "window")]


def test_estimate_explain_and_record_know_the_time(stepping: Callable[..., Any], tmp_path: Path) -> None:
    scheduler = stepping(policy="immediate", cost_model=[(1, 10), (32, 20)], service_ms=10)
    with scheduler.record(tmp_path / "trace.csv"):
        scheduler.submit(1)
        scheduler.advance(4)
        scheduler.submit(2)
    assert scheduler.estimate().queue_delay_ms == pytest.approx(6, abs=0.5)
    assert scheduler.explain().at_ns == 4_000_000
    assert list(Trace.load(tmp_path / "trace.csv").arrivals_ms) == [0, 4]


# --- answers


def test_waiting_would_be_for_ever_on_the_thread_that_has_to_go_on(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_queue_size=1, on_full="block")
    future = scheduler.submit(1)
    for wait in (
        future.result,
        future.exception,
        lambda: scheduler.submit(2),
        lambda: scheduler(2),
        lambda: next(scheduler.map([2])),
    ):
        with pytest.raises(WouldDeadlock, match="advance"):
            wait()
    scheduler.advance(0)
    assert future.result() == 1


def test_other_threads_wait_until_this_one_has_advanced(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(policy="fixed", max_wait_ms=5, max_batch_size=8)
    answers: list[int] = []
    queued = threading.Barrier(3)

    def call(item: int) -> None:
        future = scheduler.submit(item)
        queued.wait(10)
        answers.append(future.result(10))

    threads = [threading.Thread(target=call, args=(item,)) for item in (1, 2)]
    for thread in threads:
        thread.start()
    queued.wait(10)
    scheduler.advance(5)
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [1, 2]
    assert told(scheduler) == [(5.0, 2, "window")]


def test_tasks_await_what_the_test_lets_happen(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(lambda xs: [10 * x for x in xs], policy="fixed", max_wait_ms=5)

    async def twice(item: int) -> int:
        return int(await scheduler.submit(await scheduler.submit(item)))

    async def story() -> list[int]:
        tasks = [asyncio.create_task(twice(item)) for item in (1, 2)]
        for _ in range(2):
            await turn()
            scheduler.advance(5)
        return await asyncio.gather(*tasks)

    assert asyncio.run(story()) == [100, 200]
    assert told(scheduler) == [(5.0, 2, "window"), (10.0, 2, "window")]


def test_an_async_fn_runs_to_its_end_and_may_not_wait(stepping: Callable[..., Any]) -> None:
    loop = asyncio.new_event_loop()
    never = loop.create_future()

    async def answer(xs: list[int]) -> list[int]:
        if xs[0] == 0:
            await never
        return await also(xs)

    async def also(xs: list[int]) -> list[int]:
        return [-x for x in xs]

    scheduler = stepping(answer, max_batch_size=1, service_ms=1)
    patient, hasty = scheduler.submit(5), scheduler.submit(0)
    scheduler.advance(2)
    assert patient.result() == -5
    with pytest.raises(RuntimeError, match="service_ms"):
        hasty.result()
    loop.close()


def test_an_error_of_fn_comes_when_the_batch_ends(stepping: Callable[..., Any]) -> None:
    def fn(xs: list[int]) -> list[int]:
        raise ValueError("no")

    scheduler = stepping(fn, service_ms=3)
    future = scheduler.submit(1)
    scheduler.advance(2)
    assert future.running()
    scheduler.advance(1)
    with pytest.raises(ValueError, match="no"):
        future.result()


def test_an_assertion_in_a_plain_fn_that_returns_a_coroutine_is_as_wrong_as_ever(stepping: Callable[..., Any]) -> None:
    async def nothing() -> None: ...

    scheduler = stepping(lambda xs: nothing())
    future = scheduler.submit(1)
    scheduler.advance(0)
    with pytest.raises(TypeError, match="async function behind a sync one"):
        future.result()


def test_the_end_of_the_test_comes_out_of_advance_and_the_next_goes_on(stepping: Callable[..., Any]) -> None:
    def fn(xs: list[int]) -> list[int]:
        if xs == [1]:
            pytest.fail("seen")
        return xs

    scheduler = stepping(fn, max_batch_size=1)
    futures = scheduler.submit_many([1, 2])
    with pytest.raises(pytest.fail.Exception):
        scheduler.advance(5)
    assert (scheduler.clock.now_ms, futures[1].done()) == (0, False)
    with pytest.raises(pytest.fail.Exception):
        futures[0].result()
    scheduler.advance(5)
    assert (scheduler.clock.now_ms, futures[1].result()) == (5, 2)


# --- its life


def test_leaving_with_lets_enough_time_pass() -> None:
    with SteppingScheduler(list, policy="fixed", max_wait_ms=50, service_ms=7) as scheduler:
        future = scheduler.submit(1)
    assert (future.result(), scheduler.clock.now_ms, scheduler.closed) == (1, 7, True)
    with pytest.raises(SchedulerClosed):
        scheduler.submit(2)


def test_leaving_async_with_too() -> None:
    async def story() -> tuple[int, float]:
        async with SteppingScheduler(list, service_ms=7) as scheduler:
            future: Future[int] = scheduler.submit(1)
        return await future, scheduler.clock.now_ms

    assert asyncio.run(story()) == (1, 7)


def test_drain_lets_no_more_time_pass_than_it_may(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(service_ms=100)
    scheduler.submit(1)
    assert not scheduler.drain(timeout=0.06)
    assert scheduler.clock.now_ms == 60
    assert scheduler.drain()
    assert scheduler.clock.now_ms == 100


def test_shutdown_may_leave_the_rest_to_advance_or_cancel_it(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_batch_size=1, service_ms=1)
    futures = scheduler.submit_many([1, 2])
    scheduler.advance(0)
    scheduler.shutdown(wait=False, cancel_futures=True)
    assert (futures[0].running(), futures[1].cancelled()) == (True, True)
    scheduler.advance(1)
    assert futures[0].result() == 1


def test_a_forgotten_one_ends_what_it_had_accepted_without_a_warning() -> None:
    clock = ManualClock()
    scheduler: SteppingScheduler[int, int] = SteppingScheduler(list, clock=clock, max_batch_size=1, service_ms=5)
    futures = scheduler.submit_many([1, 2])
    clock.advance(1)
    gone = weakref.ref(scheduler.dispatcher)
    del scheduler
    gc.collect()
    for future in futures:
        with pytest.raises(SchedulerClosed, match="gone"):
            future.result()
    clock.advance(10)
    assert gone() is None


def test_a_full_queue_is_full_in_virtual_time_too(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(max_queue_size=2)
    scheduler.submit_many([1, 2])
    with pytest.raises(QueueFull):
        scheduler.submit(3)
    scheduler.advance(0)
    scheduler.submit(3)


@pytest.mark.parametrize(
    ("error", "words", "options"),
    [
        (TypeError, "clock must be a pybatch.testing.ManualClock", {"clock": time}),
        (TypeError, "service_ms must be a number", {"service_ms": "1"}),
        (TypeError, "service_ms must be a number", {"service_ms": None}),
        (ValueError, "service_ms is -1", {"service_ms": -1}),
        (ValueError, "max_batch_size is 0", {"max_batch_size": 0}),
        (TypeError, "no_such_option", {"no_such_option": 1}),
    ],
)
def test_bad_options_are_refused(error: type[Exception], words: str, options: dict[str, Any]) -> None:
    with pytest.raises(error, match=words):
        SteppingScheduler(list, **options)


@pytest.mark.parametrize(
    ("error", "ms"), [(ValueError, -1), (ValueError, float("nan")), (TypeError, None), (TypeError, "1")]
)
def test_time_only_goes_forward(error: type[Exception], ms: Any) -> None:
    clock = ManualClock()
    with pytest.raises(error, match="ms"):
        clock.advance(ms)
    assert clock.now_ns == 0


def test_a_bad_service_time_is_the_answer(stepping: Callable[..., Any]) -> None:
    scheduler = stepping(service_ms=lambda size: -size)
    future = scheduler.submit(1)
    scheduler.advance(0)
    with pytest.raises(ValueError, match="service_ms is -1"):
        future.result()


def test_real_schedulers_keep_real_time(scheduler_of: Callable[..., Scheduler[int, int]]) -> None:
    scheduler = scheduler_of(list)
    before_ns = time.monotonic_ns()
    assert before_ns <= scheduler.dispatcher.now_ns() <= time.monotonic_ns()
