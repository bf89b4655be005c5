"""See `groups.pyx`."""

from batchcore.dispatcher cimport Dispatcher
from batchcore.future cimport BaseFuture, FanOut, Owner
from batchcore.intake cimport Terms


cdef class Sharing:
    cdef Dispatcher dispatcher
    cdef object fingerprint
    cdef dict found         # id -> Shared, of what waits or runs
    cdef object id_of(self, object item, object key)
    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms, bint wait)
    cdef BaseFuture offer(self, object fn, object item, object key, object id, const Terms *terms)
    cdef bint start(
        self, object fn, object item, object key, object id, BaseFuture caller, const Terms *terms,
    ) except -1
    cdef int share(
        self, BaseFuture request, object fn, object item, object key, object id, BaseFuture caller,
    ) except -1
    cdef int forget(self, Shared shared) except -1


cdef class Shared(Owner):
    cdef Sharing sharing
    cdef object id
    cdef BaseFuture request
    cdef object fn
    cdef object item        # prepared; None once it has ended
    cdef object key
    cdef list callers       # futures, critical section; none: it has ended, or the last of them has given it up
    cdef bint join(self, BaseFuture caller) except -1
    cdef int ended(self, FanOut fan_out) except -1
    cdef int start_again(self, BaseFuture caller, FanOut fan_out) except -1


cdef BaseFuture submit_rows(
    Dispatcher dispatcher, object fn, list items, object merge, object key, object weight, Terms *terms,
)
