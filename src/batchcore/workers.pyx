"""Worker threads: an idle one asks the engine itself and runs what it gets; there is no dispatcher thread in between.

Threads are started when a signal finds nobody to wake, up to the engine's capacity and one more once deadlines are in
use: with every worker busy somebody must still expire the queue in time.  All run the same loop; the engine's capacity
bounds how many run `fn`.  At most one sleeping worker holds the timer, the others sleep until they are called.

The loop is compiled because with small batches it is a large part of a request's cost.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport int64_t

import threading

from batchcore.current import serving
from batchcore.errors import WouldDeadlock

from batchcore._clock cimport monotonic_ns
from batchcore._lock cimport lock, unlock
from batchcore._types cimport NEVER_NS
from batchcore.dispatcher cimport Batch, Dispatcher
from batchcore.future cimport BaseFuture, Parker, held_futures, report
from batchcore.queue cimport queue_peek


cdef class Worker(Parker):
    @property
    def batch(self):
        """What it runs now; None on other threads, which may have a copy of its context and outlive its batch."""
        return self.running if self.thread == PyThread_get_thread_ident() else None


cdef class ThreadDispatcher(Dispatcher):
    """Runs a plain function on threads of its own."""

    def __cinit__(self):
        self.parked = []
        self.workers = {}
        self.threads = set()

    cpdef int signal(self) except -1:
        """Wake a sleeping worker, rather not the one with the timer, or start one; if all are busy, they will look."""
        cdef Worker worker = None
        cdef bint start = False
        cdef Py_ssize_t last, place, limit
        lock(&self.engine.lock)
        if self.parked:
            last = len(self.parked) - 1
            place = last
            if last > 0 and self.parked[last] is self.timed:
                place = 0
            worker = self.parked.pop(place)
        else:
            limit = self.engine.machine.config.capacity + (queue_peek(&self.engine.machine.late) != NULL)
            start = len(self.threads) < limit
            self.coming = start
        unlock(&self.engine.lock)
        if worker is not None:
            worker.wake()
        elif start:
            self.start()
        return 0

    def start(self):
        """Start a worker thread."""
        thread = threading.Thread(target=self.run, name=f"pybatch-{self.name}-{len(self.threads)}", daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except BaseException as error:
            self.threads.discard(thread)
            if thread.ident in self.workers:    # interrupted after all was done
                self.threads.add(thread)
            if thread.ident is not None or not isinstance(error, RuntimeError) or not self.threads:
                raise
            self.nobody_comes()     # there are no more threads to be had: those that are will do

    def run(self):
        """The life of a worker thread."""
        cdef Worker worker = Worker.__new__(Worker)
        cdef Batch batch
        me = worker.thread = PyThread_get_thread_ident()
        thread = threading.current_thread()
        self.workers[me] = worker
        serving.set(worker)
        self.threads.add(thread)    # again: its start may have been given up
        try:
            while not worker.leaving:
                try:
                    batch = self.take(worker)
                except BaseException as error:
                    report(error, self)
                    continue
                if batch is not None:
                    worker.running = batch
                    self.execute(batch)
                    worker.running = batch = None
                elif not worker.leaving:
                    self.rest(worker)
        finally:
            self.nobody_comes()
            self.call_all()     # if there is no more work, it is so for all
            self.workers.pop(me, None)
            self.threads.discard(thread)

    cdef void settle(self, Parker parker) noexcept:
        """Lay the worker to sleep, as the keeper of the timer if there is none that is early enough."""
        if self.engine.machine.closed and self.engine.machine.queued == 0:
            (<Worker>parker).leaving = True
            return
        self.parked.append(parker)
        if self.wake_at_ns < self.armed_ns:
            self.armed_ns = self.wake_at_ns
            self.timed = <Worker>parker

    cdef int rest(self, Worker worker) except -1:
        """Sleep until called, or until the timer if this worker holds it."""
        cdef int64_t left_ns = NEVER_NS
        cdef bint called
        self.let_go()
        if worker is self.timed:
            left_ns = max(self.armed_ns - monotonic_ns(), <int64_t>0)
        called = worker.park(left_ns, self.spin_ns)
        lock(&self.engine.lock)
        if worker is self.timed:
            self.timed = None
            self.armed_ns = NEVER_NS
        if worker in self.parked:
            self.parked.remove(worker)
            called = True
        unlock(&self.engine.lock)
        if not called:
            worker.park(NEVER_NS, 0)   # it was called just after the timer: take that call too
        return 0

    cdef int execute(self, Batch batch) except -1:
        """Run `fn` on a batch; whatever it does, the batch ends and the worker lives on."""
        try:
            self.hand_over()
            try:
                results = batch.run()
            except BaseException as error:
                self.fail(batch, error)
            else:
                self.finish(batch, results)
        except BaseException as error:
            report(error, self)
            self.fail(batch, error)     # what is left of it
        return 0

    def close(self):
        try:
            Dispatcher.close(self)
        finally:
            self.call_all()

    def call_all(self):
        """Wake every sleeping worker, so that it sees that it may leave."""
        cdef Worker worker
        cdef list workers = []
        lock(&self.engine.lock)
        workers, self.parked = self.parked, workers
        unlock(&self.engine.lock)
        for worker in workers:
            worker.wake()

    def join(self, timeout=None):
        """Wait for the threads to leave, but never for the one that calls; after `close`."""
        cdef int64_t until_ns = NEVER_NS if timeout is None else monotonic_ns() + <int64_t>(timeout * 1e9)
        for thread in list(self.threads):
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(None if timeout is None else max(until_ns - monotonic_ns(), <int64_t>0) / 1e9)

    def after_fork(self):
        self.parked = []
        self.workers = {}
        self.threads = set()
        self.timed = None
        self.blocked = 0
        Dispatcher.after_fork(self)

    cpdef int64_t before_blocking(self, BaseFuture future) except? -2:
        cdef Worker worker = self.workers.get(PyThread_get_thread_ident())
        cdef bint granted
        if worker is None:
            return NEVER_NS
        if self.asker == PyThread_get_thread_ident():
            raise WouldDeadlock(f"the policy of scheduler {self.name!r} waits for what it has to decide")
        if worker.running is None:
            return NEVER_NS
        if future in held_futures(worker.running.futures):
            raise WouldDeadlock("fn waits for a request of the batch that it is computing")
        lock(&self.engine.lock)
        granted = self.blocked + 1 < max(self.engine.machine.config.capacity, self.engine.machine.in_flight)
        self.blocked += granted
        unlock(&self.engine.lock)
        worker.waits += granted
        if not granted:
            raise WouldDeadlock(
                f"fn waits for another request of its own scheduler {self.name!r}, and no worker is left to "
                f"compute it; raise max_concurrent_batches or do not wait inside fn")
        return NEVER_NS

    cpdef int after_blocking(self) except -1:
        cdef Worker worker = self.workers.get(PyThread_get_thread_ident())
        if worker is not None and worker.waits > 0:
            worker.waits -= 1
            lock(&self.engine.lock)
            self.blocked -= 1
            unlock(&self.engine.lock)
        return 0
