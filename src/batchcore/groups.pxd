"""See `groups.pyx`."""

from batchcore.dispatcher cimport Dispatcher, Terms
from batchcore.future cimport BaseFuture


cdef class Sharing:
    cdef Dispatcher dispatcher
    cdef object id_of
    cdef dict found         # id -> Shared, of what waits or runs
    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms)
    cdef bint start(self, object fn, object item, object key, object id, BaseFuture caller) except -1
    cdef int forget(self, object id, object shared) except -1


cdef BaseFuture submit_rows(
    Dispatcher dispatcher, object fn, list items, object merge, object key, object weight, Terms *terms,
)
