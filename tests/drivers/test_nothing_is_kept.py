"""When the caller has its answer, the scheduler holds neither the item, nor the result, nor the error, nor the key.

Not even until the next request: each test makes one use of a scheduler and then leaves it alone, idle and alive.  The
garbage collector is off: what goes, goes by itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from gates import HOUR_MS, LIMIT_S, AsyncGate, Gate, LoopThread, SchedulerOf, one_turn, until
from pybatch import DeadlineExceeded, Future, QueueFull, current_batch

if TYPE_CHECKING:
    from pybatch import Scheduler

Use: TypeAlias = "Callable[[Scheduler[Any, Any], Watch], None]"


class Thing:
    """An item, a result or a key; what `word` says is what becomes of an item."""

    def __init__(self, word: str = "") -> None:
        self.word = word


class Refusal(Exception):
    pass


class Watch:
    """Whether the things that it has given out are alive."""

    def __init__(self) -> None:
        self._given: list[weakref.ref[Any]] = []

    def on(self, thing: Any) -> Any:
        self._given.append(weakref.ref(thing))
        return thing

    def item(self, word: str = "") -> Any:
        return self.on(Thing(word))

    def alive(self) -> list[Any]:
        return [thing for given in self._given if (thing := given()) is not None]

    def compute(self, items: list[Thing]) -> list[Any]:
        """A batch function that makes new things, or errors."""
        held_by_a_traceback = list(items)
        assert current_batch().size <= len(items)
        if any(item.word == "raise" for item in held_by_a_traceback):
            raise self.on(Refusal())
        return [self.on(Refusal() if item.word == "refuse" else Thing()) for item in items]

    async def compute_async(self, items: list[Thing]) -> list[Any]:
        await one_turn()
        return self.compute(items)


@pytest.fixture
def watch() -> Iterator[Watch]:
    gc.disable()
    yield Watch()
    gc.enable()


def holds_nothing(scheduler: Scheduler[Any, Any], watch: Watch, use: Use) -> None:
    use(scheduler, watch)
    assert watch._given
    until(lambda: not watch.alive())


# --- uses


def answered(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    assert isinstance(scheduler.submit(watch.item(), key=watch.item(), timeout_ms=HOUR_MS).result(LIMIT_S), Thing)


def called(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    assert isinstance(scheduler(watch.item()), Thing)


def many(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    futures = scheduler.submit_many([watch.item() for _ in range(10)], key=watch.item())
    assert all(isinstance(future.result(LIMIT_S), Thing) for future in futures)


def mapped(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    assert len(list(scheduler.map([watch.item() for _ in range(10)]))) == 10


def map_given_up(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    next(scheduler.map([watch.item() for _ in range(10)]))


def rows(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    assert len(scheduler.submit_batch([watch.item() for _ in range(10)]).result(LIMIT_S)) == 10


def rows_refused(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    future = scheduler.submit_batch([watch.item("refuse" if i == 5 else "") for i in range(10)])
    assert isinstance(future.exception(LIMIT_S), Refusal)


def raised(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    futures = scheduler.submit_many([watch.item("raise"), watch.item()])
    while futures:  # an error keeps the frames under fn, and so this one where it is computed here
        assert isinstance(futures.pop().exception(LIMIT_S), Refusal)


def raised_here(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    with pytest.raises(Refusal):
        scheduler(watch.item("raise"))


def refused(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    futures = scheduler.submit_many([watch.item("refuse"), watch.item()])
    assert isinstance(futures[0].exception(LIMIT_S), Refusal)
    assert isinstance(futures[1].result(LIMIT_S), Thing)


def called_back(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    future, seen = scheduler.submit(watch.item()), watch.item()
    future.add_done_callback(lambda _: setattr(seen, "word", "seen"))
    future.result(LIMIT_S)


def waited_for(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    futures = scheduler.submit_many([watch.item() for _ in range(3)])
    assert len(list(concurrent.futures.as_completed(futures, LIMIT_S))) == 3
    assert not concurrent.futures.wait(futures, LIMIT_S).not_done


def awaited(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    async def ask(word: str) -> None:
        answer = None
        with contextlib.suppress(Refusal):
            answer = await scheduler.submit(watch.item(word))
        assert (answer is None) == (word == "refuse")

    async def ask_all() -> None:
        await asyncio.gather(*map(ask, ("", "", "refuse")))

    with LoopThread() as loop:
        loop.run(ask_all())


def drained(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    scheduler.submit(watch.item())
    scheduler.submit_many([watch.item("raise")])
    assert scheduler.drain(LIMIT_S)


def forgotten(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    scheduler.submit(watch.item())
    scheduler.submit_many([watch.item("raise")])
    until(lambda: scheduler.stats().completed + scheduler.stats().failed == 2)


of_a_caller: ContextVar[Thing] = ContextVar("of_a_caller")


def asked_in_a_context(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    def ask() -> Future[Any]:
        of_a_caller.set(watch.item())
        return scheduler.submit(watch.item(), timeout_ms=HOUR_MS)

    copy_context().run(ask).result(LIMIT_S)


def awaited_in_a_context(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    async def ask() -> None:
        of_a_caller.set(watch.item())
        await scheduler.submit(watch.item(), timeout_ms=HOUR_MS)

    with LoopThread() as loop:
        loop.run(ask())
        until(lambda: not watch.alive())


USES = [
    answered,
    called,
    many,
    mapped,
    map_given_up,
    rows,
    rows_refused,
    raised,
    raised_here,
    refused,
    called_back,
    waited_for,
    awaited,
    drained,
    forgotten,
    asked_in_a_context,
    awaited_in_a_context,
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    "options", [{}, {"max_concurrent_batches": 2}, {"run_in": "caller"}, {"dedupe": lambda item: item.word}], ids=str
)
def test_threads_keep_nothing(scheduler_of: SchedulerOf, watch: Watch, options: dict[str, Any], use: Use) -> None:
    holds_nothing(scheduler_of(watch.compute, max_batch_size=4, **options), watch, use)


@pytest.mark.parametrize("use", USES)
def test_loops_keep_nothing(scheduler_of: SchedulerOf, watch: Watch, use: Use) -> None:
    holds_nothing(scheduler_of(watch.compute_async, max_batch_size=4), watch, use)


# --- what never ran


def expired_at_once(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    assert isinstance(scheduler.submit(watch.item(), timeout_ms=0).exception(LIMIT_S), DeadlineExceeded)
    rows = scheduler.submit_batch([watch.item(), watch.item()], key=watch.item(), timeout_ms=0)
    assert isinstance(rows.exception(LIMIT_S), DeadlineExceeded)


def cancelled(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    futures = [scheduler.submit(watch.item(), key=watch.item()), scheduler.submit_batch([watch.item(), watch.item()])]
    assert all(future.cancel() for future in futures)


def cancelled_after_a_wait(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    future = scheduler.submit(watch.item())
    with contextlib.suppress(TimeoutError):
        future.result(0.001)
    assert future.cancel()


def await_given_up(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    async def ask() -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(scheduler.submit(watch.item()), 0.001)

    with LoopThread() as loop:
        loop.run(ask())


def rejected(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
    queued = scheduler.submit_many([Thing() for _ in range(4)])
    with pytest.raises(QueueFull):
        scheduler.submit(watch.item(), key=watch.item())
    with pytest.raises(QueueFull):
        scheduler.submit_batch([watch.item()])
    with pytest.raises(QueueFull):
        scheduler.submit_many([watch.item()], key=watch.item())
    for future in queued:
        future.cancel()


@pytest.mark.parametrize("use", [expired_at_once, cancelled, cancelled_after_a_wait, await_given_up, rejected])
@pytest.mark.parametrize(
    ("compute", "options"),
    [
        pytest.param(Watch.compute, {}, id="worker"),
        pytest.param(Watch.compute, {"run_in": "caller"}, id="caller"),
        pytest.param(Watch.compute, {"dedupe": lambda item: item.word}, id="dedupe"),
        pytest.param(Watch.compute_async, {}, id="async"),
    ],
)
def test_what_never_ran_is_not_kept(
    scheduler_of: SchedulerOf, watch: Watch, compute: Callable[..., Any], options: dict[str, Any], use: Use
) -> None:
    fn = compute.__get__(watch)
    scheduler = scheduler_of(fn, policy="fixed", max_wait_ms=HOUR_MS, max_batch_size=8, max_queue_size=4, **options)
    holds_nothing(scheduler, watch, use)


@pytest.mark.parametrize("options", [{}, {"dedupe": id}], ids=str)
@pytest.mark.parametrize("kind", [Gate, AsyncGate])
def test_what_expires_in_the_queue_is_not_kept(
    scheduler_of: SchedulerOf, watch: Watch, kind: Callable[[], Gate | AsyncGate], options: dict[str, Any]
) -> None:
    def use(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
        futures = [scheduler.submit(watch.item(), key=watch.item(), timeout_ms=1)]
        futures += [scheduler.submit_batch([watch.item(), watch.item()], timeout_ms=1)]
        assert all(isinstance(future.exception(LIMIT_S), DeadlineExceeded) for future in futures)

    gate = kind()
    scheduler = scheduler_of(gate.hold, **options)
    first = scheduler.submit("first")
    gate.wait_entered()
    holds_nothing(scheduler, watch, use)
    gate.open()
    assert first.result(LIMIT_S) == "first"


# --- arrays


@pytest.mark.parametrize("assemble", ["dispatch", "submit"])
@pytest.mark.parametrize("copy_results", [False, True])
def test_arrays_are_not_kept(scheduler_of: SchedulerOf, watch: Watch, assemble: str, copy_results: bool) -> None:
    def use(scheduler: Scheduler[Any, Any], watch: Watch) -> None:
        futures = [scheduler.submit(watch.on(np.full(5, i))) for i in range(10)]
        for i, future in enumerate(futures):
            assert watch.on(future.result(LIMIT_S)).tolist() == [2 * i] * 5
        rows = watch.on(np.ones((7, 5)))
        assert watch.on(scheduler.submit_batch(rows).result(LIMIT_S)).tolist() == (2 * rows).tolist()

    def double(batch: Any) -> Any:
        return watch.on(2 * watch.on(batch))

    options = {"batch_as": "stack", "assemble": assemble, "copy_results": copy_results}
    holds_nothing(scheduler_of(double, max_batch_size=4, **options), watch, use)
