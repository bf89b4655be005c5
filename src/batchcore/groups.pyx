"""Futures that are not requests themselves: of many rows that end as one, and of one computation that many share.

Both own futures that people hold (`Owner`) and listen to requests that the engine holds.  A request that ends tells its
`Link`, outside any lock; whatever is decided there is decided once, since a future ends once.
"""

from libc.stdint cimport int64_t

from asyncio import _get_running_loop

from batchcore._types cimport CANCELLED, COMPLETED, EXPIRED, FAILED, NEVER_NS, QUEUED, Status
from batchcore.dispatcher cimport Dispatcher, Terms
from batchcore.future cimport BaseFuture, FanOut, Inner, Owner, end_future, forget_listeners, new_future


cdef class Link(Inner):
    """Tells a group of the end of one of its requests."""
    cdef Rows group
    cdef Py_ssize_t index

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return self.group.row_ended(self.index, future, fan_out)

    cdef int forget(self) except -1:
        return forget_listeners(self.group.whole)


cdef class Rows(Owner):
    """A request of several rows: each is a request of the engine's, and may be in another batch; they end as one."""
    cdef Dispatcher dispatcher
    cdef BaseFuture whole
    cdef list rows          # futures; emptied when the whole has ended
    cdef list results
    cdef Py_ssize_t left    # rows that have not ended
    cdef object merge       # makes the result of a list of those of the rows

    cdef int row_ended(self, Py_ssize_t index, BaseFuture row, FanOut fan_out) except -1:
        cdef Status status = row.entry.status
        if self.whole.owner is None:
            return 0
        if status != COMPLETED:
            self.whole.entry.deadline_ns = row.entry.deadline_ns
            self.whole.entry.arrival_ns = row.entry.arrival_ns
            end_future(self.whole, status, row.payload, fan_out)
            return self.drop()
        self.results[index] = row.payload
        self.left -= 1
        if self.left == 0:
            self.rows = []
            results = self.results
            self.results = None
            try:
                end_future(self.whole, COMPLETED, self.merge(results), fan_out)
            except Exception as error:
                end_future(self.whole, FAILED, (error, error.__traceback__), fan_out)
        return 0

    cdef int drop(self) except -1:
        """Cancel what is still queued; nobody waits for it any more."""
        cdef BaseFuture row
        rows, self.rows = self.rows, []
        self.results = None
        for row in rows:
            if row.owner is not None and row.entry.status == QUEUED:
                row.owner.cancel_request(row)
        return 0

    cdef bint cancel_request(self, BaseFuture whole) except -1:
        """Give up all of it, if any is still queued."""
        cdef FanOut fan_out
        if not any([(<BaseFuture>row).entry.status == QUEUED for row in self.rows]):
            return False
        fan_out = FanOut.__new__(FanOut)
        end_future(whole, CANCELLED, None, fan_out)
        self.drop()
        fan_out.wake()
        return True

    cpdef int64_t before_blocking(self, BaseFuture future) except? -2:
        cdef BaseFuture row
        for row in self.rows:
            if row.owner is not None:
                return self.dispatcher.before_blocking(row)
        return NEVER_NS

    cpdef int after_blocking(self) except -1:
        return self.dispatcher.after_blocking()

    cpdef int heartbeat(self) except -1:
        return self.dispatcher.heartbeat()


cdef BaseFuture submit_rows(
    Dispatcher dispatcher, object fn, list items, object merge, object key, object weight, Terms *terms,
):
    """Queue all items in one go, or none, and return one future for the list of their results."""
    cdef Rows group = Rows.__new__(Rows)
    cdef BaseFuture row
    cdef Link link
    cdef Py_ssize_t i
    group.dispatcher = dispatcher
    group.merge = merge
    group.results = [None] * len(items)
    group.left = len(items)
    group.whole = new_future(None, group)
    group.whole.entry.status = QUEUED
    group.rows = []
    if not items:
        end_future(group.whole, COMPLETED, merge([]), None)
        return group.whole
    rows = dispatcher.submit_all(fn, items, key, weight, terms)
    group.rows = rows
    for i in range(len(rows)):
        row = <BaseFuture>rows[i]
        link = Link.__new__(Link)
        link.group = group
        link.index = i
        if not row.listen(link):
            link.notify(row, None)
    return group.whole


cdef class Twin(Inner):
    """Tells those who share a request of its end."""
    cdef Shared shared

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        return self.shared.ended(fan_out)

    cdef int forget(self) except -1:
        for caller in self.shared.callers:
            forget_listeners(<BaseFuture>caller)
        return 0


cdef class Shared(Owner):
    """One request, and the futures of all who submitted the same item while it was waiting or running."""
    cdef Sharing sharing
    cdef object id
    cdef BaseFuture request
    cdef object fn
    cdef object item        # prepared; None once it has ended
    cdef object key
    cdef list callers       # futures

    cdef bint join(self, BaseFuture caller) noexcept:
        """Let one more have the answer; False if it has come, or is not as urgent as the caller needs it."""
        cdef BaseFuture request = self.request
        if request.owner is None or request.entry.deadline_ns > caller.entry.deadline_ns or (
                request.entry.priority > caller.entry.priority):
            return False
        caller.owner = self
        self.callers.append(caller)
        return True

    cdef int ended(self, FanOut fan_out) except -1:
        """Pass the end on; who still has time when the request has none left is given another."""
        cdef BaseFuture request = self.request
        cdef BaseFuture caller
        cdef list callers = self.callers
        self.callers = []
        self.sharing.forget(self.id, self)
        for caller in callers:
            if request.entry.status == EXPIRED and caller.entry.deadline_ns > request.entry.deadline_ns:
                try:
                    if self.sharing.start(self.fn, self.item, self.key, self.id, caller):
                        continue
                except Exception:
                    pass    # closed, say: then it ends as the request did
            end_future(caller, request.entry.status, request.payload, fan_out)
        self.item = None
        return 0

    cdef bint cancel_request(self, BaseFuture caller) except -1:
        """Let one caller go; the last one takes the request along."""
        cdef FanOut fan_out
        if self.request.entry.status != QUEUED or caller not in self.callers:
            return False
        self.callers.remove(caller)
        if not self.callers:
            self.sharing.forget(self.id, self)
            self.sharing.dispatcher.cancel_request(self.request)
        fan_out = FanOut.__new__(FanOut)
        end_future(caller, CANCELLED, None, fan_out)
        fan_out.wake()
        return True

    cpdef int64_t before_blocking(self, BaseFuture future) except? -2:
        return self.sharing.dispatcher.before_blocking(self.request)

    cpdef int after_blocking(self) except -1:
        return self.sharing.dispatcher.after_blocking()

    cpdef int heartbeat(self) except -1:
        return self.sharing.dispatcher.heartbeat()


cdef class Sharing:
    """Identical items that wait or run at the same time are computed once.

    Parameters
    ----------
    dispatcher : Dispatcher
    id_of : callable
        Item -> what is equal for identical items, and hashable.
    """

    def __init__(self, Dispatcher dispatcher not None, id_of not None):
        self.dispatcher = dispatcher
        self.id_of = id_of
        self.found = {}

    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms):
        """Queue an item, or join one that is there; return a future of its own either way."""
        cdef BaseFuture caller = new_future(None, self.dispatcher)
        cdef Shared shared
        caller.entry.status = QUEUED
        caller.entry.arrival_ns = terms.now_ns
        caller.entry.deadline_ns = terms.deadline_ns
        caller.entry.priority = terms.priority
        key = self.dispatcher.key_of(item, key)
        id = (key, self.id_of(item))
        try:
            shared = self.found.get(id)
        except TypeError as error:
            raise TypeError(
                f"dedupe makes {id[1]!r} of the item, which is not hashable ({error}); give a function of the item "
                "that returns something hashable") from None
        if shared is not None and shared.join(caller):
            return caller
        item = self.dispatcher.prepare(item, weight, terms)
        caller.entry.weight = terms.weight
        if not self.start(fn, item, key, id, caller):
            raise self.dispatcher.refuse(1)
        return caller

    cdef bint start(self, object fn, object item, object key, object id, BaseFuture caller) except -1:
        """Have a caller's item computed: join, or queue it; False if there is no room."""
        cdef Shared shared = self.found.get(id)
        cdef Twin twin
        cdef Terms terms
        if shared is not None and shared.join(caller):
            return True
        shared = Shared.__new__(Shared)
        shared.sharing = self
        shared.id = id
        shared.fn = fn
        shared.item = item
        shared.key = key
        shared.callers = [caller]
        terms.now_ns = self.dispatcher.now()
        terms.deadline_ns = caller.entry.deadline_ns
        terms.priority = caller.entry.priority
        terms.weight = max(caller.entry.weight, 1)
        shared.request = self.dispatcher.offer(fn, item, key, &terms)
        if shared.request is None:
            if not self.dispatcher.block or _get_running_loop() is not None:
                return False
            shared.request = self.dispatcher.submit_blocking(fn, item, key, &terms)
        caller.owner = shared
        self.found[id] = shared
        twin = Twin.__new__(Twin)
        twin.shared = shared
        if not shared.request.listen(twin):
            fan_out = FanOut.__new__(FanOut)
            shared.ended(fan_out)
            fan_out.wake()
        return True

    cdef int forget(self, object id, object shared) except -1:
        if self.found.get(id) is shared:
            del self.found[id]
        return 0
