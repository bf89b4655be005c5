"""Runs an ``async def`` function on an event loop that waits for it.

The host is the loop of the first caller that has one.  Callers without a loop are served by a loop thread of our own,
started when first needed, until somebody with a loop comes.  A host that was closed, or that is not running when it is
asked, is left for another; batches already running stay where they began.

A server task lives as a worker thread does: it takes a batch, asks for another server if there is more to do, runs the
batch, and ends when there is nothing left to take.  A loop that is closed drops its callbacks and tasks, and by that we
know: a `Nudge` that goes before it took a step tells.  One that never rings lies in each host for nothing but that.

Compiled because all of it happens for each request of one who is alone.
"""

cimport cython
from libc.stdint cimport int64_t

import asyncio
import contextlib
import contextvars
import sys
import threading
import weakref
from asyncio import Task, _get_running_loop, current_task
from collections.abc import Coroutine

from batchcore.current import serving
from batchcore.errors import BatchAborted, WouldDeadlock

from batchcore._clock cimport monotonic_ns
from batchcore._lock cimport lock, unlock
from batchcore._types cimport NEVER_NS
from batchcore.dispatcher cimport Batch, Dispatcher
from batchcore.future cimport BaseFuture

LONGEST_TURN_NS = 1_000_000
"""How long a server goes on without letting the loop's other tasks run, ns, where `fn` does not."""

cdef double FOREVER_S = 1e9     # when the nudge that watches a loop would ring: in 31 years
cdef int64_t HEARTBEAT_NS = 1_000_000_000   # how often a blocked caller looks whether the host is still there


cdef class Nudge:
    """A callback that starts a server, and then its coroutine; tells if its loop drops it before its first step.

    A coroutine of its own kind, since one of Python's would warn that it was never awaited.
    """

    def ring(self):
        """What a loop is given to call: in debug mode it takes no coroutines."""
        cdef LoopDispatcher dispatcher = self.dispatcher()
        if dispatcher is not None and not self.done:
            dispatcher.serve_on(self)

    def __del__(self):
        cdef LoopDispatcher dispatcher = self.dispatcher()
        if dispatcher is not None and not self.done and not sys.is_finalizing():
            dispatcher.leave_loop(self.loop)

    def __next__(self):
        return self.send(None)

    def __await__(self):
        return self

    def send(self, value):
        cdef LoopDispatcher dispatcher
        if self.server is None:
            dispatcher = self.dispatcher()
            self.done = True
            if dispatcher is None:
                raise StopIteration
            self.server = dispatcher.serve(self.loop)
            dispatcher = None
        return self.server.send(value)

    def throw(self, *error):
        if self.server is None:     # cancelled before its first step: it goes, and tells
            raise (error[0] if len(error) == 1 else error[1])
        return self.server.throw(*error)

    def close(self):
        if self.server is not None:
            self.server.close()


Coroutine.register(Nudge)


cdef class Serving:
    """What `serving` shows to `fn`; threads that have a copy of its context may look too."""

    @property
    def batch(self):
        with cython.critical_section(self):
            return self.running


cdef object loop_of(Batch batch):
    """Where it runs; None before it does."""
    with cython.critical_section(batch):
        return None if batch.server is None else (<Serving>batch.server).loop


cdef class LoopDispatcher(Dispatcher):
    """Runs a coroutine function on its callers' event loop."""

    def __cinit__(self):
        self.threads = {}
        self.watches = weakref.WeakKeyDictionary()
        self.me = weakref.ref(self)

    cpdef int signal(self) except -1:
        """Have a server start on the host."""
        here = _get_running_loop()
        return self.start_server(here if here is not None and here is self.host else self.choose(here), here)

    cdef object where(self):
        """The host."""
        cdef object host
        lock(&self.engine.lock)
        host = self.host
        unlock(&self.engine.lock)
        return host

    cdef int move(self, object host) except -1:
        """Make another loop the host."""
        lock(&self.engine.lock)
        host, self.host = self.host, host   # the old one is let go after the lock
        unlock(&self.engine.lock)
        return 0

    cdef int lose(self, object loop) except -1:
        """Have no host, if it was this loop."""
        cdef object _before = None  # let go after the lock
        lock(&self.engine.lock)
        if self.host is loop:
            _before, self.host = self.host, None
        unlock(&self.engine.lock)
        return 0

    cdef Nudge nudge(self, object loop):
        cdef Nudge nudge = Nudge.__new__(Nudge)
        nudge.dispatcher = self.me
        nudge.loop = loop
        return nudge

    cdef int start_server(self, object host, object here) except -1:
        cdef Nudge nudge
        if host is here:
            return self.serve_on(self.nudge(host))
        while True:
            nudge = self.nudge(host)
            try:
                host.call_soon_threadsafe(nudge.ring)
            except RuntimeError:    # closed since we looked
                nudge.done = True
                host = self.own_loop()
            except BaseException:   # a Ctrl-C on the way: we are called again
                nudge.done = True
                raise
            else:
                return 0

    cdef object choose(self, object here):
        """The loop to start a server on."""
        host = self.where()
        own = self.threads.get("own")
        if host is not None and (host.is_closed() or not host.is_running()):
            self.sweep()
            host = None
        if host is None or (own is not None and host is own.loop):
            host = here
        if host is None:
            return self.own_loop()
        if host is here and host is not self.host:
            self.watch(host)
        self.move(host)
        return host

    cdef int watch(self, object loop) except -1:
        """Lay a nudge into a host that tells of its closing; called on it."""
        if loop not in self.watches:
            handle = loop.call_later(FOREVER_S, self.nudge(loop).ring, context=contextvars.Context())    # nobody's
            self.watches[loop] = weakref.ref(handle)
        return 0

    cdef object own_loop(self):
        # No lock: a finaliser may come here from anywhere, also from within the start of this very thread.
        own = self.threads.get("own")
        if own is None or own.loop.is_closed():
            with cython.critical_section(self):
                if self.threads.get("own") is own:
                    self.threads.pop("own", None)
            made = LoopThread(f"pybatch-{self.name}-loop")
            own = self.threads.setdefault("own", made)
            if own is not made:
                made.stop()
        own.start()
        self.move(own.loop)
        return own.loop

    cdef int serve_on(self, Nudge nudge) except -1:
        """Start a server; called on its loop."""
        task = Task(nudge, loop=nudge.loop)     # not loop.create_task: a factory might run it here and now
        task._log_destroy_pending = False       # its loop may go; we make it good
        return 0

    cdef int set_timer(self, object loop, object when) except -1:
        # The loop alone keeps the timer alive: if it is closed, the nudge goes, and tells.
        cdef Nudge nudge
        cdef tuple timer
        with cython.critical_section(self):
            timer = self.timer
        if timer is not None:
            at, nudge_ref, handle_ref = timer
            nudge, handle = nudge_ref(), handle_ref()
            if nudge is not None and handle is not None and not nudge.done:
                if at == when:
                    return 0
                if nudge.loop is loop:  # else it rings on its own loop, and looks in vain
                    nudge.done = True
                    handle.cancel()
        timer = None
        if when is not None:
            nudge = self.nudge(loop)
            handle = loop.call_later(max(0.0, when - monotonic_ns() / 1e9), nudge.ring)
            timer = (when, weakref.ref(nudge), weakref.ref(handle))
        with cython.critical_section(self):
            timer, self.timer = self.timer, timer
        return 0

    async def serve(self, loop):
        """The life of a server."""
        cdef Batch batch
        cdef Serving here = None
        task = current_task(loop)
        cdef int64_t yielded_ns = monotonic_ns()
        try:
            while True:
                batch = self.take()
                if batch is None:
                    break
                here = Serving.__new__(Serving)     # one for each: tasks that outlive their batch keep the context
                here.loop = loop
                here.task = task
                here.running = batch
                with cython.critical_section(batch):
                    batch.server = here
                self.hand_over()
                serving.set(here)
                try:
                    self.finish(batch, await batch.run())
                except BaseException as error:
                    self.fail(batch, error)
                    if not isinstance(error, Exception) and not self.shrugs_off(error, loop):
                        raise
                finally:
                    with cython.critical_section(here):
                        here.running = None     # its task's context holds it
                    here.task = None
                batch = None
                if monotonic_ns() - yielded_ns > LONGEST_TURN_NS:
                    await asyncio.sleep(0)
                    yielded_ns = monotonic_ns()
            if self.timer is not None or self.wake_at_ns != NEVER_NS:
                self.set_timer(loop, self.wake_at)
            self.let_go()
            self.stop_if_done()
        except BaseException as error:
            try:
                for batch in list(self.running):
                    if here is not None and batch.server is here:
                        self.fail(batch, error)     # what is left of it
                if not isinstance(error, (asyncio.CancelledError, GeneratorExit)):
                    # The loop raises it: it need not be logged as well.
                    task.add_done_callback(Task.exception)
            finally:
                self.leave_loop(loop)
            raise

    cdef bint shrugs_off(self, object error, object loop) except -1:
        """On our own loop nobody waits for an exit or a Ctrl-C: the callers have it, and the loop goes on."""
        own = self.threads.get("own")
        return own is not None and loop is own.loop and isinstance(error, (SystemExit, KeyboardInterrupt))

    cdef int leave_loop(self, object loop) except -1:
        """This loop is going down, or somebody cancels our tasks there: carry on elsewhere."""
        try:
            self.sweep()
        finally:
            self.lose(loop)
            self.start_over(self.signal_elsewhere)
            self.stop_if_done()
        return 0

    def signal_elsewhere(self):
        host = self.where()
        self.start_server(self.own_loop() if host is None else host, _get_running_loop())

    cdef int sweep(self) except -1:
        """End the batches whose loop was closed under them."""
        cdef Batch batch
        for batch in list(self.running):
            loop = loop_of(batch)
            if loop is not None and loop.is_closed():
                self.fail(batch, BatchAborted("the event loop that ran the batch was closed"))
        return 0

    cpdef int64_t before_blocking(self, BaseFuture future) except? -2:
        """Refuse to block the loop that has to compute the answer."""
        here = _get_running_loop()
        if here is not None and (here is self.host or any([loop_of(batch) is here for batch in list(self.running)])):
            raise WouldDeadlock(
                f"this thread's event loop computes the answer of scheduler {self.name!r} and must not be blocked: "
                "await the future instead")
        return HEARTBEAT_NS

    cpdef int heartbeat(self) except -1:
        """Carry on elsewhere if there is no host, or it has gone without a word."""
        host = self.where()
        if host is None or host.is_closed() or not host.is_running():
            own = self.threads.get("own")
            if own is None or host is not own.loop:
                self.leave_loop(host)
        return 0

    def close(self):
        """Take no more requests; what is queued leaves without waiting."""
        try:
            Dispatcher.close(self)
        finally:
            self.stop_if_done()

    def __del__(self):
        own = self.threads.get("own")
        if own is not None:
            own.stop()

    def join(self, timeout=None):
        """Wait for the loop thread, if there is one, to end; after `close`."""
        self.stop_if_done()
        own = self.threads.get("own")
        if own is not None:
            own.join(timeout)

    cdef int stop_if_done(self) except -1:
        if not self.engine.machine.closed or not self.idle:
            return 0
        for loop, handle_ref in list(self.watches.items()):
            self.watches.pop(loop, None)
            handle = handle_ref()
            if handle is not None:
                with contextlib.suppress(RuntimeError):     # closed since we looked
                    loop.call_soon_threadsafe(handle.cancel)
        own = self.threads.get("own")
        if own is not None:
            own.stop()
        return 0

    def after_fork(self):
        """Start clean in a forked child."""
        # Closing the parent's loops here would reach into what both processes share (epoll): they are left alone.
        left_to_parent.append((self.host, self.threads, self.timer, list(self.running), self.watches))
        self.host = self.timer = None
        self.threads = {}
        self.watches = weakref.WeakKeyDictionary()
        Dispatcher.after_fork(self)


cdef list left_to_parent = []


class LoopThread:
    """An event loop on a daemon thread of its own."""

    def __init__(self, name):
        self.loop = contextvars.Context().run(asyncio.new_event_loop)   # which keeps its context
        self._name = name
        self._threads = set()   # of one, as a rule: a start may have been interrupted, or come twice
        self._unclaimed = [self.loop]   # until somebody takes it to run it, or to close it

    def start(self):
        """Start the thread; again does no harm, and helps where the first time was interrupted."""
        if not self._threads:
            thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            thread.start()
            self._threads.add(thread)

    def _claim(self):
        try:
            self._unclaimed.pop()
        except IndexError:
            return False
        return True

    def _run(self):
        if not self._claim():
            return
        self._threads.add(threading.current_thread())
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    def stop(self):
        if self._claim():
            self.loop.close()
        elif not self.loop.is_closed():
            with contextlib.suppress(RuntimeError):     # closed since we looked
                self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self, timeout):
        for thread in list(self._threads):
            if thread is not threading.current_thread():
                thread.join(timeout)
