"""Runs an ``async def`` function on an event loop that waits for it.

The host is the loop of the first caller that has one.  Callers without a loop are served by a loop thread of our own,
started when first needed, until somebody with a loop comes.  A host that was closed, or that is not running when it is
asked, is left for another; batches already running stay where they began.

A server task lives as a worker thread does: it takes a batch, asks for another server if there is more to do, runs the
batch, and ends when there is nothing left to take.  A server that its loop drops before the first step (`_Nudge`) and a
batch that its loop never finishes (`_sweep`) are noticed and made good.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import weakref
from asyncio import AbstractEventLoop, Task, TimerHandle
from typing import Any, cast

from batchcore.dispatcher import Batch, Dispatcher
from batchcore.engine import Engine
from batchcore.errors import BatchAborted, WouldDeadlock
from batchcore.future import BaseFuture

__all__ = ["LoopDispatcher"]

LONGEST_TURN_S = 0.001
"""How long a server goes on without letting the loop's other tasks run, seconds, where `fn` does not."""

HEARTBEAT_NS = 1_000_000_000
"""How often a blocked caller looks whether the host is still there, ns."""


class LoopDispatcher(Dispatcher):
    """Runs a coroutine function on its callers' event loop.

    Parameters
    ----------
    engine : Engine
        Used by nobody else.
    name : str
        For messages and the loop thread.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        super().__init__(engine, name)
        self._host: AbstractEventLoop | None = None
        self._own: _LoopThread | None = None
        self._own_lock = threading.Lock()
        self._timer: tuple[float, weakref.ref[_Nudge], weakref.ref[TimerHandle]] | None = None
        self._serving: dict[Batch, Task[Any]] = {}

    def signal(self) -> int:
        """Have a server start on the host."""
        here = asyncio._get_running_loop()
        self._start_server(self._choose(here), here)
        return 0

    def _start_server(self, host: AbstractEventLoop, here: AbstractEventLoop | None) -> None:
        if host is here:
            self.serve_on(host, _Nudge(self, host))
            return
        while True:
            nudge = _Nudge(self, host)
            try:
                host.call_soon_threadsafe(nudge)
            except RuntimeError:  # closed since we looked
                nudge.done = True
                host = self._own_loop()
            else:
                return

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

    def serve_on(self, loop: AbstractEventLoop, nudge: _Nudge) -> None:
        """Start a server; called on its loop."""
        loop.create_task(self._serve(nudge))

    def _set_timer(self, loop: AbstractEventLoop, when: float | None) -> None:
        # The loop alone keeps the timer alive: if it is closed, the nudge goes, and tells.
        if self._timer is not None:
            at, nudge_ref, handle_ref = self._timer
            nudge, handle = nudge_ref(), handle_ref()
            if nudge is not None and handle is not None and not nudge.done:
                if at == when:
                    return
                nudge.done = True
                if nudge.loop is loop:  # else it will ring on its own loop and do nothing
                    handle.cancel()
            self._timer = None
        if when is not None:
            nudge = _Nudge(self, loop)
            handle = loop.call_later(max(0.0, when - time.monotonic()), nudge)
            self._timer = (when, weakref.ref(nudge), weakref.ref(handle))

    async def _serve(self, nudge: _Nudge) -> None:
        nudge.done = True
        task = cast("Task[Any]", asyncio.current_task())
        loop = task.get_loop()
        yielded_at = time.monotonic()
        try:
            while (batch := self.take()) is not None:
                self._serving[batch] = task
                self.hand_over()
                try:
                    self.finish(batch, await batch.fn(batch.take_items()))
                except BaseException as error:
                    self.fail(batch, error)
                    if not isinstance(error, Exception) and not self._shrugs_off(error, loop):
                        raise
                finally:
                    self._serving.pop(batch, None)
                if time.monotonic() - yielded_at > LONGEST_TURN_S:
                    await asyncio.sleep(0)
                    yielded_at = time.monotonic()
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError | GeneratorExit):
                task.add_done_callback(Task.exception)  # the loop raises it: it need not be logged as well
            self._leave_host()
            raise
        self._set_timer(loop, self.wake_at)
        self.let_go()
        self._stop_if_done()

    def _shrugs_off(self, error: BaseException, loop: AbstractEventLoop) -> bool:
        """On our own loop nobody waits for an exit or a Ctrl-C: the callers have it, and the loop goes on."""
        return self._own is not None and loop is self._own.loop and isinstance(error, SystemExit | KeyboardInterrupt)

    def _leave_host(self) -> None:
        """The host is going down, or somebody cancels our tasks there: carry on elsewhere."""
        self._sweep()
        self._host = None
        if self.start_over():
            self._start_server(self._own_loop(), asyncio._get_running_loop())

    def _sweep(self) -> None:
        """End the batches whose loop was closed under them."""
        for batch, task in list(self._serving.items()):
            if task.get_loop().is_closed():
                self._serving.pop(batch, None)
                self.fail(batch, BatchAborted("the event loop that ran the batch was closed"))

    def before_blocking(self, future: BaseFuture | None) -> int:
        """Refuse to block the loop that has to compute the answer."""
        here = asyncio._get_running_loop()
        if here is not None and (
            here is self._host or any(task.get_loop() is here for task in list(self._serving.values()))
        ):
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
        if self._own is not None and self.closed and self.idle:
            self._own.stop()

    def after_fork(self) -> None:
        """Start clean in a forked child."""
        # Closing the parent's loops here would reach into what both processes share (epoll): they are left alone.
        _left_to_parent.append((self._host, self._own, self._timer, self._serving))
        self._host = self._own = self._timer = None
        self._own_lock = threading.Lock()
        self._serving = {}
        super().after_fork()


_left_to_parent: list[Any] = []


class _Nudge:
    """A callback that starts a server, and tells the dispatcher if its loop was closed before the first step."""

    __slots__ = ("__weakref__", "dispatcher", "done", "loop")

    def __init__(self, dispatcher: LoopDispatcher, loop: AbstractEventLoop) -> None:
        self.dispatcher = dispatcher
        self.loop = loop
        self.done = False

    def __call__(self) -> None:
        if not self.done:
            self.dispatcher.serve_on(self.loop, self)

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
            with contextlib.suppress(RuntimeError):  # closed since we looked
                self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, timeout: float | None) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(timeout)
