"""Batches that run on their callers' threads; see `callers.pyx`."""

from libc.stdint cimport int64_t

from batchcore.dispatcher cimport Batch
from batchcore.workers cimport ThreadDispatcher, Worker


cdef class Caller(Worker):
    cdef CallerDispatcher dispatcher    # that it is lent to, or None; critical section
    cdef Worker before                  # what its thread already was there, or None
    cdef bint coming                    # it is on this one to decide, or to hand over
    cdef bint listens                   # it is on the chain of a future, or about to be told


cdef class Turn:
    cdef CallerDispatcher dispatcher
    cdef int64_t at_ns                  # instant that it was set for; NEVER_NS: as soon as may be
    cdef bint done


cdef class CallerDispatcher(ThreadDispatcher):
    # Guarded by the engine's lock:
    cdef dict waiting                   # its keys: callers asleep, in the order in which they came
    cdef bint dozing                    # a thread of ours was called, and looks soon
    cdef object host                    # the event loop that asked last, or None
    cdef bint host_comes                # a turn is to come there

    cdef Caller enter(self)
    cdef bint run_one(self) except -1
    cdef int rouse(self, Caller caller) except -1
    cdef int leave_callers(self, Caller caller) except -1
    cdef int lead(self, Caller caller, Batch batch) except -1
    cdef bint call_host(self, object here) except -1
    cdef int take_turn(self, Turn turn) except -1
    cdef int forget_turn(self, Turn turn) except -1
    cdef int lose_turn(self, Turn turn) except -1
    cdef int lose_host(self, object host) except -1
    cdef int dozes(self, bint yes) except -1
    cdef int doze(self) except -1
