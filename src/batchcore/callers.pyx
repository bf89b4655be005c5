"""Batches that run on the threads of their callers: ``run_in="caller"``.

A caller that blocks lends its thread: until its own answer is there it does what a worker thread does.  It takes a
batch and runs it, as leader, or sleeps among the others until one who leaves hands over to it, or the timer rings that
it keeps.  So an idle call changes no thread at all, and a burst has one leader and followers: as in the group commit of
databases, and in flat combining (Hendler et al., SPAA 2010).  The engine's capacity bounds how many lead at once.

An event loop takes turns: a callback runs one batch, on the loop.  What comes from somebody who neither blocks nor runs
a loop is looked after by a worker thread, but not at once, since a submit is often followed by `result`.

What interrupts a leader, a Ctrl-C say, is its own: it comes out of its call, and the others get `BatchAborted`.
"""

cimport cython
from cpython.dict cimport PyDict_Next
from cpython.object cimport PyObject
from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

import sys

from batchcore.current import serving
from batchcore.errors import BatchAborted

from batchcore._clock cimport monotonic_ns
from batchcore._lock cimport lock, unlock
from batchcore._types cimport NEVER_NS
from batchcore.dispatcher cimport Batch
from batchcore.future cimport (
    BaseFuture, FanOut, Owner, Parker, cancellations, give_parker, running_loop, take_parker,
)
from batchcore.workers cimport ThreadDispatcher, Worker

cdef int64_t DOZE_NS = 5_000_000    # how long a submitter has to come back and block
cdef list idle_callers = []


cdef tuple endings():
    """What `fn` may raise; all else interrupts its thread."""
    return (Exception, *cancellations())


cdef class Caller(Worker):
    """A thread that is lent.  It may be woken in vain, and then looks again."""

    cdef int notify(self, BaseFuture future, FanOut fan_out) except -1:
        cdef CallerDispatcher dispatcher
        with cython.critical_section(self):
            dispatcher = self.dispatcher
            self.listens = False
        if dispatcher is not None:
            # It is awake now, and about to leave: nobody should hand over to it.
            lock(&dispatcher.engine.lock)
            dispatcher.waiting.pop(self, None)
            unlock(&dispatcher.engine.lock)
        return self.wake()


cdef class Turn:
    """A callback by which an event loop runs a batch, or sees what there is to do; if its loop drops it, it tells."""

    def __call__(self):
        if not self.done:
            self.done = True
            self.dispatcher.take_turn(self)

    def __del__(self):
        if not self.done and not sys.is_finalizing():
            self.done = True
            self.dispatcher.lose_turn(self)


cdef class CallerDispatcher(ThreadDispatcher):
    """Runs a plain function on the threads and event loops that wait for it."""

    def __cinit__(self):
        self.waiting = {}
        self.lends = True

    cdef bint due(self) noexcept:
        cdef bint alarmed = self.timed is None and self.armed_ns != NEVER_NS
        if (alarmed or self.host_comes) and (self.host is None or self.host is not running_loop()):
            # The loop may be busy, or stopped: nobody else relies on it.
            if alarmed:
                self.armed_ns = NEVER_NS
            if self.host_comes:
                self.coming = False
        return ThreadDispatcher.due(self)

    cpdef int signal(self) except -1:
        """Wake the caller that has waited longest; else have an event loop take a turn, or a worker thread look.

        Where it is another thread's loop, which may be waiting for this thread, the worker looks as well.
        """
        cdef Caller caller = None
        cdef PyObject *first
        cdef Py_ssize_t position = 0
        cdef bint called
        lock(&self.engine.lock)
        if PyDict_Next(self.waiting, &position, &first, NULL):  # for an iterator the collector might run, in here
            caller = <Caller>first
            del self.waiting[caller]
            caller.coming = True
        unlock(&self.engine.lock)
        if caller is not None:
            return caller.wake()
        here = running_loop()
        called = self.call_host(here) and here is not None
        lock(&self.engine.lock)
        called = called or self.dozing
        if not called:
            self.dozing = len(self.parked) > 0
        unlock(&self.engine.lock)
        return 0 if called else ThreadDispatcher.signal(self)

    # --- threads

    cdef int wait_for(self, BaseFuture future, int64_t until_ns) except -1:
        """Work until `future` has ended; in `fn`, and on threads of our own, only wait."""
        cdef Worker worker = self.workers.get(PyThread_get_thread_ident())
        cdef Caller caller
        cdef Batch batch
        cdef int64_t sleep_ns
        if worker is not None:
            if isinstance(worker, Caller):
                self.rouse(<Caller>worker)  # it sleeps, where a signal handler is what came here
            self.hand_over()    # if it was on this thread to decide
            return Owner.wait_for(self, future, until_ns)
        caller = self.enter()
        try:
            while future.owner is not None:
                if until_ns != NEVER_NS and monotonic_ns() >= until_ns:
                    raise TimeoutError
                caller.coming = True
                batch = self.take(caller)
                if batch is not None:
                    self.lead(caller, batch)
                    batch = None
                    continue
                if not caller.listens:
                    caller.listens = True   # before it is on the chain: whoever tells it says no
                    if not future.listen(caller):
                        caller.listens = False
                        break
                sleep_ns = NEVER_NS if until_ns == NEVER_NS else until_ns - monotonic_ns()
                if caller is self.timed:
                    sleep_ns = min(sleep_ns, self.armed_ns - monotonic_ns())
                caller.park(max(sleep_ns, <int64_t>0), self.spin_ns)
                self.rouse(caller)
        finally:
            if caller.listens and future.unlisten(caller):
                caller.listens = False
            self.leave_callers(caller)
        return 0

    cdef bint make_room(self) except -1:
        return PyThread_get_thread_ident() not in self.workers and self.run_one()

    cdef bint run_one(self) except -1:
        """Run a batch on this thread, if there is one to run."""
        cdef Caller caller = self.enter()
        cdef Batch batch
        try:
            caller.coming = True
            batch = self.take()
            if batch is not None:
                self.lead(caller, batch)
        finally:
            self.leave_callers(caller)
        return batch is not None

    cdef Caller enter(self):
        """Lend this thread."""
        cdef Caller caller
        try:
            caller = <Caller>idle_callers.pop()
        except IndexError:
            caller = Caller.__new__(Caller)
        caller.dispatcher = self
        caller.thread = PyThread_get_thread_ident()
        caller.before = self.workers.get(caller.thread)
        caller.coming = False
        self.workers[caller.thread] = caller
        return caller

    cdef int leave_callers(self, Caller caller) except -1:
        """Take the thread back; what was on it passes to another."""
        self.rouse(caller)
        if caller.before is None:
            self.workers.pop(caller.thread, None)
        else:
            self.workers[caller.thread] = caller.before
        with cython.critical_section(caller):
            caller.dispatcher = None    # not the last reference
        caller.before = None
        try:
            if caller.coming:
                self.hand_over()
        finally:
            if not caller.listens:  # else whoever took it off a chain has yet to tell it
                idle_callers.append(caller)
        return self.let_go()

    cdef void settle(self, Parker parker) noexcept:
        """Lay a caller to sleep, as the keeper of the timer if there is none that is early enough; None: a loop.

        No thread relies on the timer of a loop.
        """
        if parker is not None and self.timed is None:
            self.armed_ns = NEVER_NS
        if isinstance(parker, Caller):
            (<Caller>parker).coming = False
            self.waiting[parker] = None
        elif parker is not None:
            self.dozing = False     # else who calls next might rely on it though it sleeps
            ThreadDispatcher.settle(self, parker)
            return
        if self.wake_at_ns < self.armed_ns:
            self.armed_ns = self.wake_at_ns
            self.timed = <Worker>parker

    cdef int rouse(self, Caller caller) except -1:
        """Let a caller sleep no longer: if it has the timer, that is on it."""
        lock(&self.engine.lock)
        self.waiting.pop(caller, None)
        if caller is self.timed:
            self.timed = None
            self.armed_ns = NEVER_NS
            caller.coming = True
        unlock(&self.engine.lock)
        return 0

    cdef int lead(self, Caller caller, Batch batch) except -1:
        """Run `fn` on a batch, here; what interrupts this thread comes out."""
        token = serving.set(caller)
        try:
            self.hand_over()
            caller.running = batch
            try:
                results = batch.run()
            except endings() as error:
                self.fail(batch, error)
            else:
                self.finish(batch, results)
        except BaseException as error:
            aborted = BatchAborted("the thread that ran the batch was interrupted")
            aborted.__cause__ = error
            self.fail(batch, aborted)   # what is left of it
            raise
        finally:
            caller.running = None
            serving.reset(token)
        return 0

    # --- event loops

    cdef bint call_host(self, object here) except -1:
        """Have the event loop that runs here, or the one that asked last, take a turn; False: there is none."""
        cdef Turn turn
        cdef Worker worker
        cdef object before = None   # let go after the lock
        cdef object host = here
        cdef bint comes
        if here is not None:
            worker = self.workers.get(PyThread_get_thread_ident())
            if worker is not None and worker.running is not None:
                return False    # fn may wait here for what it submits
        lock(&self.engine.lock)
        before = self.host
        if host is None:
            host = before
        comes = self.host_comes and host is before
        self.host = host
        self.host_comes = host is not None
        unlock(&self.engine.lock)
        if host is None or comes:
            return comes and here is not None
        turn = Turn.__new__(Turn)
        turn.dispatcher = self
        turn.at_ns = NEVER_NS
        try:
            if here is not None:
                host.call_soon(turn)
            elif host.is_running():     # else it may be closed
                host.call_soon_threadsafe(turn)
            else:
                raise RuntimeError
        except RuntimeError:    # closed since we looked
            turn.done = True
            self.lose_host(host)
            return False
        except BaseException:   # a Ctrl-C on the way: we are called again
            turn.done = True
            self.forget_turn(turn)
            raise
        return True

    cdef int lose_host(self, object host) except -1:
        """No turn comes on this loop."""
        cdef object _before = None   # let go after the lock
        lock(&self.engine.lock)
        if self.host is host:
            _before = self.host
            self.host = None
            self.host_comes = False
        unlock(&self.engine.lock)
        return 0

    cdef int take_turn(self, Turn turn) except -1:
        """Run a batch on this loop, or set its timer."""
        cdef Turn timer
        cdef int64_t before_ns, at_ns
        cdef object here = running_loop()
        cdef object _before = None   # let go after the lock
        self.forget_turn(turn)
        lock(&self.engine.lock)
        _before = self.host
        self.host = here
        before_ns = self.armed_ns
        unlock(&self.engine.lock)
        if self.run_one():
            return 0
        lock(&self.engine.lock)
        at_ns = self.armed_ns if self.timed is None else NEVER_NS
        unlock(&self.engine.lock)
        if at_ns not in (before_ns, NEVER_NS):
            timer = Turn.__new__(Turn)
            timer.dispatcher = self
            timer.at_ns = at_ns
            here.call_later(max(at_ns - self.now(), <int64_t>0) / 1e9, timer)
        return 0

    cdef int forget_turn(self, Turn turn) except -1:
        """This turn is not to come any more."""
        lock(&self.engine.lock)
        if turn.at_ns == NEVER_NS:
            self.host_comes = False
        elif self.timed is None and self.armed_ns == turn.at_ns:
            self.armed_ns = NEVER_NS
        unlock(&self.engine.lock)
        return 0

    cdef int lose_turn(self, Turn turn) except -1:
        """The loop of this turn was closed: carry on elsewhere."""
        self.forget_turn(turn)
        self.start_over(self.signal)
        return 0

    # --- worker threads

    cdef int rest(self, Worker worker) except -1:
        worker.nap_ns = DOZE_NS
        ThreadDispatcher.rest(self, worker)
        self.dozes(False)
        return 0

    cdef int dozes(self, bint yes) except -1:
        lock(&self.engine.lock)
        self.dozing = yes
        unlock(&self.engine.lock)
        return 0

    def run(self):
        self.doze()
        ThreadDispatcher.run(self)

    cdef int execute(self, Batch batch) except -1:
        """Run a batch; then let those who wait go on by themselves."""
        ThreadDispatcher.execute(self, batch)
        if self.waiting:
            self.hand_over()
            self.doze()
        return 0

    cdef int doze(self) except -1:
        """Wait a moment for those who may come and block."""
        cdef Parker parker = take_parker()
        self.dozes(True)
        parker.park(DOZE_NS, 0)
        give_parker(parker)
        self.dozes(False)
        return 0

    def after_fork(self):
        self.waiting = {}
        self.dozing = self.host_comes = False
        self.host = None
        ThreadDispatcher.after_fork(self)
