"""See `submitter.pyx`."""

from batchcore.dispatcher cimport Dispatcher
from batchcore.future cimport BaseFuture
from batchcore.groups cimport Sharing
from batchcore.intake cimport Terms


cdef class Submitter:
    cdef readonly Dispatcher dispatcher
    cdef readonly object fn             # the user's function
    cdef Sharing sharing                # or None
    cdef Dispatcher ready(self)
    cdef BaseFuture submit_waiting(self, object item, object timeout_ms, object priority, object key, object weight)
    cdef int agree(self, Terms *terms, object timeout_ms, object priority) except -1
