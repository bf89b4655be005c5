"""See `submitter.pyx`."""

from batchcore.dispatcher cimport Dispatcher
from batchcore.groups cimport Sharing
from batchcore.intake cimport Terms


cdef class Submitter:
    cdef readonly Dispatcher dispatcher
    cdef readonly object fn             # the user's function
    cdef Sharing sharing                # or None
    cdef Dispatcher ready(self)
    cdef int agree(self, Terms *terms, object timeout_ms, object priority) except -1
