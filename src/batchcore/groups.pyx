"""Futures that are not requests themselves: of many rows that end as one, and of one computation that many share.

Both own futures that people hold (`Owner`) and listen to requests that the engine holds.  A request that ends tells its
`Link` or `Twin`, outside any lock.  Whoever ends such a future has claimed it first, since it ends once: the whole by
its `results`, a caller by taking it out of `callers`, in the critical section of their owner.
"""

cimport cython
from libc.stdint cimport int64_t

from batchcore._types cimport CANCELLED, COMPLETED, EXPIRED, FAILED, QUEUED, RUNNING
from batchcore.dispatcher cimport Dispatcher
from batchcore.future cimport BaseFuture, FanOut, Inner, Owner, end_future, new_future, report, running_loop
from batchcore.intake cimport Terms


cdef BaseFuture future_on(Owner owner, const Terms *terms):
    """A future that is no request, with the terms of one."""
    cdef BaseFuture future = new_future(None, owner)
    future.entry.status = QUEUED
    future.entry.arrival_ns = terms.now_ns
    future.entry.deadline_ns = terms.deadline_ns
    future.entry.priority = terms.priority
    return future


cdef int give(BaseFuture future, Owner owner) except -1:
    """Make `owner` that of a future that has not ended; people may have it already."""
    with cython.critical_section(future):
        owner, future.owner = future.owner, owner
    return 0


cdef class Link(Inner):
    """Tells a group of the end of one of its requests."""
    cdef Rows group
    cdef Py_ssize_t index

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return self.group.row_ended(self.index, future, fan_out)

    cdef list held(self):
        return [self.group.whole]


cdef class Rows(Owner):
    """A request of several rows: each is a request of the engine's, and may be in another batch; they end as one."""
    cdef Dispatcher dispatcher
    cdef BaseFuture whole
    cdef list rows          # futures; emptied when the whole has ended
    cdef list results       # None once somebody has claimed the end of the whole
    cdef Py_ssize_t left    # rows that have not ended
    cdef object merge       # makes the result of a list of those of the rows

    cdef list claim(self):
        """The results, for the one who is to end the whole; None for everybody else."""
        cdef list results
        with cython.critical_section(self):
            results = self.results
            self.results = None
        return results

    cdef int row_ended(self, Py_ssize_t index, BaseFuture row, FanOut fan_out) except -1:
        cdef bint last = False
        if row.entry.status == COMPLETED:
            with cython.critical_section(self):
                if self.results is not None:
                    self.results[index] = row.payload
                    self.left -= 1
                    last = self.left == 0
            return self.complete(fan_out) if last else 0
        if self.claim() is None:
            return 0
        end_future(self.whole, row.entry.status, row.payload, fan_out)
        return self.drop()

    cdef int complete(self, FanOut fan_out) except -1:
        """Every row has its result."""
        cdef list results = self.claim()
        if results is None:
            return 0
        self.take_rows()
        try:
            end_future(self.whole, COMPLETED, self.merge(results), fan_out)
        except BaseException as error:
            end_future(self.whole, FAILED, (error, error.__traceback__), fan_out)
            if not isinstance(error, Exception):    # a Ctrl-C on the way
                raise
        return 0

    cdef list take_rows(self):
        cdef list rows = []
        with cython.critical_section(self):
            rows, self.rows = self.rows, rows
        return rows

    cdef int drop(self) except -1:
        """Cancel what is still queued; nobody waits for it any more."""
        cdef BaseFuture row
        for row in self.take_rows():
            if row.entry.status == QUEUED:
                self.dispatcher.cancel_request(row)
        return 0

    cdef bint waits(self) except -1:
        """Whether a row is still queued."""
        cdef list rows
        with cython.critical_section(self):
            rows = self.rows    # which nobody changes: it is only put in the place of another
        return any([(<BaseFuture>row).entry.status == QUEUED for row in rows])

    cdef bint cancel_request(self, BaseFuture whole) except -1:
        """Give up all of it, if any is still queued."""
        cdef FanOut fan_out
        if not self.waits() or self.claim() is None:
            return False
        fan_out = FanOut.__new__(FanOut)
        end_future(whole, CANCELLED, None, fan_out)
        try:
            self.drop()
        finally:
            fan_out.wake()
        return True

    cdef bint is_running(self, BaseFuture whole) except -1:
        return self.results is not None and not self.waits()

    cdef int wait_for(self, BaseFuture future, int64_t until_ns) except -1:
        return self.dispatcher.wait_for(future, until_ns)


cdef BaseFuture submit_rows(
    Dispatcher dispatcher, object fn, list items, object merge, object key, object weight, Terms *terms,
):
    """Queue all items in one go, or none, and return one future for the list of their results."""
    cdef Rows group = Rows.__new__(Rows)
    cdef Link link
    cdef Py_ssize_t i
    group.dispatcher = dispatcher
    group.merge = merge
    group.results = [None] * len(items)
    group.left = len(items)
    group.whole = future_on(group, terms)
    group.rows = []
    if not items:
        group.complete(None)
        return group.whole
    group.rows = rows = dispatcher.submit_all(fn, items, key, weight, terms)
    for i in range(len(rows)):
        link = Link.__new__(Link)
        link.group = group
        link.index = i
        if not (<BaseFuture>rows[i]).listen(link):
            link.notify(<BaseFuture>rows[i], None)
    return group.whole


cdef class Twin(Inner):
    """Tells those who share a request of its end."""
    cdef Shared shared

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return self.shared.ended(fan_out)

    cdef list held(self):
        with cython.critical_section(self.shared):
            return list(self.shared.callers)


cdef class Shared(Owner):
    """One request, and the futures of all who submitted the same item while it was waiting or running."""

    cdef bint join(self, BaseFuture caller) except -1:
        """Let one more have the answer; False if it has come, or waits and is not as urgent as the caller needs it."""
        cdef BaseFuture request = self.request
        if request.owner is None:
            return False
        if request.entry.status == QUEUED and (
            request.entry.deadline_ns > caller.entry.deadline_ns or request.entry.priority > caller.entry.priority
        ):
            return False
        give(caller, self)
        with cython.critical_section(self):
            if not self.callers:
                return False
            self.callers.append(caller)
        return True

    cdef int ended(self, FanOut fan_out) except -1:
        """Pass the end on; who still has time when the request has none left is given another."""
        cdef BaseFuture request = self.request
        cdef BaseFuture caller
        cdef list callers = []
        with cython.critical_section(self):
            callers, self.callers = self.callers, callers   # nobody can join from here on
        self.sharing.forget(self)
        for caller in callers:
            if request.entry.status == EXPIRED and caller.entry.deadline_ns > request.entry.deadline_ns:
                self.start_again(caller, fan_out)
            else:
                end_future(caller, request.entry.status, request.payload, fan_out)
        self.item = None
        return 0

    cdef int start_again(self, BaseFuture caller, FanOut fan_out) except -1:
        """Have a caller's item computed after all.  Never waits for room: whoever runs this may have to make it."""
        cdef Terms terms
        terms.now_ns = self.sharing.dispatcher.now()
        terms.deadline_ns = caller.entry.deadline_ns
        terms.priority = caller.entry.priority
        terms.weight = self.request.entry.weight
        terms.blocks = False
        try:
            if self.sharing.start(self.fn, self.item, self.key, self.id, caller, &terms):
                return 0
            error = self.sharing.dispatcher.refuse(1)
        except BaseException as raised:
            error = raised
            if not isinstance(error, Exception):
                fan_out.keep(error)
        return end_future(caller, FAILED, (error, error.__traceback__), fan_out)

    cdef bint cancel_request(self, BaseFuture caller) except -1:
        """Let one caller go; the last one takes the request along."""
        cdef FanOut fan_out
        cdef list others
        cdef bint last
        with cython.critical_section(self):
            others = [other for other in self.callers if other is not caller]
            if self.request.entry.status != QUEUED or len(others) == len(self.callers):
                return False
            others, self.callers = self.callers, others
            last = not self.callers
        fan_out = FanOut.__new__(FanOut)
        end_future(caller, CANCELLED, None, fan_out)
        try:
            if last:
                self.sharing.forget(self)
                self.sharing.dispatcher.cancel_request(self.request)
        finally:
            fan_out.wake()
        return True

    cdef bint is_running(self, BaseFuture caller) except -1:
        return self.request.entry.status == RUNNING

    cdef int wait_for(self, BaseFuture future, int64_t until_ns) except -1:
        return self.sharing.dispatcher.wait_for(future, until_ns)


cdef class Sharing:
    """Identical items that wait or run at the same time are computed once.

    Parameters
    ----------
    dispatcher : Dispatcher
    fingerprint : callable
        Item -> what is equal for identical items, and hashable.
    """

    def __init__(self, Dispatcher dispatcher not None, fingerprint not None):
        self.dispatcher = dispatcher
        self.fingerprint = fingerprint
        self.found = {}

    cdef object id_of(self, object item, object key):
        """What is equal for items that may share a computation."""
        cdef object mark = self.fingerprint(item)
        for part in (key, mark):
            try:
                hash(part)
            except TypeError as error:
                if part is key:
                    raise TypeError(
                        f"key must be hashable, such as a string or a tuple, not {key!r}: {error}") from None
                raise TypeError(
                    f"dedupe makes {mark!r} of the item, which is not hashable ({error}); give a function of the item "
                    "that returns something hashable") from None
        return (key, mark)

    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms, bint wait):
        """Queue an item, or join one that is there; return a future of its own either way.

        Where there is no room, `wait` for it, whatever the options say.
        """
        cdef BaseFuture caller = future_on(self.dispatcher, terms)
        key = self.dispatcher.key_of(item, key)
        id = self.id_of(item, key)
        item = self.dispatcher.prepare(item, weight, terms)
        if not self.start(fn, item, key, id, caller, terms):
            if not wait and (not self.dispatcher.block or running_loop() is not None):
                raise self.dispatcher.refuse(1)
            self.share(self.dispatcher.submit_blocking(fn, item, key, terms), fn, item, key, id, caller)
        return caller

    cdef BaseFuture offer(self, object fn, object item, object key, object id, const Terms *terms):
        """Queue a prepared item, or join one that is there; None if there is no room."""
        cdef BaseFuture caller = future_on(self.dispatcher, terms)
        return caller if self.start(fn, item, key, id, caller, terms) else None

    cdef bint start(
        self, object fn, object item, object key, object id, BaseFuture caller, const Terms *terms,
    ) except -1:
        """Have a caller's item computed: join, or queue it; False if there is no room."""
        cdef Shared shared = self.found.get(id)
        cdef BaseFuture request
        if shared is not None and not self.dispatcher.closed and terms.deadline_ns > terms.now_ns:
            if shared.join(caller):
                return True
        request = self.dispatcher.offer(fn, item, key, terms)
        if request is None:
            return False
        self.share(request, fn, item, key, id, caller)
        return True

    cdef int share(
        self, BaseFuture request, object fn, object item, object key, object id, BaseFuture caller,
    ) except -1:
        """Give a request to its first caller, and let others find it."""
        cdef Shared shared = Shared.__new__(Shared)
        cdef Twin twin = Twin.__new__(Twin)
        cdef FanOut fan_out
        shared.sharing = self
        shared.id = id
        shared.request = request
        shared.fn = fn
        shared.item = item
        shared.key = key
        shared.callers = [caller]
        give(caller, shared)
        twin.shared = shared
        self.found[id] = shared     # first: what ends is forgotten
        if not request.listen(twin):
            fan_out = FanOut.__new__(FanOut)
            shared.ended(fan_out)
            fan_out.wake()
        return 0

    cdef int forget(self, Shared shared) except -1:
        """Let nobody find it any more; what its id raises, though it was found once, keeps no caller waiting."""
        try:
            with cython.critical_section(self):
                if self.found.get(shared.id) is shared:
                    self.found.pop(shared.id, None)
        except BaseException as error:
            report(error, self.fingerprint)
        return 0
