"""See `submitter.pyx`."""

from libc.stdint cimport int64_t

from batchcore.dispatcher cimport Dispatcher


cdef class Submitter:
    cdef readonly Dispatcher dispatcher
    cdef readonly object fn             # the user's function
    cdef Dispatcher ready(self)
    cdef int64_t deadline_from(self, int64_t now_ns, object timeout_ms) except? -1
