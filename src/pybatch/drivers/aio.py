"""Runs an ``async def`` function on an event loop that waits for it.

The host is the loop of the first caller that has one.  Callers without a loop are served by a loop thread of our own,
started when first needed, until somebody with a loop comes.  A host that was closed, or that is not running when it is
asked, is left for another; batches already running stay where they began.

`take` is called from a callback of the host, never from inside a task, and each batch is a task of its own.  A callback
that its loop drops unrun (`_Nudge`) and a task that its loop never finishes (`_sweep`) are noticed and made good.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from asyncio import AbstractEventLoop, Task, TimerHandle
from collections.abc import Awaitable, Callable
from typing import Any

from batchcore.dispatcher import Batch, Dispatcher
from batchcore.engine import Engine
from batchcore.errors import BatchAborted, WouldDeadlock
from batchcore.future import BaseFuture

__all__ = ["LoopDispatcher"]

HEARTBEAT_NS = 1_000_000_000
"""How often a blocked caller looks whether the host is still there, ns."""


class LoopDispatcher(Dispatcher):
    """Runs a coroutine function on its callers' event loop.

    Parameters
    ----------
    engine : Engine
        Used by nobody else.
    fn : coroutine function
        Takes a list of items, returns a sequence of as many results.
    name : str
        For messages and the loop thread.
    """

    def __init__(self, engine: Engine, fn: Callable[[list[Any]], Awaitable[Any]], name: str) -> None:
        super().__init__(engine, fn, name)
        self._host: AbstractEventLoop | None = None
        self._own: _LoopThread | None = None
        self._own_lock = threading.Lock()
        self._timer: tuple[float, _Nudge, TimerHandle] | None = None
        self._tasks: dict[Task[None], Batch] = {}

    def signal(self) -> int:
        """Have the host call `take` soon."""
        here = asyncio._get_running_loop()
        host = self._choose(here)
        while True:
            nudge = _Nudge(self)
            try:
                if host is here:
                    host.call_soon(nudge)
                else:
                    host.call_soon_threadsafe(nudge)
            except RuntimeError:  # closed since we looked
                nudge.done = True
                host = self._own_loop()
            else:
                return 0

    def _choose(self, here: AbstractEventLoop | None) -> AbstractEventLoop:
        host = self._host
        own = self._own
        if host is not None and (host.is_closed() or not host.is_running()):
            self._sweep()
            host = None
        if host is None or (own is not None and host is own.loop):
            host = here
        if host is None:
            host = self._own_loop()
        self._host = host
        return host

    def _own_loop(self) -> AbstractEventLoop:
        with self._own_lock:
            if self._own is None or self._own.loop.is_closed():
                self._own = _LoopThread(f"pybatch-{self.name}-loop")
            self._host = self._own.loop
            return self._own.loop

    def drive(self) -> None:
        """Start what the engine gives and set the timer; called by a loop."""
        loop = asyncio.get_running_loop()
        while (batch := self.take()) is not None:
            task = loop.create_task(self._run(batch), name=f"pybatch-{self.name}-batch-{batch.id}")
            self._tasks[task] = batch
            task.add_done_callback(self._reap)
        self._set_timer(loop, self.wake_at)
        self._stop_if_done()

    def _set_timer(self, loop: AbstractEventLoop, when: float | None) -> None:
        if self._timer is not None:
            at, nudge, handle = self._timer
            if at == when and not nudge.done:
                return
            nudge.done = True
            self._timer = None
            if nudge.loop is loop:  # else it will ring on its own loop and do nothing
                handle.cancel()
        if when is not None:
            nudge = _Nudge(self, loop)
            self._timer = (when, nudge, loop.call_later(max(0.0, when - time.monotonic()), nudge))

    async def _run(self, batch: Batch) -> None:
        try:
            results = await self.fn(batch.take_items())
        except BaseException as error:
            self.fail(batch, error)
            if not isinstance(error, Exception):
                raise
        else:
            self.finish(batch, results)
        self.hand_over()

    def _reap(self, task: Task[None]) -> None:
        """See to a task that ended in whichever way, also before its first step."""
        batch = self._tasks.pop(task, None)
        if task.cancelled() or task.exception() is not None:
            if batch is not None:
                self.fail(batch, asyncio.CancelledError())
            self._leave_host()
        self._stop_if_done()

    def _leave_host(self) -> None:
        """The host is going down, or somebody cancels our tasks there: carry on elsewhere."""
        self._sweep()
        if self.engine.next_wakeup_ns() is not None:
            self._own_loop()
        else:
            self._host = None
        self.hand_over()

    def _sweep(self) -> None:
        """End the batches whose loop was closed under them."""
        for task, batch in list(self._tasks.items()):
            if task.get_loop().is_closed():
                self._tasks.pop(task, None)
                self.fail(batch, BatchAborted("the event loop that ran the batch was closed"))

    def before_blocking(self, future: BaseFuture | None) -> int:
        """Refuse to block the loop that has to compute the answer."""
        here = asyncio._get_running_loop()
        if here is not None and (here is self._host or any(task.get_loop() is here for task in list(self._tasks))):
            raise WouldDeadlock(
                f"this thread's event loop computes the answer of scheduler {self.name!r} and must not be blocked: "
                "await the future instead"
            )
        return HEARTBEAT_NS

    def heartbeat(self) -> int:
        """Carry on elsewhere if the host has gone without a word."""
        host = self._host
        if host is not None and (host.is_closed() or not host.is_running()):
            own = self._own
            if own is None or host is not own.loop:
                self._leave_host()
        return 0

    def close(self) -> None:
        """Take no more requests; what is queued leaves without waiting."""
        super().close()
        self._stop_if_done()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the loop thread, if there is one, to end; after `close`."""
        self._stop_if_done()
        if (own := self._own) is not None:
            own.join(timeout)

    def _stop_if_done(self) -> None:
        if self._own is not None and self.closed and self.idle and not self._tasks:
            self._own.stop()

    def after_fork(self) -> None:
        """Start clean in a forked child."""
        # Closing the parent's loops here would reach into what both processes share (epoll): they are left alone.
        _left_to_parent.append((self._host, self._own, self._timer, self._tasks))
        self._host = self._own = self._timer = None
        self._own_lock = threading.Lock()
        self._tasks = {}
        super().after_fork()


_left_to_parent: list[Any] = []


class _Nudge:
    """A callback that makes its dispatcher look, and tells it if its loop was closed before it could."""

    __slots__ = ("dispatcher", "done", "loop")

    def __init__(self, dispatcher: LoopDispatcher, loop: AbstractEventLoop | None = None) -> None:
        self.dispatcher = dispatcher
        self.loop = loop
        self.done = False

    def __call__(self) -> None:
        if not self.done:
            self.done = True
            self.dispatcher.drive()

    def __del__(self) -> None:
        if not self.done and not sys.is_finalizing():
            self.dispatcher._leave_host()


class _LoopThread:
    """An event loop on a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self) -> None:
        if not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(self.loop.stop)
            except RuntimeError:
                pass  # closed since we looked

    def join(self, timeout: float | None) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
