"""What is common to every way of running batches; see `dispatcher.pyx`."""

from libc.stdint cimport int64_t

from batchcore.decision cimport Decision
from batchcore.form cimport Form
from batchcore.future cimport Parker
from batchcore.intake cimport Intake
from batchcore.keys cimport KeyLane
from batchcore.machine cimport Flight


cdef class Batch:
    cdef readonly int64_t id            # 1 for the first batch of a scheduler
    cdef readonly object reason         # why it left
    cdef readonly list items            # as they were prepared; taken away by `run`
    cdef list futures                   # of the items, in the same order
    cdef bint left                      # the machine knows that it is done; guarded by the engine's lock
    cdef Flight flight                  # in the machine's list from dispatch until it is left
    cdef readonly object fn             # what to run
    cdef readonly int64_t model_size    # rows that fn is given, filler included
    cdef KeyLane lane                   # what the items share, or None
    cdef Form form
    cdef object collate
    cdef dict spoiled                   # index -> error, of items that could not be rows; None: there are none
    cdef object server                  # for the driver that took it; critical section
    cdef tuple assemble(self, list pieces)
    cpdef object run(self)


cdef class Dispatcher(Intake):
    cdef object collate                 # takes the list of items, returns what fn is given; None: the list
    cdef bint copies                    # results that are arrays are copied
    cdef int64_t items_seen             # in batches
    cdef int64_t rows_made              # for them, filler included
    cdef readonly int64_t wake_at_ns    # what the last `take` that found no batch said; NEVER_NS: an event must come
    # Guarded by the engine's lock: the thread that is asking the user's policy, and is coming; 0: none
    cdef unsigned long asker
    cdef readonly set running           # batches in flight
    cdef Batch spare                    # made before it is known whether there is a batch

    cdef void settle(self, Parker parker) noexcept
    cpdef int hand_over(self) except -1
    cdef int fill(self, Batch batch, const Decision *decision, object fn, KeyLane lane) except -1
    cdef int ask_policy(self, Decision *decision) except -1
    cdef bint leave(self, Batch batch, int64_t failed) except -1
    cdef int tell_policy(self, Batch batch) except -1
    cpdef int let_go(self) except -1
    cdef bint is_quick(self) noexcept
    cpdef Batch take(self, Parker parker=*)
    cpdef int finish(self, Batch batch, object results) except -1
    cpdef int fail(self, Batch batch, object error) except -1
