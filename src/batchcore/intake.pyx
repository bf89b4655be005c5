"""How requests come and go: keyed, prepared, queued, refused, waiting for room, cancelled.

An `Intake` reads the clock and takes the engine's lock.  It knows no batches: those are its `Dispatcher`'s, which it
asks by `signal` to look whether one should leave.

No wake-up is lost.  `coming` is true from the moment somebody is asked to call `take` until, under the lock, `take` has
found nothing to do, or its driver has asked for a successor (`hand_over`); `settle` sets the timer, `armed_ns`, in that
same section.  A submit signals if it changes something before that instant and nobody is coming.  A driver whose helper
may not come after all takes `coming` and the timer back (`CallerDispatcher.due`).

Lock rule: check arguments, lock, call the machine, unlock; only then raise, call back, or drop references.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t

import collections

from batchcore.errors import QueueFull, SchedulerClosed

from batchcore._clock cimport monotonic_ns
from batchcore._lock cimport lock, unlock
from batchcore._types cimport (
    ACCEPTED, Answer, CANCELLED, CLOSED, ENDED, EXPIRED, NEVER_NS, NO_ROOM, SHUT_DOWN, Status,
)
from batchcore.decision cimport machine_next_wakeup_ns
from batchcore.engine cimport Engine, bearable, weight_of
from batchcore.form cimport Piece
from batchcore.future cimport (
    BaseFuture, FanOut, Owner, Parker, end_future, end_futures, insist, new_future, running_loop, take_parker,
)
from batchcore.keys cimport KeyLane
from batchcore.lane cimport Entry, Lane
from batchcore.machine cimport Machine, machine_cancel, machine_clear, machine_reject, machine_submit
from batchcore.recorder cimport Recorder


cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *)


cdef inline void hold(BaseFuture future) noexcept:
    """Let the queue hold a future.  Until it ends it is no garbage, so the collector need not look at it."""
    Py_INCREF(future)
    PyObject_GC_UnTrack(<PyObject *>future)


cdef list futures_of(Engine engine, Entry *chain):
    """The futures of a chain that the machine has let go of; the queue's references to them pass to the list."""
    cdef list futures = []
    while chain != NULL:
        futures.append(<object>chain.owner)
        Py_DECREF(<object>chain.owner)
        if chain.lane.owner != NULL:
            engine.keys.release(chain)
        chain = chain.later
    return futures


cdef class Intake(Owner):
    """What is called once a request."""

    def __init__(self, Engine engine not None, str name not None):
        self.engine = engine
        self.name = name
        self.timeout_ns = NEVER_NS
        self.virtual_ns = NEVER_NS
        self.armed_ns = NEVER_NS
        self.fan_out = FanOut.__new__(FanOut)
        self.room = collections.deque()

    cpdef int signal(self) except -1:
        """Have `take` called soon, by somebody else.  Never blocks for long; may find nobody to ask."""
        raise NotImplementedError

    cdef int64_t now(self) noexcept:
        return monotonic_ns() if self.virtual_ns == NEVER_NS else self.virtual_ns

    def next_wakeup_ns(self):
        """When something happens if no event comes before, ns; None: nothing does."""
        cdef int64_t wake_at_ns
        lock(&self.engine.lock)
        wake_at_ns = machine_next_wakeup_ns(&self.engine.machine)
        unlock(&self.engine.lock)
        return None if wake_at_ns == NEVER_NS else wake_at_ns

    def now_ns(self):
        """The time."""
        return self.now()

    def set_timeout_ns(self, timeout_ns):
        """Set the timeout of requests that name none; None: no timeout."""
        self.timeout_ns = NEVER_NS if timeout_ns is None else timeout_ns

    cdef bint due(self) noexcept:
        """Whether somebody has to be asked to decide; if so, somebody is coming from here on.  Under the lock."""
        cdef Machine *machine = &self.engine.machine
        # A timer that has rung brings nobody any more: whom it brought is `coming`, or has found something to do.
        cdef int64_t armed_ns = self.armed_ns if self.armed_ns > machine.now_ns else NEVER_NS
        if self.coming or machine_next_wakeup_ns(machine) >= armed_ns:
            return False
        self.coming = True
        return True

    cdef int call_server(self, object signal=None) except -1:
        """Signal; if nobody can be started, end everything queued, since nobody would come, and raise why.

        What a signal handler raises on the way comes out when somebody really is coming.
        """
        cdef list interruptions = []
        if signal is None:
            try:
                return self.signal()
            except BaseException as error:
                interruptions.append(error)
                signal = self.signal
        try:
            insist(signal, interruptions)
        except BaseException as error:
            self.nobody_comes()
            self.clear(f"nobody could be started to compute it: {error}")
            raise
        if interruptions:
            raise interruptions[0]
        return 0

    cdef int nobody_comes(self) except -1:
        """Whoever was coming will not."""
        lock(&self.engine.lock)
        self.coming = False
        unlock(&self.engine.lock)
        return 0

    def record(self, Recorder instead, Recorder recorder):
        """Have `recorder`, or nobody, note what is submitted instead of `instead`; False if that is not who does."""
        cdef Recorder _before = None    # let go after the lock
        cdef bint agreed
        lock(&self.engine.lock)
        agreed = self.recorder is instead
        if agreed:
            _before = self.recorder
            self.recorder = recorder
        unlock(&self.engine.lock)
        return agreed

    cdef object key_of(self, object item, object key):
        """The key of a request that was submitted with `key`."""
        return self.key_fn(item) if key is None and self.key_fn is not None else key

    cdef object prepare(self, object item, object weight, Terms *terms):
        """The item as it is queued; writes its weight.  Runs the user's functions, before anything has changed."""
        terms.weight = 1
        if weight is None and self.weight_fn is not None:
            weight = self.weight_fn(item)
        if self.form is not None:
            item = self.form.prepare(item)
            if weight is None and self.engine.machine.config.padded:
                terms.weight = bearable(max((<Piece>item).length, <int64_t>1), &self.engine.machine.config)
        if weight is not None:
            terms.weight = weight_of(weight, &self.engine.machine.config)
        return item

    cdef KeyLane find_lane(self, object item, object key):
        """The lane that a prepared item belongs to; None for the main one."""
        cdef object layout = None if self.form is None else (<Piece>item).layout
        return None if key is None and layout is None else self.engine.keys.find(key, layout)

    cdef int stage(self, object item, KeyLane lane) except -1:
        """Copy a prepared item at once where its form wants that; if that fails, the lane is left."""
        if self.form is not None and self.form.staged:
            try:
                with cython.critical_section(lane):
                    stage = lane.stage
                stage = self.form.stage(<Piece>item, stage)
                with cython.critical_section(lane):
                    stage, lane.stage = lane.stage, stage   # the last one wins
            except BaseException:
                self.engine.keys.leave(lane)
                raise
        return 0

    cdef BaseFuture offer(self, object fn, object item, object key, const Terms *terms):
        """Queue a prepared item; None if there is no room."""
        cdef BaseFuture future = new_future(item, self)
        cdef KeyLane lane = None
        cdef bint signal = False
        cdef Answer answer
        if key is not None or self.form is not None:
            lane = self.find_lane(item, key)
            self.stage(item, lane)
        lock(&self.engine.lock)
        answer = machine_submit(
            &self.engine.machine, terms.now_ns, &self.engine.machine.main if lane is None else &lane.lane,
            &future.entry, terms.deadline_ns, terms.priority, terms.weight)
        if answer == ACCEPTED:
            hold(future)
            if lane is not None:
                Py_INCREF(lane)
            if self.fn is None:
                self.fn = fn
            # Who waits at once, and lends its thread, comes by itself.
            signal = not (terms.blocks and self.lends) and self.due()
        if self.recorder is not None and (answer == ACCEPTED or answer == ENDED):
            self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
        unlock(&self.engine.lock)
        if answer == ACCEPTED:
            if signal:
                self.call_server()
            return future
        if lane is not None:
            self.engine.keys.leave(lane)
        if answer == NO_ROOM:
            return None
        if answer == CLOSED:
            raise self.closed_error()
        end_future(future, EXPIRED, None, None)
        return future

    def closed_error(self):
        return SchedulerClosed(f"scheduler {self.name!r} is shut down and takes no more requests")

    cdef BaseFuture submit(self, object fn, object item, object key, object weight, Terms *terms):
        cdef BaseFuture future
        if self.sorts or weight is not None:
            key = self.key_of(item, key)
            item = self.prepare(item, weight, terms)
        future = self.offer(fn, item, key, terms)
        if future is None:
            if self.block and running_loop() is None:
                return self.submit_blocking(fn, item, key, terms)
            lock(&self.engine.lock)
            if self.recorder is not None:
                self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
            unlock(&self.engine.lock)
            raise self.refuse(1)
        return future

    cdef BaseFuture submit_waiting(self, object fn, object item, object key, object weight, Terms *terms):
        """Like `submit`, but wait for room whatever the options say."""
        cdef BaseFuture future
        key = self.key_of(item, key)
        item = self.prepare(item, weight, terms)
        future = self.offer(fn, item, key, terms)
        return self.submit_blocking(fn, item, key, terms) if future is None else future

    cdef list submit_all(self, object fn, list items, object key, object weight, Terms *terms):
        """Queue all items in one go, or none; where submits wait for room, one by one."""
        cdef BaseFuture future
        cdef bint plain = key is None and weight is None and not self.sorts
        cdef list keys = None if plain else []
        cdef list futures = []
        for item in items:
            if not plain:
                keys.append(self.key_of(item, key))
                item = self.prepare(item, weight, terms)
            future = new_future(item, self)
            future.entry.weight = terms.weight
            futures.append(future)
        if self.block and running_loop() is None:
            return self.submit_each(fn, futures, keys, terms)
        return self.submit_together(fn, futures, self.lanes_of(futures, keys), terms)

    cdef list lanes_of(self, list futures, list keys):
        """The lanes of prepared requests, each None for the main one; or None if that is where all of them belong."""
        cdef BaseFuture future
        cdef KeyLane lane
        cdef list lanes = []
        if self.form is None and (keys is None or all([key is None for key in keys])):
            return None
        try:
            for future, key in zip(futures, keys):
                lane = self.find_lane(future.payload, key)
                lanes.append(lane)
                self.stage(future.payload, lane)
        except BaseException:
            self.leave_lanes(lanes)
            raise
        return lanes

    cdef int leave_lanes(self, list lanes) except -1:
        for lane in set(lanes):
            if lane is not None:
                self.engine.keys.leave(<KeyLane>lane)
        return 0

    cdef list submit_together(self, object fn, list futures, list lanes, const Terms *terms):
        cdef Machine *machine = &self.engine.machine
        cdef BaseFuture future
        cdef Lane *place
        cdef bint signal, fits
        cdef Py_ssize_t i
        lock(&self.engine.lock)
        fits = not machine.closed and (
            terms.deadline_ns <= max(terms.now_ns, machine.now_ns)      # too late already: no room needed
            or len(futures) <= machine.config.max_queue_size - machine.queued)
        for i in range(len(futures) if fits else 0):
            future = <BaseFuture>futures[i]
            place = &machine.main
            if lanes is not None and lanes[i] is not None:
                place = &(<KeyLane>lanes[i]).lane
            if machine_submit(
                    machine, terms.now_ns, place, &future.entry, terms.deadline_ns, terms.priority,
                    future.entry.weight) == ACCEPTED:
                hold(future)
                if place.owner != NULL:
                    Py_INCREF(<object>place.owner)
                if self.fn is None:
                    self.fn = fn
        if self.recorder is not None and not machine.closed:
            for _ in range(len(futures)):
                self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
        signal = fits and self.due()
        unlock(&self.engine.lock)
        if lanes is not None:
            self.leave_lanes(lanes)
        if not fits:
            raise self.closed_error() if machine.closed else self.refuse(len(futures))
        for future in futures:
            if future.entry.status == EXPIRED and future.owner is not None:
                end_future(future, EXPIRED, None, None)
        if signal:
            self.call_server()
        return futures

    cdef list submit_each(self, object fn, list prepared, list keys, Terms *terms):
        """Queue requests one by one, waiting for room; if that fails, take back those that are still queued."""
        cdef BaseFuture one
        cdef BaseFuture future
        cdef list futures = []
        try:
            for i, one in enumerate(prepared):
                key = None if keys is None else keys[i]
                item = one.take_item()
                terms.weight = one.entry.weight
                future = self.offer(fn, item, key, terms)
                futures.append(self.submit_blocking(fn, item, key, terms) if future is None else future)
        except BaseException:
            for future in futures:
                self.cancel_request(future)
            raise
        return futures

    def refuse(self, int64_t n):
        """Count `n` rejections and return the QueueFull to raise."""
        lock(&self.engine.lock)
        machine_reject(&self.engine.machine, n)
        unlock(&self.engine.lock)
        remedy = "raise max_queue_size or shed load"
        if self.block:
            remedy = "on an event loop wait for room with `await scheduler.submit_wait(item)`"
        cdef str state = "queue is full" if n == 1 else f"queue has no room for {n} requests"
        return QueueFull(
            f"{state}: {self.engine.machine.queued} of {self.engine.machine.config.max_queue_size}; {remedy}")

    cdef bint make_room(self) except -1:
        """Run a batch on this thread, if there is one to run."""
        raise NotImplementedError

    cdef BaseFuture submit_blocking(self, object fn, object item, object key, Terms *terms):
        """Sleep until there is room for a prepared item, or the deadline has come."""
        cdef Parker parker
        cdef BaseFuture future
        cdef int64_t left_ns
        while True:
            left_ns = self.before_blocking(None)
            parker = take_parker()
            self.room.append(parker)
            try:
                # Having queued for room first, no room that comes from here on can be missed.
                terms.now_ns = self.now()
                future = self.offer(fn, item, key, terms)
                if future is not None:
                    return future
                if self.lends and self.make_room():
                    continue
                if terms.deadline_ns != NEVER_NS:
                    left_ns = min(left_ns, max(terms.deadline_ns - self.now(), <int64_t>0))
                if not parker.park(left_ns, self.spin_ns):
                    self.heartbeat()
            finally:
                self.leave_room(parker)
                self.after_blocking()

    def seconds_until(self, int64_t deadline_ns):
        """How long until an instant, seconds, never negative; None where there is none."""
        return None if deadline_ns == NEVER_NS else max(deadline_ns - self.now(), <int64_t>0) / 1e9

    def enter_room(self, waiter):
        """Wait for room: `waiter` is called, once, when there is some; it returns False if it was called in vain."""
        self.room.append(waiter)

    def leave_room(self, waiter):
        """Stop waiting for room; a turn that has come already passes to the next."""
        try:
            self.room.remove(waiter)
        except ValueError:
            self.admit()

    cdef int admit(self) except -1:
        """Wake those who wait for room, as many as there is room for."""
        cdef Machine *machine = &self.engine.machine
        cdef int64_t n = machine.config.max_queue_size - machine.queued
        cdef list interruptions = []
        if machine.closed:
            n = len(self.room)
        while n > 0 and self.room:
            try:
                waiter = self.room.popleft()
            except IndexError:
                break
            if insist(waiter, interruptions) is not False:
                n -= 1
        if interruptions:
            raise interruptions[0]
        return 0

    cdef bint cancel_request(self, BaseFuture future) except -1:
        cdef bint cancelled, signal
        lock(&self.engine.lock)
        cancelled = machine_cancel(&self.engine.machine, self.now(), &future.entry)
        signal = cancelled and self.due()
        unlock(&self.engine.lock)
        if cancelled:
            Py_DECREF(future)
            if future.entry.lane.owner != NULL:
                self.engine.keys.release(&future.entry)
            end_future(future, CANCELLED, None, self.fan_out)
            self.fan_out.wake()
            if self.room:
                self.admit()
            if signal:
                self.call_server()
        return cancelled

    def clear(self, words=None):
        """End everything queued: as cancelled or, with `words` to say why, as shut down."""
        cdef Status status = CANCELLED if words is None else SHUT_DOWN
        cdef Entry *chain
        lock(&self.engine.lock)
        chain = machine_clear(&self.engine.machine, self.now(), status)
        unlock(&self.engine.lock)
        try:
            end_futures(futures_of(self.engine, chain), status, words, self.fan_out)
        finally:
            self.admit()
