"""What is common to every way of running batches; see `dispatcher.pyx`."""

from libc.stdint cimport int32_t, int64_t

from batchcore._lock cimport Lock
from batchcore.engine cimport Engine
from batchcore.decision cimport Decision
from batchcore.machine cimport Flight
from batchcore.future cimport BaseFuture, FanOut, Owner, Parker
from batchcore.form cimport Form
from batchcore.keys cimport KeyLane
from batchcore.recorder cimport Recorder


cdef struct Terms:              # how a request wants to be served
    int64_t now_ns
    int64_t deadline_ns         # NEVER_NS: none
    int32_t priority
    int32_t weight


cdef class Batch:
    cdef readonly int64_t id            # 1 for the first batch of a scheduler
    cdef readonly object reason         # why it left
    cdef readonly list items            # as they were prepared; taken away by `run`
    cdef list futures                   # of the items, in the same order
    cdef bint left                      # the machine knows that it is done
    cdef Flight flight                  # in the machine's list from dispatch until it is left
    cdef readonly object fn             # what to run
    cdef readonly int64_t model_size    # rows that fn is given, filler included
    cdef KeyLane lane                   # what the items share, or None
    cdef Form form
    cdef object collate
    cdef dict spoiled                   # index -> error, of items that could not be rows; None: there are none
    cdef readonly object server         # who took it, if `take` was told
    cdef tuple assemble(self, list pieces)
    cpdef object run(self)


cdef class Dispatcher(Owner):
    cdef object __weakref__
    cdef readonly Engine engine
    cdef object fn                      # the user's function; None while nothing is queued
    cdef public str name                # for messages
    cdef int64_t timeout_ns      # of a request that names none; NEVER_NS: none
    cdef public bint block              # on_full="block"
    cdef bint sorts                     # one of those below is there
    cdef readonly Form form             # how items become arrays; None: fn is given a list, or what `collate` makes
    cdef object collate                 # takes the list of items, returns what fn is given; None: the list
    cdef object key_fn                  # item -> key; None: only submit tells
    cdef object weight_fn               # item -> weight; None: 1, or the length that is padded
    cdef bint copies                    # results that are arrays are copied
    cdef int64_t items_seen             # in batches
    cdef int64_t rows_made              # for them, filler included
    cdef readonly int64_t wake_at_ns    # what the last `take` that found no batch said; NEVER_NS: an event must come
    cdef public int64_t virtual_ns      # the time, where a test keeps it; NEVER_NS: the clock tells
    cdef Lock lock                      # guards the machine and the fields below
    cdef int64_t armed_ns               # a timer is set for this instant; NEVER_NS: none
    cdef bint coming                    # somebody is about to decide
    cdef unsigned long asker            # thread that is asking the user's policy, and is coming; 0: none
    cdef readonly set running           # batches in flight
    cdef Batch spare                    # made before it is known whether there is a batch
    cdef FanOut fan_out
    cdef public Recorder recorder       # notes what is submitted; None: nobody wants it
    cdef object room                    # deque of callables, one for each who waits for room in the queue

    cdef int64_t now(self) noexcept
    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms)
    cdef list submit_all(self, object fn, list items, object key, object weight, Terms *terms)
    cdef list lanes_of(self, list futures, list keys)
    cdef int leave_lanes(self, list lanes) except -1
    cdef list submit_together(self, object fn, list futures, list lanes, const Terms *terms)
    cdef list submit_each(self, object fn, list prepared, list keys, Terms *terms)
    cdef BaseFuture submit_waiting(self, object fn, object item, object key, object weight, Terms *terms)
    cdef object key_of(self, object item, object key)
    cdef object prepare(self, object item, object weight, Terms *terms)
    cdef KeyLane find_lane(self, object item, object key)
    cdef int stage(self, object item, KeyLane lane) except -1
    cdef BaseFuture offer(self, object fn, object item, object key, const Terms *terms)
    cdef BaseFuture submit_blocking(self, object fn, object item, object key, Terms *terms)
    cdef bint due(self) noexcept
    cdef int call_server(self, object signal=*) except -1
    cdef void settle(self, Parker parker) noexcept
    cpdef int hand_over(self) except -1
    cdef int admit(self) except -1
    cdef int fill(self, Batch batch, const Decision *decision, object fn, KeyLane lane) except -1
    cdef int ask_policy(self, Decision *decision) except -1
    cdef bint leave(self, Batch batch, int64_t failed) except -1
    cdef int tell_policy(self, Batch batch) except -1
    cpdef int let_go(self) except -1
    cpdef int signal(self) except -1
    cpdef Batch take(self, Parker parker=*, object server=*)
    cpdef int finish(self, Batch batch, object results) except -1
    cpdef int fail(self, Batch batch, object error) except -1
