"""See `recorder.pyx`."""

from libc.stdint cimport int32_t, int64_t

cdef struct Row:
    int64_t arrival_ns
    int64_t deadline_ns     # NEVER_NS: none
    int32_t priority


cdef class Recorder:
    cdef Row *rows
    cdef readonly int64_t count     # of them in use
    cdef int64_t room
    cdef readonly int64_t limit
    cdef readonly int64_t missed    # requests that came after the limit, or for which there was no memory
    cdef int64_t start_ns
    cdef void add(self, int64_t arrival_ns, int64_t deadline_ns, int32_t priority) noexcept
