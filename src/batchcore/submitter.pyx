"""What is called once a request: arguments checked, the clock read, then over to the dispatcher."""

from libc.stdint cimport int32_t, int64_t

import math
import numbers
import types

from batchcore._types cimport NEVER_NS
from batchcore.dispatcher cimport Dispatcher
from batchcore.engine cimport priority_of
from batchcore.future cimport BaseFuture

MAX_DURATION_MS = 1e10
cdef double c_max_duration_ms = MAX_DURATION_MS


cdef int64_t timeout_ns_of(object timeout_ms) except? -1:
    """Turn a request's own timeout into ns; below zero is legal and means too late."""
    cdef double value
    if type(timeout_ms) is float:
        value = timeout_ms
    elif isinstance(timeout_ms, numbers.Real) and not isinstance(timeout_ms, bool):
        # Bounded first: an int may be too large for a float.
        value = min(max(timeout_ms, -2 * MAX_DURATION_MS), 2 * MAX_DURATION_MS)
    else:
        raise TypeError(f"timeout_ms must be a number of milliseconds or None, not {timeout_ms!r}")
    if not value <= c_max_duration_ms or value == -math.inf:
        raise ValueError(
            f"timeout_ms is {timeout_ms!r}; it must be at most {MAX_DURATION_MS:g}, or None for no limit")
    return <int64_t>(max(value, -c_max_duration_ms) * 1e6)


cdef class Submitter:
    """The part of `pybatch.Scheduler` that is called once a request."""

    __class_getitem__ = classmethod(types.GenericAlias)

    def _serve_with(self, Dispatcher dispatcher not None, fn not None):
        """Say who runs the batches, and with what; called once, by the constructor."""
        self.dispatcher = dispatcher
        self.fn = fn

    def submit(self, item, *, timeout_ms=None, priority=0):
        """Queue one item and return its future at once.

        Parameters
        ----------
        item : object
            Anything; handed to ``fn`` as it is.
        timeout_ms : float, optional
            Fail the request with `DeadlineExceeded`, and never run it, as soon as it is clear that it cannot be
            answered within this many milliseconds.  Not above zero: it fails at once.  Default: the scheduler's
            ``timeout_ms``.
        priority : int, default 0
            Lower is sooner; -1,000,000 to 1,000,000.  A level is worth two seconds: nobody starves.

        Returns
        -------
        Future

        Raises
        ------
        QueueFull
            If ``max_queue_size`` requests are queued and ``on_full="raise"``, or this thread runs an event loop.
        SchedulerClosed
            After `shutdown`.
        TypeError, ValueError
            If an argument is of the wrong type or out of range; nothing has changed.

        Notes
        -----
        Thread-safe, from any thread and any event loop.  O(1) where requests come with few timeouts and priorities,
        O(log n) else.  Blocks only with ``on_full="block"``.

        Examples
        --------
        >>> from pybatch import Scheduler
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], metrics=False) as scheduler:
        ...     scheduler.submit(1).result()
        2
        """
        cdef int64_t now_ns = self.ready().now()
        return self.ready().submit(
            self.fn, item, self.deadline_from(now_ns, timeout_ms), now_ns, priority_of(priority))

    def submit_many(self, items, *, timeout_ms=None, priority=0):
        """Queue several items in one go and return their futures, in order.

        All or nothing: if the queue lacks room for all of them, `QueueFull` is raised and none is queued.  With
        ``on_full="block"`` it waits for room instead, item by item.

        Parameters
        ----------
        items : iterable of object
        timeout_ms, priority
            As in `submit`, the same for all.

        Returns
        -------
        list of Future

        Raises
        ------
        QueueFull, SchedulerClosed, TypeError, ValueError
            As in `submit`; nothing has changed.

        Notes
        -----
        Thread-safe.  One clock read, one lock and at most one wake-up for all.

        Examples
        --------
        >>> from pybatch import Scheduler
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], metrics=False) as scheduler:
        ...     [future.result() for future in scheduler.submit_many([1, 2, 3])]
        [2, 3, 4]
        """
        cdef int32_t rank = priority_of(priority)
        cdef list values = list(items)
        cdef int64_t now_ns = self.ready().now()
        return self.ready().submit_all(self.fn, values, self.deadline_from(now_ns, timeout_ms), now_ns, rank)

    def _submit_waiting(self, item, *, timeout_ms=None, priority=0):
        """Queue one item like `submit`, but wait for room whatever ``on_full`` says.  For threads without a loop."""
        cdef int64_t now_ns = self.ready().now()
        cdef int64_t deadline_ns = self.deadline_from(now_ns, timeout_ms)
        cdef int32_t rank = priority_of(priority)
        cdef BaseFuture future = self.ready().offer(self.fn, item, deadline_ns, now_ns, rank)
        return self.ready().submit_blocking(self.fn, item, deadline_ns, rank) if future is None else future

    def _try_submit(self, item, int64_t deadline_ns, priority):
        """Queue an item and return its future, or None if there is no room."""
        return self.ready().offer(self.fn, item, deadline_ns, self.ready().now(), priority_of(priority))

    def _deadline_ns(self, timeout_ms):
        """The deadline of a request submitted now."""
        return self.deadline_from(self.ready().now(), timeout_ms)

    def __call__(self, item, *, timeout_ms=None, priority=0):
        """Submit one item and wait for its result; parameters and errors as in `submit` and `Future.result`."""
        cdef int64_t now_ns = self.ready().now()
        cdef BaseFuture future = self.ready().submit(
            self.fn, item, self.deadline_from(now_ns, timeout_ms), now_ns, priority_of(priority))
        try:
            return future.result()
        except BaseException:
            future.cancel()     # nobody else has it
            raise

    cdef Dispatcher ready(self):
        if self.dispatcher is None:
            raise RuntimeError("Scheduler.__init__ was not called")
        return self.dispatcher

    cdef int64_t deadline_from(self, int64_t now_ns, object timeout_ms) except? -1:
        if timeout_ms is not None:
            return now_ns + timeout_ns_of(timeout_ms)
        return NEVER_NS if self.ready().timeout_ns == NEVER_NS else now_ns + self.ready().timeout_ns
