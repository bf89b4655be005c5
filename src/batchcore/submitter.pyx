"""What is called once a request: arguments checked, the clock read, then over to the dispatcher."""

from libc.stdint cimport int64_t

import math
import numbers
import types
from collections.abc import Mapping

from batchcore.merging import merging

from batchcore._types cimport COMPLETED, NEVER_NS
from batchcore.dispatcher cimport Dispatcher
from batchcore.engine cimport priority_of
from batchcore.future cimport BaseFuture
from batchcore.groups cimport Sharing, submit_rows
from batchcore.intake cimport Terms

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


cdef object take_result(list window, Py_ssize_t i):
    """Wait for one of these futures, which stays among them until its result has come."""
    cdef BaseFuture future = <BaseFuture>window[i]
    if future.entry.status < COMPLETED:
        future.wait(None)
    result = future.outcome()
    window[i] = None
    return result


cdef class Submitter:
    """The part of `pybatch.Scheduler` that is called once a request."""

    __class_getitem__ = classmethod(types.GenericAlias)

    def _serve_with(self, Dispatcher dispatcher not None, fn not None):
        """Say who runs the batches, and with what; called once, by the constructor."""
        self.dispatcher = dispatcher
        self.fn = fn

    def submit(self, item, *, timeout_ms=None, priority=0, key=None, weight=None):
        """Queue one item and return its future at once.

        Parameters
        ----------
        item : object
            Anything; handed to ``fn`` as it is, or as a part of an array if the scheduler was given `batch_as`.
        timeout_ms : float, optional
            Fail the request with `DeadlineExceeded`, and never run it, as soon as it is clear that it cannot be
            answered within this many milliseconds.  Not above zero: it fails at once.  Default: the scheduler's
            ``timeout_ms``.
        priority : int, default 0
            Lower is sooner; -1,000,000 to 1,000,000.  A level is worth two seconds: nobody starves.
        key : hashable, optional
            Only requests of equal keys share a batch.  Default: what the scheduler's `key_fn` says, else None.
        weight : int, optional
            What it counts for in `max_batch_weight`, 1 to 2,147,483,647.  Default: what the scheduler's `weight_fn`
            says, else the length that it is padded to on its own, else 1.

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
            If an argument is of the wrong type or out of range, the item cannot be in any batch, or it is heavier than
            `max_batch_weight`; nothing has changed.  What `key_fn` and `weight_fn` raise comes out as well.

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
        cdef Terms terms
        self.agree(&terms, timeout_ms, priority)
        if self.sharing is not None:
            return self.sharing.submit(self.fn, item, key, weight, &terms, False)
        return self.ready().submit(self.fn, item, key, weight, &terms)

    def submit_many(self, items, *, timeout_ms=None, priority=0, key=None, weight=None):
        """Queue several items in one go and return their futures, in order.

        All or nothing: if the queue lacks room for all of them, `QueueFull` is raised and none is queued.  With
        ``on_full="block"`` it waits for room instead, item by item; if that fails, what is still queued is cancelled.

        Parameters
        ----------
        items : iterable of object
        timeout_ms, priority, key, weight
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
        Thread-safe.  One clock read, one lock and at most one wake-up for all.  Identical items are computed twice,
        whatever `dedupe` says.

        Examples
        --------
        >>> from pybatch import Scheduler
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], metrics=False) as scheduler:
        ...     [future.result() for future in scheduler.submit_many([1, 2, 3])]
        [2, 3, 4]
        """
        cdef list values = list(items)
        cdef Terms terms
        self.agree(&terms, timeout_ms, priority)
        return self.ready().submit_all(self.fn, values, key, weight, &terms)

    def submit_batch(self, items, *, timeout_ms=None, priority=0, key=None, weight=None):
        """Queue several rows as one request and return one future, for all of their results.

        It counts as that many requests.  It may be computed in several batches, when it is larger than
        ``max_batch_size`` say, and together with others'; its results come back whole and in order.  The first row
        that fails, or is too late, ends it all, and what is queued of it is not computed.

        Parameters
        ----------
        items : array of shape (n, ...) or sequence
            The rows.
        timeout_ms, priority, key, weight
            As in `submit`; the weight is that of a row.

        Returns
        -------
        Future
            Of a list of n results; of an array of shape (n, ...), or a dict or tuple of those, if `items` is an array
            and the results can be one.  `Future.cancel` works as long as a row is queued.

        Raises
        ------
        QueueFull
            If there is no room for all of them, as in `submit_many`.
        SchedulerClosed, TypeError, ValueError
            As in `submit`; nothing has changed.

        Notes
        -----
        Thread-safe.  Identical rows are computed twice, whatever `dedupe` says.

        Examples
        --------
        >>> from pybatch import Scheduler
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], max_batch_size=2, metrics=False) as scheduler:
        ...     scheduler.submit_batch([1, 2, 3]).result()
        [2, 3, 4]
        """
        cdef Terms terms
        self.agree(&terms, timeout_ms, priority)
        if isinstance(items, Mapping):
            raise TypeError(
                f"items must be an array or a sequence of rows, not a {type(items).__name__}: of a dict of arrays, "
                "make a list of dicts, one for each row")
        return submit_rows(self.ready(), self.fn, list(items), merging(items), key, weight, &terms)

    def _share(self, fingerprint):
        """Compute identical items once; called by the constructor."""
        self.sharing = Sharing(self.ready(), fingerprint)

    def _map(self, items, Py_ssize_t ahead, Py_ssize_t most, timeout_ms, priority, key, weight):
        """Yield the results of `items`, of which `ahead` are outstanding, or `most` where sleeping would cost more than
        the batches do.  Waits for room whatever ``on_full`` says."""
        cdef list window = []       # futures, None for those that were answered; a ring once it is full
        cdef Py_ssize_t oldest = 0
        cdef Py_ssize_t i
        cdef bint sleeps
        try:
            for item in items:
                if len(window) < ahead:
                    window.append(self.submit_waiting(item, timeout_ms, priority, key, weight))
                    continue
                sleeps = (<BaseFuture>window[oldest]).entry.status < COMPLETED
                yield take_result(window, oldest)
                window[oldest] = self.submit_waiting(item, timeout_ms, priority, key, weight)
                oldest = (oldest + 1) % ahead
                if sleeps and ahead < most and self.dispatcher.is_quick():
                    window = window[oldest:] + window[:oldest]
                    oldest = 0
                    ahead = min(2 * ahead, most)
            for i in range(len(window)):
                yield take_result(window, (oldest + i) % len(window))
        finally:
            for future in window:
                if future is not None:
                    future.cancel()

    cdef BaseFuture submit_waiting(self, object item, object timeout_ms, object priority, object key, object weight):
        """Queue one item like `submit`, but wait for room whatever ``on_full`` says.  For threads without a loop."""
        cdef Terms terms
        self.agree(&terms, timeout_ms, priority)
        if self.sharing is not None:
            return self.sharing.submit(self.fn, item, key, weight, &terms, True)
        return self.ready().submit_waiting(self.fn, item, key, weight, &terms)

    def _attempt(self, item, *, timeout_ms=None, priority=0, key=None, weight=None):
        """Return a function that queues the item, and returns its future or None if there is no room; and its deadline.

        Arguments are checked, and the deadline counts, from now on.
        """
        cdef Attempt attempt = Attempt.__new__(Attempt)
        self.agree(&attempt.terms, timeout_ms, priority)
        attempt.submitter = self
        attempt.key = self.ready().key_of(item, key)
        if self.sharing is not None:
            attempt.id = self.sharing.id_of(item, attempt.key)
        attempt.item = self.ready().prepare(item, weight, &attempt.terms)
        return attempt, attempt.terms.deadline_ns

    def __call__(self, item, *, timeout_ms=None, priority=0, key=None, weight=None):
        """Submit one item and wait for its result; with ``run_in="caller"``, compute it.

        Parameters
        ----------
        item, timeout_ms, priority, key, weight
            As in `submit`.

        Returns
        -------
        object
            The result.

        Raises
        ------
        Exception
            As in `submit` and `Future.result`.  Where this thread is interrupted, the request is given up.

        Notes
        -----
        Thread-safe.  Not for a thread that runs an event loop, which stands still meanwhile.

        Examples
        --------
        >>> from pybatch import Scheduler
        >>> with Scheduler(lambda xs: [x + 1 for x in xs], run_in="caller", metrics=False) as scheduler:
        ...     scheduler(1)
        2
        """
        cdef Terms terms
        self.agree(&terms, timeout_ms, priority)
        terms.blocks = True
        cdef BaseFuture future
        if self.sharing is None:
            future = self.ready().submit(self.fn, item, key, weight, &terms)
        else:
            future = self.sharing.submit(self.fn, item, key, weight, &terms, False)
        try:
            return future.result()
        except BaseException:
            future.cancel()     # nobody else has it
            raise

    cdef Dispatcher ready(self):
        if self.dispatcher is None:
            raise RuntimeError("Scheduler.__init__ was not called")
        return self.dispatcher

    cdef int agree(self, Terms *terms, object timeout_ms, object priority) except -1:
        """Write the terms of a request that is submitted now."""
        cdef Dispatcher dispatcher = self.ready()
        terms.now_ns = dispatcher.now()
        terms.deadline_ns = NEVER_NS
        if timeout_ms is not None:
            terms.deadline_ns = terms.now_ns + timeout_ns_of(timeout_ms)
        elif dispatcher.timeout_ns != NEVER_NS:
            terms.deadline_ns = terms.now_ns + dispatcher.timeout_ns
        terms.priority = priority_of(priority)
        terms.weight = 1
        terms.blocks = False
        return 0


cdef class Attempt:
    """A request that waits for room in the queue."""
    cdef Submitter submitter
    cdef object item
    cdef object key
    cdef object id      # with dedupe
    cdef Terms terms

    def __call__(self):
        cdef Dispatcher dispatcher = self.submitter.ready()
        self.terms.now_ns = dispatcher.now()
        if self.submitter.sharing is not None:
            return self.submitter.sharing.offer(self.submitter.fn, self.item, self.key, self.id, &self.terms)
        return dispatcher.offer(self.submitter.fn, self.item, self.key, &self.terms)
