"""The Python face of the state machine in `machine.pxd`."""

from libc.stdint cimport int32_t, int64_t

from batchcore._lock cimport Lock
from batchcore.keys cimport Keys, Share
from batchcore.lane cimport Entry
from batchcore.machine cimport Config, Flight, Machine


cdef class Request:
    cdef Entry entry
    cdef const Machine *machine     # where it is queued; compared, never followed


cdef class Running:
    cdef Flight flight
    cdef tuple batch    # requests


cdef class Engine:
    cdef Lock lock          # guards what is marked with L
    cdef Machine machine    # L
    cdef readonly Keys keys
    cdef Share share        # of requests without a key, or None
    cdef object sizes       # array that machine.cost.sizes is the memory of
    cdef object decider_    # L; the user's policy: takes a View, returns what to do; None with one of ours
    cdef object hook        # L; what it wants to be called when a batch has ended, or None
    cdef int64_t changed    # L; how often `machine.config` was changed
    cdef tuple expired      # requests that ended as expired and that no decision has told of yet
    cdef dict in_flight     # batch id -> Running
    cdef int allow(self, object sizes, int64_t max_batch_size) except -1
    cdef tuple let_go(self, Entry *chain)
    cdef object look(self, Machine *copy)
    cdef bint put(
        self, int64_t now_ns, const Config *config, int64_t seen, bint anew, object decider, object hook) except -1


cdef int32_t priority_of(object value) except? -1
cdef int32_t bearable(int64_t weight, const Config *config) except -1
cdef int32_t weight_of(object value, const Config *config) except -1
