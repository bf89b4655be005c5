"""Batches that run on event loops; see `loops.pyx`."""

from batchcore.dispatcher cimport Batch, Dispatcher


cdef class Nudge:
    cdef object __weakref__
    cdef object dispatcher  # weak: what is queued keeps it alive
    cdef readonly object loop
    cdef object server      # coroutine, once started
    cdef bint done


cdef class Serving:
    cdef readonly object loop
    cdef object task            # held, since asyncio does not: else the collector could take it in the middle
    cdef Batch running          # None once it has ended; critical section


cdef class LoopDispatcher(Dispatcher):
    cdef object host        # loop where servers start, or None; guarded by the engine's lock
    cdef dict threads       # of our own: at most one, "own"
    cdef tuple timer        # when it rings, and weakly its nudge and its handle; or None; critical section
    cdef object watches     # loop, weakly -> weakly the handle of the nudge that tells of its closing
    cdef object me          # weakly this

    cdef Nudge nudge(self, object loop)
    cdef int start_server(self, object host, object here) except -1
    cdef object choose(self, object here)
    cdef object where(self)
    cdef int move(self, object host) except -1
    cdef int lose(self, object loop) except -1
    cdef int watch(self, object loop) except -1
    cdef object own_loop(self)
    cdef int serve_on(self, Nudge nudge) except -1
    cdef int set_timer(self, object loop, object when) except -1
    cdef bint shrugs_off(self, object error, object loop) except -1
    cdef int leave_loop(self, object loop) except -1
    cdef int sweep(self) except -1
    cdef int stop_if_done(self) except -1
