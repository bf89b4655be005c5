"""Runs an ``async def`` function on an event loop that waits for it.

The host is the loop of the first caller that has one.  Callers without a loop are served by a loop thread of our own,
started when first needed, until somebody with a loop comes.  A host that was closed, or that is not running when it is
asked, is left for another; batches already running stay where they began.

A server task lives as a worker thread does: it takes a batch, asks for another server if there is more to do, runs the
batch, and ends when there is nothing left to take.  A loop that is closed drops its callbacks, and by that we know: a
`_Nudge` that goes unrun tells.  One that never rings lies in each host for nothing but that.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import weakref
from asyncio import AbstractEventLoop, Task, TimerHandle
from collections.abc import Coroutine
from typing import Any, cast

from batchcore.current import serving
from batchcore.dispatcher import Batch, Dispatcher
from batchcore.engine import Engine
from batchcore.errors import BatchAborted, WouldDeadlock
from batchcore.future import BaseFuture

__all__ = ["LoopDispatcher"]

FOREVER_S = 1e9
"""When the nudge that watches a loop would ring, seconds: in 31 years."""

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
        self._threads: dict[str, _LoopThread] = {}  # at most one, "own"
        self._timer: tuple[float, weakref.ref[_Nudge], weakref.ref[TimerHandle]] | None = None
        self._starting: dict[Task[None], Coroutine[Any, Any, None]] = {}  # until their first step
        self._watches: weakref.WeakKeyDictionary[AbstractEventLoop, weakref.ref[TimerHandle]]
        self._watches = weakref.WeakKeyDictionary()

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
            except BaseException:  # a Ctrl-C on the way: we are called again
                nudge.done = True
                raise
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
            return self._own_loop()
        if host is here and host is not self._host:
            self._watch(host)
        self._host = host
        return host

    def _watch(self, loop: AbstractEventLoop) -> None:
        """Lay a nudge into a host that tells of its closing; called on it."""
        if loop not in self._watches:
            self._watches[loop] = weakref.ref(loop.call_later(FOREVER_S, _Nudge(self, loop)))

    @property
    def _own(self) -> _LoopThread | None:
        return self._threads.get("own")

    def _own_loop(self) -> AbstractEventLoop:
        # No lock: a finaliser may come here from anywhere, also from within the start of this very thread.
        own = self._own
        if own is None or own.loop.is_closed():
            self._threads.pop("own", None)
            made = _LoopThread(f"pybatch-{self.name}-loop")
            own = self._threads.setdefault("own", made)
            if own is not made:
                made.stop()
        own.start()
        self._host = own.loop
        return own.loop

    def serve_on(self, loop: AbstractEventLoop, nudge: _Nudge) -> None:
        """Start a server; called on its loop."""
        coroutine = self._serve(nudge)
        task = Task(coroutine, loop=loop)  # not loop.create_task: a factory might run it here and now
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # its loop may go; we make it good
        self._starting[task] = coroutine
        task.add_done_callback(self._never_started)

    def _never_started(self, task: Task[None]) -> None:
        """Forget a server that was cancelled before its first step; its nudge tells."""
        self._starting.pop(task, None)

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
        loop = nudge.loop
        task = cast("Task[None]", asyncio.current_task())
        try:
            nudge.done = True
            task.remove_done_callback(self._never_started)
            self._starting.pop(task, None)
            yielded_at = time.monotonic()
            while (batch := self.take(server=task)) is not None:
                self.hand_over()
                here = _Server(batch)  # one for each: tasks that outlive their batch keep a copy of the context
                serving.set(here)
                try:
                    self.finish(batch, await batch.run())
                except BaseException as error:
                    self.fail(batch, error)
                    if not isinstance(error, Exception) and not self._shrugs_off(error, loop):
                        raise
                finally:
                    here.batch = None
                del batch
                if time.monotonic() - yielded_at > LONGEST_TURN_S:
                    await asyncio.sleep(0)
                    yielded_at = time.monotonic()
            self._set_timer(loop, self.wake_at)
            self.let_go()
            self._stop_if_done()
        except BaseException as error:
            try:
                for batch in list(self.running):
                    if batch.server is task:
                        self.fail(batch, error)  # what is left of it
                if not isinstance(error, asyncio.CancelledError | GeneratorExit):
                    task.add_done_callback(Task.exception)  # the loop raises it: it need not be logged as well
            finally:
                self._leave(loop)
            raise

    def _shrugs_off(self, error: BaseException, loop: AbstractEventLoop) -> bool:
        """On our own loop nobody waits for an exit or a Ctrl-C: the callers have it, and the loop goes on."""
        return self._own is not None and loop is self._own.loop and isinstance(error, SystemExit | KeyboardInterrupt)

    def _leave(self, loop: AbstractEventLoop | None) -> None:
        """This loop is going down, or somebody cancels our tasks there: carry on elsewhere."""
        try:
            self._sweep()
        finally:
            if self._host is loop:
                self._host = None
            self.start_over(self._signal_elsewhere)
            self._stop_if_done()

    def _signal_elsewhere(self) -> None:
        self._start_server(self._host or self._own_loop(), asyncio._get_running_loop())

    def _sweep(self) -> None:
        """End the servers and the batches whose loop was closed under them."""
        for task, coroutine in list(self._starting.items()):
            if task.get_loop().is_closed() and self._starting.pop(task, None) is not None:
                coroutine.close()
        for batch in list(self.running):
            if batch.server.get_loop().is_closed():
                self.fail(batch, BatchAborted("the event loop that ran the batch was closed"))

    def before_blocking(self, future: BaseFuture | None) -> int:
        """Refuse to block the loop that has to compute the answer."""
        here = asyncio._get_running_loop()
        if here is not None and (
            here is self._host or any(batch.server.get_loop() is here for batch in list(self.running))
        ):
            raise WouldDeadlock(
                f"this thread's event loop computes the answer of scheduler {self.name!r} and must not be blocked: "
                "await the future instead"
            )
        return HEARTBEAT_NS

    def heartbeat(self) -> int:
        """Carry on elsewhere if there is no host, or it has gone without a word."""
        host = self._host
        if host is None or host.is_closed() or not host.is_running():
            own = self._own
            if own is None or host is not own.loop:
                self._leave(host)
        return 0

    def close(self) -> None:
        """Take no more requests; what is queued leaves without waiting."""
        try:
            super().close()
        finally:
            self._stop_if_done()

    def __del__(self) -> None:
        if (own := self._own) is not None:
            own.stop()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the loop thread, if there is one, to end; after `close`."""
        self._stop_if_done()
        if (own := self._own) is not None:
            own.join(timeout)

    def _stop_if_done(self) -> None:
        if not (self.closed and self.idle):
            return
        for loop, handle_ref in list(self._watches.items()):
            del self._watches[loop]
            if (handle := handle_ref()) is not None:
                with contextlib.suppress(RuntimeError):  # closed since we looked
                    loop.call_soon_threadsafe(handle.cancel)
        if self._own is not None:
            self._own.stop()

    def after_fork(self) -> None:
        """Start clean in a forked child."""
        # Closing the parent's loops here would reach into what both processes share (epoll): they are left alone.
        _left_to_parent.append(
            (self._host, self._threads, self._timer, self._starting, list(self.running), self._watches)
        )
        self._host = self._timer = None
        self._threads = {}
        self._starting = {}
        self._watches = weakref.WeakKeyDictionary()
        super().after_fork()


_left_to_parent: list[Any] = []


class _Nudge:
    """A callback that starts a server, and tells the dispatcher if its loop drops it before that took a step."""

    __slots__ = ("__weakref__", "_dispatcher", "done", "loop")

    def __init__(self, dispatcher: LoopDispatcher, loop: AbstractEventLoop) -> None:
        self._dispatcher = weakref.ref(dispatcher)  # what is queued keeps it alive
        self.loop = loop
        self.done = False

    def __call__(self) -> None:
        dispatcher = self._dispatcher()
        if dispatcher is not None and not self.done:
            dispatcher.serve_on(self.loop, self)

    def __del__(self) -> None:
        dispatcher = self._dispatcher()
        if dispatcher is not None and not self.done and not sys.is_finalizing():
            dispatcher._leave(self.loop)


class _Server:
    """What `serving` shows to `fn`."""

    __slots__ = ("batch",)

    def __init__(self, batch: Batch) -> None:
        self.batch: Batch | None = batch


class _LoopThread:
    """An event loop on a daemon thread of its own."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._name = name
        self._thread: threading.Thread | None = None
        self._unclaimed = [self.loop]  # until somebody takes it to run it, or to close it

    def start(self) -> None:
        """Start the thread; again does no harm, and helps where the first time was interrupted."""
        if self._thread is None:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._thread = thread

    def _claim(self) -> bool:
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def _run(self) -> None:
        if not self._claim():
            return
        self._thread = threading.current_thread()
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self) -> None:
        if self._claim():
            self.loop.close()
        elif not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):  # closed since we looked
                self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, timeout: float | None) -> None:
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout)
