"""Batch functions that wait until they are let go, and other means to put threads and loops into a known state.

Every wait here has a limit, so that a broken scheduler makes a test fail and never hang.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from pybatch import Scheduler, Stats

P = ParamSpec("P")
T = TypeVar("T")

SchedulerOf: TypeAlias = "Callable[..., Scheduler[Any, Any]]"

LIMIT_S = 20.0
"""Longest that anything which should happen may take."""

MOMENT_S = 0.05
"""How long to watch that something does not happen."""

HOUR_MS = 3_600_000
"""A window or a latency that no test lives to see the end of."""


class Gate:
    """A batch function that returns its items once the gate is open, and tells when it is entered."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self._entered = threading.Semaphore(0)
        self._opened = threading.Event()

    def hold(self, items: list[Any]) -> list[Any]:
        self.batches.append(list(items))
        self._entered.release()
        if not self._opened.wait(LIMIT_S):
            raise TimeoutError("nobody opened the gate")
        return list(items)

    def wait_entered(self) -> None:
        assert self._entered.acquire(timeout=LIMIT_S), "the batch function was not called"

    def open(self) -> None:
        self._opened.set()

    @property
    def seen(self) -> list[Any]:
        """Every item that was ever handed to the batch function."""
        return [item for batch in self.batches for item in batch]


class AsyncGate:
    """The same for an ``async def`` batch function, on whatever loops it is run; open it from anywhere."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.places: list[tuple[int, asyncio.AbstractEventLoop]] = []
        self._entered = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._opened = False
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def hold(self, items: list[Any]) -> list[Any]:
        loop, passed = asyncio.get_running_loop(), asyncio.Event()
        self.batches.append(list(items))
        self.places.append((threading.get_ident(), loop))
        with self._lock:
            if self._opened:
                passed.set()
            else:
                self._waiting.append((loop, passed))
        self._entered.release()
        await asyncio.wait_for(passed.wait(), LIMIT_S)
        return list(items)

    def wait_entered(self) -> None:
        assert self._entered.acquire(timeout=LIMIT_S), "the batch function was not called"

    async def entered(self) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not self._entered.acquire(blocking=False):
                await one_turn()

    def open(self) -> None:
        with self._lock:
            self._opened = True
            waiting, self._waiting = self._waiting, []
        for loop, passed in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(passed.set)

    @property
    def seen(self) -> list[Any]:
        """Every item that was ever handed to the batch function."""
        return [item for batch in self.batches for item in batch]


class LoopThread:
    """An event loop in a thread of its own, as a second server in the same process would have it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def __enter__(self) -> LoopThread:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.loop.close()

    @property
    def ident(self) -> int | None:
        return self._thread.ident

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.start(coroutine).result(LIMIT_S)

    def stop(self) -> None:
        """Stop the loop where it stands: nothing on it is cancelled, nothing on it runs again."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(LIMIT_S)


def same(items: list[Any]) -> list[Any]:
    """Return the items: the shortest batch function."""
    return list(items)


def doubled(items: list[Any]) -> list[Any]:
    """Return twice each item."""
    return [item * 2 for item in items]


async def doubled_async(items: list[Any]) -> list[Any]:
    """Return twice each item, after a turn of the loop."""
    await one_turn()
    return [item * 2 for item in items]


def in_thread(fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> concurrent.futures.Future[T]:
    """Call `fn` in a new daemon thread; the future that is returned has what became of it."""
    outcome: concurrent.futures.Future[T] = concurrent.futures.Future()

    def call() -> None:
        try:
            outcome.set_result(fn(*args, **kwargs))
        except BaseException as error:  # the test that asks for the outcome has to see everything
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on a new event loop in this thread, not for ever."""
    return asyncio.run(asyncio.wait_for(main, LIMIT_S))


def stays_pending(future: concurrent.futures.Future[Any]) -> bool:
    """Watch `future` for a moment and tell whether it was still not done at the end."""
    return not concurrent.futures.wait([future], timeout=MOMENT_S).done


async def one_turn() -> None:
    """Let the event loop go round once."""
    turned = asyncio.Event()
    asyncio.get_running_loop().call_soon(turned.set)
    await turned.wait()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what nobody announces."""
    limit, pause = time.monotonic() + LIMIT_S, threading.Event()
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        pause.wait(0.001)


def check_books(stats: Stats) -> None:
    """Hold the laws of a scheduler at rest: nothing is left, and every request ended in exactly one way."""
    assert (stats.queued, stats.running, stats.in_flight_batches) == (0, 0, 0), stats
    computed = stats.completed + stats.failed
    not_computed = stats.rejected + stats.expired + stats.cancelled + stats.shut_down
    assert stats.submitted == computed + not_computed, stats
    assert stats.batch_size.sum == stats.queue_delay_ns.count == computed, stats
    assert stats.batch_size.count == stats.service_ns.count == stats.batches, stats
    assert sum(stats.batches_by_reason.values()) == stats.batches, stats
