"""The Python face of the state machine in `machine.pxd`."""

from libc.stdint cimport int32_t, int64_t

from batchcore.machine cimport Entry, Machine


cdef class Request:
    cdef Entry entry
    cdef const Machine *machine     # where it is queued; compared, never followed


cdef class Engine:
    cdef Machine machine
    cdef dict in_flight    # batch id -> (dispatched_at_ns, requests); only for batches that `decide` handed to Python


cdef int32_t priority_of(object value) except? -1
cdef tuple requests_of(Entry *chain)
