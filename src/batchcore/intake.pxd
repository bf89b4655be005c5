"""What is called once a request; see `intake.pyx`."""

from libc.stdint cimport int32_t, int64_t

from batchcore.engine cimport Engine
from batchcore.form cimport Form
from batchcore.future cimport BaseFuture, FanOut, Owner
from batchcore.keys cimport KeyLane
from batchcore.lane cimport Entry
from batchcore.recorder cimport Recorder


cdef struct Terms:              # how a request wants to be served
    int64_t now_ns
    int64_t deadline_ns         # NEVER_NS: none
    int32_t priority
    int32_t weight
    bint blocks                 # whoever submits it waits for it at once


cdef class Intake(Owner):
    cdef object __weakref__
    cdef readonly Engine engine
    cdef object fn                      # the user's function; None while nothing is queued
    cdef public str name                # for messages
    cdef int64_t timeout_ns             # of a request that names none; NEVER_NS: none
    cdef public bint block              # on_full="block"
    cdef bint lends                     # who waits for an answer computes it
    cdef bint sorts                     # one of those below is there
    cdef readonly Form form             # how items become arrays; None: fn is given a list, or what `collate` makes
    cdef object key_fn                  # item -> key; None: only submit tells
    cdef object weight_fn               # item -> weight; None: 1, or the length that is padded
    cdef public int64_t virtual_ns      # the time, where a test keeps it; NEVER_NS: the clock tells
    cdef FanOut fan_out
    # Guarded by the engine's lock, as is `fn`:
    cdef int64_t armed_ns               # a timer is set for this instant; NEVER_NS: none
    cdef bint coming                    # somebody is about to decide
    cdef Recorder recorder              # notes what is submitted; None: nobody wants it
    cdef object room                    # deque of callables, one for each who waits for room in the queue

    cdef int64_t now(self) noexcept
    cdef bint due(self) noexcept
    cpdef int signal(self) except -1
    cdef int call_server(self, object signal=*) except -1
    cdef object key_of(self, object item, object key)
    cdef object prepare(self, object item, object weight, Terms *terms)
    cdef KeyLane find_lane(self, object item, object key)
    cdef int stage(self, object item, KeyLane lane) except -1
    cdef BaseFuture offer(self, object fn, object item, object key, const Terms *terms)
    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms)
    cdef BaseFuture submit_waiting(self, object fn, object item, object key, object weight, Terms *terms)
    cdef bint make_room(self) except -1
    cdef BaseFuture submit_blocking(self, object fn, object item, object key, Terms *terms)
    cdef list submit_all(self, object fn, list items, object key, object weight, Terms *terms)
    cdef list lanes_of(self, list futures, list keys)
    cdef int leave_lanes(self, list lanes) except -1
    cdef list submit_together(self, object fn, list futures, list lanes, const Terms *terms)
    cdef list submit_each(self, object fn, list prepared, list keys, Terms *terms)
    cdef int admit(self) except -1
    cdef int nobody_comes(self) except -1


cdef list futures_of(Engine engine, Entry *chain)
