"""See `custom.pyx`."""

from libc.stdint cimport int64_t

from batchcore._lock cimport Lock
from batchcore.decision cimport Decision
from batchcore.lane cimport Lane
from batchcore.machine cimport Flight, Machine


cdef class View:
    cdef Machine *machine       # NULL: the call that it was made for is over; guarded by the lock
    cdef Lane *lane             # of the requests it is about
    cdef object owner           # of the lane
    cdef Lock *mutex            # of the machine
    cdef object engine          # whose machine and lock they are
    cdef int64_t changes        # of the machine when it was asked
    cdef int64_t batches        # that had left then
    cdef readonly int64_t now_ns
    cdef readonly int64_t queued
    cdef readonly int64_t running
    cdef readonly int64_t in_flight
    cdef readonly int64_t capacity
    cdef readonly int64_t max_batch_size
    cdef readonly int64_t oldest_arrival_ns
    cdef readonly int64_t newest_arrival_ns
    cdef readonly double arrivals_per_second
    cdef int64_t max_wait           # ns; here and below NEVER_NS stands for None
    cdef int64_t max_latency
    cdef int64_t earliest_deadline
    cdef int64_t last_completion
    cdef int enter(self) except -1
    cdef void fill(self) noexcept
    cdef list soonest(self, object n, bint deadlines)


cdef tuple hooks_of(object policy)
cdef int ask(
    object engine, object decider, Machine *machine, Lock *mutex, int64_t now_ns, Decision *decision,
) except -1
cdef int tell(object hook, const Flight *flight) except -1
