"""Futures: one object a request, from submit to the last look at its result.

A future is its request (the engine's entry is part of it), so a submit allocates once.  While it is queued `payload` is
the item; when it has ended, the result.  Whoever wants to know of the end hangs a `Listener` on it: a sleeping thread
(`Parker`), an awaiting task (`Awaiter`), a callback, or the bridge to `concurrent.futures.wait`.

`end_future` is the only way to an end.  Its caller has moved the request out of the engine first, and only the one who
moved it there ends it: that is why every request ends exactly once.  Listeners run outside any lock.

Guarded by the future's own critical section (with the GIL: by the GIL): owner, payload, listeners, and the status that
goes with them; docs/cython.md says what may be read without.
Knows nothing of queues, batches and workers beyond `Owner`.
"""

cimport cython
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetObject, PyErr_WriteUnraisable
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from cpython.pythread cimport (
    PY_LOCK_ACQUIRED, PY_LOCK_INTR, PyLockStatus, PyThread_acquire_lock, PyThread_allocate_lock, PyThread_free_lock,
    PyThread_get_thread_ident, PyThread_release_lock, PyThread_type_lock, WAIT_LOCK,
)
from libc.stdint cimport int64_t

import concurrent.futures
import contextlib
import contextvars
import functools
import sys
import threading

from batchcore.errors import DeadlineExceeded, SchedulerClosed

from batchcore._clock cimport monotonic_ns, yield_core
from batchcore._types cimport (
    CANCELLED, COMPLETED, EXPIRED, FAILED, NEVER_NS, QUEUED, RUNNING, Status,
)

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1
    int PyException_SetTraceback(object error, object traceback) except -1
    bint PyErr_GivenExceptionMatches(object error, object kind)
    PyLockStatus PyThread_acquire_lock_timed(PyThread_type_lock, long long microseconds, int interruptible) nogil
    void PyObject_GC_Track(PyObject *)
    bint PyObject_GC_IsTracked(PyObject *)
    ctypedef enum PySendResult:
        PYGEN_RETURN
        PYGEN_ERROR
        PYGEN_NEXT
    ctypedef struct PyAsyncMethods:
        PySendResult (*am_send)(PyObject *, PyObject *, PyObject **) except PYGEN_ERROR
    ctypedef struct TypeWithAsync "PyTypeObject":
        PyAsyncMethods *tp_as_async

cdef extern from *:
    """
    /* What Cython makes of a critical section costs some instructions with the GIL too, and `result` has few. */
    #ifdef Py_GIL_DISABLED
    static inline int batchcore_look_at(PyObject *object, const int *number) {
        int seen;
        Py_BEGIN_CRITICAL_SECTION(object);
        seen = *number;
        Py_END_CRITICAL_SECTION();
        return seen;
    }
    #else
    #define batchcore_look_at(object, number) (*(number))
    #endif
    """
    int look_at "batchcore_look_at"(PyObject *object, const int *number) noexcept

cdef int64_t LONGEST_SLEEP_NS = 3600 * 1_000_000_000    # far below what any platform's timed wait can count
cdef tuple NO_ARGUMENTS = ()
cdef dict MODULES = sys.modules
cdef object ask_loop = None     # asyncio._get_running_loop, once somebody has imported asyncio
cdef object NO_NEWS = None      # what a task is woken with; made at the first await


cdef int report(object error, object source) except -1:
    """Give an error that has nobody to go to to sys.unraisablehook."""
    PyErr_SetObject(type(error), error)
    PyErr_WriteUnraisable(source)
    return 0


cdef object insist(object call, list interruptions):
    """Return what `call()` returns; a signal handler that raises on the way does not stop it: it is called again.

    What came between is left in `interruptions`, to be raised when all is done.  An error that comes twice is real.
    """
    while True:
        try:
            return call()
        except BaseException as error:
            interruptions.append(error)
            if isinstance(error, Exception) and len(interruptions) > 1:
                raise interruptions[0]


cdef class Owner:
    cdef bint cancel_request(self, BaseFuture future) except -1:
        """Take a queued request out of the engine; False if it is not queued any more."""
        raise NotImplementedError

    cdef bint is_running(self, BaseFuture future) except -1:
        """Whether it is being computed, all of it that has not been."""
        return future.entry.status == RUNNING

    cpdef int64_t before_blocking(self, BaseFuture future) except? -2:
        """Raise WouldDeadlock if this thread must not wait for `future` (None: for room in the queue); else return how
        long it may sleep between calls of `heartbeat`, ns."""
        return NEVER_NS

    cpdef int after_blocking(self) except -1:
        """Undo what `before_blocking` noted."""
        return 0

    cpdef int heartbeat(self) except -1:
        """Look after whoever should compute what this thread waits for."""
        return 0

    cdef int wait_for(self, BaseFuture future, int64_t until_ns) except -1:
        """Block until `future` has ended; raises TimeoutError at `until_ns`."""
        cdef int64_t beat_ns = self.before_blocking(future)
        cdef int64_t spin_ns = self.spin_ns     # once
        cdef Parker parker = take_parker()
        try:
            if future.listen(parker):
                while not parker.park(
                        beat_ns if until_ns == NEVER_NS else min(beat_ns, until_ns - monotonic_ns()), spin_ns):
                    spin_ns = 0
                    if monotonic_ns() >= until_ns:
                        raise TimeoutError
                    self.heartbeat()
        except BaseException:
            # A parker that another thread has just taken off the chain will be woken by it: leave it to that.
            if future.unlisten(parker):
                give_parker(parker)
            raise
        else:
            give_parker(parker)
        finally:
            self.after_blocking()
        return 0


cdef class Listener:
    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        raise NotImplementedError


cdef class Inner(Listener):
    cdef list held(self):
        """The futures that it speaks for."""
        raise NotImplementedError


# --- threads


cdef inline void awake(Parker parker) noexcept:
    with cython.critical_section(parker):
        parker.woken = False


cdef class Parker(Listener):
    def __cinit__(self):
        self.sleep = PyThread_allocate_lock()
        if self.sleep == NULL:
            raise MemoryError("cannot make a lock to sleep on")
        PyThread_acquire_lock(self.sleep, WAIT_LOCK)

    def __dealloc__(self):
        if self.sleep != NULL:
            if not self.woken:
                PyThread_release_lock(self.sleep)
            PyThread_free_lock(self.sleep)

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return self.wake()

    def __call__(self):
        self.wake()

    cdef int wake(self) except -1:
        with cython.critical_section(self):
            if not self.woken:
                self.woken = True
                PyThread_release_lock(self.sleep)
        return 0

    cdef bint park(self, int64_t timeout_ns, int64_t spin_ns) except -1:
        """Sleep until woken (True) or for `timeout_ns` (False; NEVER_NS: without end), after looking out, awake, for
        `spin_ns`.  Signal handlers run meanwhile and what they raise comes out of here."""
        cdef int64_t until_ns = NEVER_NS if timeout_ns == NEVER_NS else monotonic_ns() + timeout_ns
        cdef int64_t left_ns
        cdef PyLockStatus status
        if spin_ns > 0 and self.nap_ns == 0:
            if self.look_out(monotonic_ns() + min(spin_ns, timeout_ns)):
                awake(self)
                return True
            PyErr_CheckSignals()    # what came meanwhile will interrupt no sleep
        while True:
            left_ns = LONGEST_SLEEP_NS
            if until_ns != NEVER_NS:
                left_ns = min(left_ns, max(until_ns - monotonic_ns(), <int64_t>0))
            with nogil:
                status = PyThread_acquire_lock_timed(self.sleep, (left_ns + 999) // 1000, 1)
                if self.nap_ns > 0 and status == PY_LOCK_ACQUIRED:
                    PyThread_acquire_lock_timed(self.sleep, self.nap_ns // 1000, 0)
            if status == PY_LOCK_ACQUIRED:
                awake(self)
                return True
            if status == PY_LOCK_INTR:
                PyErr_CheckSignals()
            elif until_ns != NEVER_NS and monotonic_ns() >= until_ns:
                return False

    cdef bint look_out(self, int64_t until_ns) noexcept:
        """Whether this is woken before `until_ns`.  Stays awake, but lets others have the core."""
        cdef bint woken = False
        with nogil:
            while not woken and monotonic_ns() < until_ns:
                woken = PyThread_acquire_lock_timed(self.sleep, 0, 0) == PY_LOCK_ACQUIRED
                if not woken:
                    yield_core()
        return woken


cdef list idle_parkers = []


cdef Parker take_parker():
    try:
        return <Parker>idle_parkers.pop()
    except IndexError:
        return Parker.__new__(Parker)


cdef int give_parker(Parker parker) except -1:
    """Keep a parker that nobody will wake any more for the next sleeper."""
    idle_parkers.append(parker)
    return 0


cdef class Callback(Listener):
    """A done-callback; what it raises goes to sys.unraisablehook."""
    cdef object fn

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        try:
            self.fn(future)
        except BaseException as error:
            on_main_thread = threading.current_thread() is threading.main_thread()
            if on_main_thread and PyErr_GivenExceptionMatches(error, KeyboardInterrupt):
                raise   # Ctrl-C is the program's, whatever runs when it comes
            report(error, self.fn)
        return 0


cdef class Bridge(Listener):
    """What concurrent.futures.wait and as_completed take for the `_condition` and the `_waiters` of a future.

    They acquire it, look at `_state`, more than once, add a waiter and release it.  One that is interrupted may never
    release it, and whoever ends the request must not wait for that.  So it is no lock: it shows a thread the future as
    it was when that thread acquired it, and a waiter that is added to what has ended since is told at once.
    """
    cdef BaseFuture future  # None once it has ended and the waiters are told
    cdef dict pending       # thread id -> the future and its state when the thread acquired this, if it had not ended
    cdef list waiters

    def acquire(self):
        cdef BaseFuture future
        with cython.critical_section(self):
            future = self.future
        self.release()
        if future is not None and future.owner is not None:
            self.pending[PyThread_get_thread_ident()] = (future, future._state)
        return True

    def release(self):
        self.pending.pop(PyThread_get_thread_ident(), None)

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *_):
        self.release()

    def append(self, waiter):
        cdef BaseFuture future
        cdef bint ended
        seen = self.pending.get(PyThread_get_thread_ident())
        if seen is None:
            return
        future = <BaseFuture>(<tuple>seen)[0]
        with cython.critical_section(future):
            ended = future.owner is None
            if not ended:
                self.waiters.append(waiter)
        if ended:
            tell(waiter, future)

    def remove(self, waiter):
        with contextlib.suppress(ValueError):
            self.waiters.remove(waiter)

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        with cython.critical_section(self):
            self.future = None  # not the last reference
        for waiter in list(self.waiters):
            tell(waiter, future)
        return 0


cdef int tell(object waiter, BaseFuture future) except -1:
    if future.entry.status == COMPLETED:
        waiter.add_result(future)
    elif future.entry.status == CANCELLED:
        waiter.add_cancelled(future)
    else:
        waiter.add_exception(future)
    return 0


class _Bridged:
    """A non-data descriptor: made on first use, then found in the instance's own dictionary."""

    def __get__(self, BaseFuture future, owner=None):
        if future is None:
            return self
        cdef Bridge bridge = Bridge.__new__(Bridge)
        cdef Bridge first
        bridge.pending = {}
        bridge.waiters = []
        bridge.future = future
        if not future.listen(bridge):
            bridge.future = None
        first = future.__dict__.setdefault("_condition", bridge)
        if first is not bridge:
            future.unlisten(bridge)
        future.__dict__["_waiters"] = first
        return first


# --- event loops


cdef object running_loop():
    """The event loop that runs on this thread, or None.

    To import asyncio takes longer than all that is here, and who has not imported it has no loop.  The name is there
    before any loop is, and nobody waits here for a thread that is just importing it.
    """
    global ask_loop
    if ask_loop is None:
        ask_loop = getattr(MODULES.get("asyncio"), "_get_running_loop", None)
        if ask_loop is None:
            return None
    return ask_loop()


cdef tuple cancellations():
    """What `fn` is ended with from outside; asyncio's error only if somebody has imported asyncio."""
    error = getattr(MODULES.get("asyncio"), "CancelledError", None)
    return (GeneratorExit,) if error is None else (error, GeneratorExit)


cdef class Awaiter(Listener):
    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *given
        if send_to_awaiter(<PyObject *>self, <PyObject *>None, &given) == PYGEN_RETURN:
            result = <object>given
            Py_DECREF(result)
            raise StopIteration(result)
        Py_DECREF(self)
        return self

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return fan_out.add(self)

    cdef int wake(self) except -1:
        """Run the task that awaits, here and now; called by the loop, outside of any task.

        A future of asyncio would pass each task through the loop's queue once more, at the price of a handle each.
        """
        cdef object callback = self.callback
        if self.woken:
            return 0
        self.woken = True
        self.callback = None
        if callback is not None:
            PyContext_Enter(self.context)
            try:
                callback(self if self.cancelled_ else NO_NEWS)
            finally:
                PyContext_Exit(self.context)
        return 0

    def add_done_callback(self, fn, *, context=None):
        if self.callback is not None:
            raise RuntimeError("one await serves one task")
        self.callback = fn
        self.context = contextvars.copy_context() if context is None else context

    def remove_done_callback(self, fn):
        if self.callback is None or self.callback != fn:
            return 0
        self.callback = None
        return 1

    def get_loop(self):
        return self.loop

    def done(self):
        return self.woken

    def cancelled(self):
        return self.cancelled_

    def cancel(self, msg=None):
        """Called on the loop when the task is cancelled: wake it with CancelledError, cancel a queued request."""
        if self.woken or self.cancelled_:
            return False
        self.cancelled_ = True
        self.message = msg
        self.future.unlisten(self)
        self.loop.call_soon(wake_awaiters, [self])
        self.future.cancel()
        return True

    def result(self):
        if self.cancelled_:
            from asyncio import CancelledError

            if self.message is None:
                raise CancelledError
            raise CancelledError(self.message)

    def exception(self):
        self.result()


cdef PySendResult send_to_awaiter(PyObject *me, PyObject *value, PyObject **given) except PYGEN_ERROR:
    """The step of an await: gives itself for the task to wait for, and the next time the result."""
    cdef Awaiter self = <Awaiter>me
    cdef BaseFuture future = self.future
    if future.entry.status < COMPLETED:
        if self.loop is not None:
            raise RuntimeError("await was resumed before its request ended")
        self.loop = running_loop()
        if self.loop is None:
            raise RuntimeError("no running event loop")
        if NO_NEWS is None:
            make_no_news()
        if future.listen(self):
            self._asyncio_future_blocking = True
            Py_INCREF(self)
            given[0] = me
            return PYGEN_NEXT
    if future.entry.status == CANCELLED:
        from asyncio import CancelledError

        raise CancelledError
    result = future.outcome()
    Py_INCREF(result)
    given[0] = <PyObject *>result
    return PYGEN_RETURN


# Cython knows no name for this slot.  Without it each result would travel in a StopIteration.
(<TypeWithAsync *>Awaiter).tp_as_async.am_send = send_to_awaiter


class NoLoop:
    """As much of an event loop as it takes to make a future."""

    def get_debug(self):
        return False


cdef int make_no_news() except -1:
    """Make a future of asyncio: a task would ask any other object for its result, by name."""
    from asyncio import Future as AsyncioFuture

    global NO_NEWS
    made = AsyncioFuture(loop=NoLoop())
    made.set_result(None)
    NO_NEWS = globals().setdefault("_no_news", made)    # of several threads that come at once, the first one's
    return 0


def wake_awaiters(list awaiters not None):
    """Resume tasks of this loop, one after the other."""
    cdef Awaiter awaiter
    cdef Py_ssize_t i
    for i in range(len(awaiters)):
        awaiter = <Awaiter>awaiters[i]
        try:
            awaiter.wake()
        except (SystemExit, KeyboardInterrupt):
            awaiter.loop.call_soon(wake_awaiters, awaiters[i + 1:])
            raise
        except BaseException as error:
            awaiter.loop.call_exception_handler({"message": "exception while waking a task", "exception": error})


cdef class FanOut:
    def __cinit__(self):
        self.scheduled = {}
        self.fresh = []

    cdef int add(self, Awaiter awaiter) except -1:
        cdef list awaiters
        with cython.critical_section(self):
            awaiters = <list>self.scheduled.get(awaiter.loop)
            if awaiters is None:
                self.scheduled[awaiter.loop] = awaiters = []
                self.fresh.append(awaiter.loop)
            awaiters.append(awaiter)
        return 0

    cdef int wake(self) except -1:
        """Schedule one wake-up for each loop that has none under way; call it after the last `end_future` of a batch.

        Raises what came out of a listener meanwhile: a Ctrl-C, or what a signal handler raised.
        """
        if len(self.scheduled) > len(self.fresh):
            for loop in list(self.scheduled):
                if loop.is_closed():
                    self.scheduled.pop(loop, None)  # it will never come to it
        while self.fresh:
            try:
                loop = self.fresh.pop()
            except IndexError:
                break
            schedule = loop.call_soon if loop is running_loop() else loop.call_soon_threadsafe
            try:
                schedule(self.run, loop)
            except BaseException as error:
                self.wake_again(functools.partial(schedule, self.run, loop), loop, error)
        if self.error is not None:
            error = None
            with cython.critical_section(self):
                error, self.error = self.error, error
            if error is not None:   # nobody else has come to it meanwhile
                raise error
        return 0

    cdef int keep(self, object error) except -1:
        """Have `wake` raise an error, if it is the first."""
        with cython.critical_section(self):
            if self.error is None:
                self.error = error
        return 0

    cdef int wake_again(self, object schedule, object loop, object error) except -1:
        """What came out was a signal handler's, and is raised later; or nobody is left to wake."""
        try:
            insist(schedule, [error])
            self.keep(error)
        except BaseException as real:
            self.scheduled.pop(loop, None)
            if not loop.is_closed():
                report(real, loop)
        return 0

    def run(self, loop):
        """Wake what has gathered for this loop; called by it."""
        with cython.critical_section(self):
            awaiters = self.scheduled.pop(loop, [])
        wake_awaiters(awaiters)


# --- the future


cdef inline Owner owner_of(BaseFuture future):
    with cython.critical_section(future):
        return future.owner


cdef inline Status end_of(BaseFuture future) noexcept:
    """How it ended, if it has; from there on `payload` is what it will always be, and read without a lock."""
    return <Status>look_at(<PyObject *>future, <const int *>&future.entry.status)


cdef class BaseFuture(Request):
    cdef bint listen(self, Listener listener) except -1:
        """Hang `listener` on the chain; False if the future has ended and it will never be told."""
        with cython.critical_section(self):
            if self.owner is None:
                return False
            listener.next = self.listeners
            self.listeners = listener
        return True

    cdef bint unlisten(self, Listener listener) except -1:
        """Take `listener` off the chain; False if it is not on it."""
        cdef Listener earlier
        with cython.critical_section(self):
            if self.listeners is listener:
                self.listeners = listener.next
            else:
                earlier = self.listeners
                while earlier is not None and earlier.next is not listener:
                    earlier = earlier.next
                if earlier is None:
                    return False
                earlier.next = listener.next
            listener.next = None
        return True

    cdef object take_item(self):
        """The item, of which no reference stays here."""
        item = self.payload
        self.payload = None
        return item

    cdef int wait(self, object timeout) except -1:
        """Block until the future has ended.

        Raises TimeoutError after `timeout` seconds, and WouldDeadlock where the end could never come.
        """
        cdef int64_t until_ns = NEVER_NS
        cdef Owner owner = owner_of(self)
        if owner is None:
            return 0
        if timeout is not None and timeout != timeout:
            raise ValueError("timeout is not a number; it must be seconds, or None for no limit")
        if timeout is not None and timeout < 1e9:
            if timeout <= 0:
                raise TimeoutError
            until_ns = monotonic_ns() + <int64_t>(timeout * 1e9)
        return owner.wait_for(self, until_ns)

    cdef object outcome(self):
        """The result, or raise how else it ended."""
        cdef Status status = end_of(self)
        if status == COMPLETED:
            return self.payload
        if status == CANCELLED:
            raise concurrent.futures.CancelledError
        raise error_of(self)

    def result(self, timeout=None):
        """Wait for the result and return it.

        Parameters
        ----------
        timeout : float, optional
            Longest wait, seconds; None waits without end.

        Raises
        ------
        TimeoutError
            After `timeout`; the request goes on.
        concurrent.futures.CancelledError
            If the request was cancelled.
        DeadlineExceeded
            If its own ``timeout_ms`` passed before it could run.
        SchedulerClosed
            If the scheduler ended before it could run.
        WouldDeadlock
            If this thread is the one that would have to compute the result.
        BaseException
            What ``fn`` raised, or returned in this item's place.
        """
        if self.entry.status < COMPLETED:
            self.wait(timeout)
        return self.outcome()

    def exception(self, timeout=None):
        """Wait for the end and return what `result` would raise, None for a result; a cancellation is raised.

        Parameters and exceptions as in `result`.
        """
        if self.entry.status < COMPLETED:
            self.wait(timeout)
        if self.entry.status == COMPLETED:
            return None
        if self.entry.status == CANCELLED:
            raise concurrent.futures.CancelledError
        return error_of(self)

    def done(self):
        """Tell whether the request has ended, in whichever way."""
        return self.entry.status >= COMPLETED

    def running(self):
        """Tell whether its batch is being computed."""
        cdef Owner owner = owner_of(self)
        return owner is not None and owner.is_running(self)

    def cancelled(self):
        """Tell whether it was cancelled."""
        return self.entry.status == CANCELLED

    def cancel(self):
        """Give up a request that is still queued; it frees its place and is never computed.

        Returns
        -------
        bool
            True if it is cancelled, now or before; False if it runs or has ended otherwise.
        """
        cdef Owner owner = owner_of(self)
        if owner is not None and self.entry.status == QUEUED:
            owner.cancel_request(self)
        return self.entry.status == CANCELLED

    def add_done_callback(self, fn):
        """Call ``fn(future)`` when the request ends: at once if it has, else on the thread that ends it.

        Callbacks run in the order they were added.  What one raises goes to `sys.unraisablehook` and hurts nobody.
        """
        cdef Callback callback = Callback.__new__(Callback)
        callback.fn = fn
        if not self.listen(callback):
            callback.notify(self, None)

    def __await__(self):
        cdef Awaiter awaiter = Awaiter.__new__(Awaiter)
        awaiter.future = self
        return awaiter

    def set_result(self, result):
        """Refuse: the scheduler alone ends a request."""
        raise RuntimeError("this future belongs to its scheduler; use cancel() to give the request up")

    def set_exception(self, exception):
        """Refuse: the scheduler alone ends a request."""
        self.set_result(None)

    def set_running_or_notify_cancel(self):
        """Refuse: the scheduler alone starts a request."""
        self.set_result(None)

    def _get_snapshot(self):
        """What asyncio.wrap_future asks for from Python 3.14 on: done, cancelled, result, exception."""
        cdef Status status = end_of(self)
        if status < COMPLETED or status == CANCELLED:
            return status == CANCELLED, status == CANCELLED, None, None
        if status == COMPLETED:
            return True, False, self.payload, None
        return True, False, None, error_of(self)

    @property
    def _state(self):
        """The word of concurrent.futures for `status`."""
        cdef Status status = self.entry.status
        cdef Bridge bridge = self.__dict__.get("_condition")
        seen = None if bridge is None else bridge.pending.get(PyThread_get_thread_ident())
        if seen is not None:
            return seen[1]
        if self.owner is not None:      # not before `end_future` has come to it
            return "RUNNING" if self.running() else "PENDING"
        return "CANCELLED_AND_NOTIFIED" if status == CANCELLED else "FINISHED"

    def __repr__(self):
        cdef Status status = end_of(self)
        words = f"<Future at {<size_t><void *>self:#x} {self.status}"
        if status == COMPLETED:
            words += f" returned {type(self.payload).__name__}"
        elif status == FAILED:
            words += f" raised {type(self.payload[0]).__name__}"
        return words + ">"


class Future(BaseFuture, concurrent.futures.Future):
    """The answer to one submitted item, now or later.

    A `concurrent.futures.Future` that can be awaited as well, from any event loop and by any number of tasks.  It works
    in `concurrent.futures.wait` and `as_completed`, `asyncio.wrap_future`, `asyncio.gather` and `asyncio.wait_for`.
    Cancelling a task that awaits it cancels the request if it is still queued.

    Made by `Scheduler.submit`.  Thread-safe; every method but `result` and `exception` returns at once.

    Examples
    --------
    >>> from pybatch import Scheduler
    >>> with Scheduler(lambda xs: [x * x for x in xs], metrics=False) as scheduler:
    ...     future = scheduler.submit(3)
    ...     future.result()
    9
    """

    _condition = _waiters = _Bridged()

    def __init__(self):
        raise TypeError("futures are made by Scheduler.submit")


cdef type FUTURE = Future   # a name that is found without a look-up


cdef BaseFuture new_future(object item, Owner owner):
    cdef BaseFuture future = <BaseFuture>(<PyTypeObject *>FUTURE).tp_new(FUTURE, <PyObject *>NO_ARGUMENTS, NULL)
    future.payload = item
    future.owner = owner
    return future


cdef object error_of(BaseFuture future):
    """What `result` raises for a future that ended without one."""
    cdef Status status = end_of(future)
    if status == FAILED:
        error, traceback = <tuple>future.payload
        PyException_SetTraceback(error, traceback)  # not its method: an exception may have one of its own
        return error
    if status == EXPIRED:
        if future.entry.deadline_ns == NEVER_NS:
            return DeadlineExceeded("the request was given up by the scheduler's policy")
        allowed_ms = (future.entry.deadline_ns - future.entry.arrival_ns) / 1e6
        return DeadlineExceeded(f"the request could not be answered within its timeout_ms of {allowed_ms:g}")
    with cython.critical_section(future):   # until `end_future` has come to it, the payload is still the item
        words = future.payload if future.owner is None else "the request was shut down"
    return SchedulerClosed(words)


cdef Listener settle_future(BaseFuture future, Status status, object payload):
    """Make the end known; return the chain of those to tell.  Of two who both came to end it, the second comes late."""
    cdef Listener chain = None
    cdef Owner owner = None     # goes after the section, like the item: that may run anything, which may listen
    with cython.critical_section(future):
        if future.owner is None:
            return None
        chain, future.listeners = future.listeners, chain
        payload, future.payload = future.payload, payload
        owner, future.owner = future.owner, owner
        future.entry.status = status
        if not PyObject_GC_IsTracked(<PyObject *>future):
            PyObject_GC_Track(<PyObject *>future)
    return chain


cdef int end_future(BaseFuture future, Status status, object payload, FanOut fan_out) except -1:
    """End a request and tell everyone who listens; `fan_out` gathers the awaiters, and errors, for its `wake`."""
    cdef Listener listener
    cdef Listener told = None
    cdef Listener chain = settle_future(future, status, payload)
    while chain is not None:    # oldest first
        listener = chain
        chain = listener.next
        listener.next = told
        told = listener
    while told is not None:
        listener = told
        told = listener.next
        listener.next = None
        try:
            listener.notify(future, fan_out)
        except BaseException as error:
            fan_out.keep(error)
    return 0


cdef int end_futures(list futures, Status status, object payload, FanOut fan_out) except -1:
    """End several requests alike."""
    cdef BaseFuture future
    for future in futures:
        end_future(future, status, payload, fan_out)
    return fan_out.wake()


cdef Inner inner_of(BaseFuture request):
    """What speaks for a request that nobody holds; None for one that its submitter does."""
    cdef Listener listener
    with cython.critical_section(request):
        listener = request.listeners
        while listener is not None and not isinstance(listener, Inner):
            listener = listener.next
    return listener


cdef list held_futures(list requests):
    """The futures that people hold: of a request either its own, or those that it speaks for."""
    cdef Inner inner
    cdef dict held = {}     # in the place of a set, for its order
    for request in requests:
        inner = inner_of(request)
        held.update(dict.fromkeys([request] if inner is None else inner.held()))
    return list(held)


cdef int forget_listeners(BaseFuture future) except -1:
    """Leave those who wait for `future` to the parent process: here are neither their threads nor their locks."""
    cdef Inner inner = inner_of(future)
    future.listeners = inner
    if inner is not None:
        inner.next = None
    for name in ("_condition", "_waiters"):
        future.__dict__.pop(name, None)
    return 0
