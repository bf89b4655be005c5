"""The future of a request, and who is told when it ends."""

from cpython.pythread cimport PyThread_type_lock
from libc.stdint cimport int64_t

from batchcore._types cimport Status
from batchcore.engine cimport Request


cdef class Owner:
    """What a future needs of its dispatcher."""
    cdef public int64_t spin_ns     # how long a thread looks out before it sleeps
    cdef bint cancel_request(self, BaseFuture future) except -1
    cdef bint is_running(self, BaseFuture future) except -1
    cpdef int64_t before_blocking(self, BaseFuture future) except? -2
    cpdef int after_blocking(self) except -1
    cpdef int heartbeat(self) except -1
    cdef int wait_for(self, BaseFuture future, int64_t until_ns) except -1


cdef class Listener:
    """Somebody to tell, once, that a future has ended.  A link of a chain that hangs on the future."""
    cdef Listener next
    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1


cdef class Inner(Listener):
    """One by which a request that nobody holds speaks for futures that people hold."""
    cdef list held(self)


cdef class Parker(Listener):
    """A place for one thread to sleep until it is woken; reused through `take_parker` and `give_parker`."""
    cdef PyThread_type_lock sleep   # held while asleep; released to wake
    cdef bint woken                 # `sleep` has been released and not yet taken again; critical section
    cdef int64_t nap_ns             # how long it sleeps on when it is woken
    cdef int wake(self) except -1
    cdef bint park(self, int64_t timeout_ns, int64_t spin_ns) except -1
    cdef bint look_out(self, int64_t until_ns) noexcept


cdef class Awaiter(Listener):
    """What one `await` gives to its task: as much of an asyncio.Future as asyncio.Task needs."""
    cdef public bint _asyncio_future_blocking
    cdef BaseFuture future
    cdef object loop
    cdef object callback
    cdef object context
    cdef object message     # of the cancellation
    cdef bint woken
    cdef bint cancelled_
    cdef int wake(self) except -1


cdef class FanOut:
    """Awaiters to be woken, by event loop, so that each loop is woken once."""
    cdef dict scheduled     # loop -> its awaiters; a wake-up of the loop is under way or in `fresh`
    cdef list fresh         # loops whose wake-up `wake` has to schedule
    cdef object error       # the first that came out of a listener; `wake` raises it; critical section, all three
    cdef int add(self, Awaiter awaiter) except -1
    cdef int wake(self) except -1
    cdef int keep(self, object error) except -1
    cdef int wake_again(self, object schedule, object loop, object error) except -1


cdef class BaseFuture(Request):
    cdef Owner owner        # None once ended
    cdef object payload     # item while queued; result; (exception, traceback); or the words of a shutdown
    cdef Listener listeners     # chain, newest first
    cdef bint listen(self, Listener listener) except -1
    cdef bint unlisten(self, Listener listener) except -1
    cdef int wait(self, object timeout) except -1
    cdef object outcome(self)
    cdef object take_item(self)


cdef object running_loop()
cdef tuple cancellations()
cdef Parker take_parker()
cdef int give_parker(Parker parker) except -1
cdef int report(object error, object source) except -1
cdef object insist(object call, list interruptions)
cdef BaseFuture new_future(object item, Owner owner)
cdef int end_future(BaseFuture future, Status status, object payload, FanOut fan_out) except -1
cdef list held_futures(list requests)
cdef int forget_listeners(BaseFuture future) except -1
cdef int end_futures(list futures, Status status, object payload, FanOut fan_out) except -1
