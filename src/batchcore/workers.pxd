"""Worker threads; see `workers.pyx`."""

from batchcore.dispatcher cimport Batch, Dispatcher
from batchcore.future cimport Parker


cdef class Worker(Parker):
    cdef Batch running  # what it runs now, or None
    cdef unsigned long thread
    cdef int waits      # how many of ThreadDispatcher.blocked it is: a signal handler may wait in a wait
    cdef bint leaving   # there will be no more work


cdef class ThreadDispatcher(Dispatcher):
    cdef list parked        # workers asleep; the last one went to sleep last
    cdef Worker timed       # the one of them that holds the timer, or None
    cdef dict workers       # thread id -> Worker, of every thread that runs
    cdef set threads        # threading.Thread, of every thread that was started and has not left
    cdef int blocked        # workers that wait, inside `fn`, for a request of this scheduler

    cdef int rest(self, Worker worker) except -1
    cdef int execute(self, Batch batch) except -1
