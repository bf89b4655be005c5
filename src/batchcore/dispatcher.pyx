"""From submit to result: the engine, a clock, the futures and the user's `fn`, but no thread and no event loop.

A `Dispatcher` reads the clock, holds the lock, and gives what the engine decided to whoever drives it.  A driver calls
`take` for the next batch, runs `fn`, and calls `finish` or `fail`; it overrides `signal`, which asks for a call of
`take` from somewhere else.  Drivers: `workers.pyx` (threads) and `pybatch.drivers.aio` (event loops).

No wake-up is lost.  `coming` is true from the moment somebody is asked to call `take` until, under the lock, `take` has
found nothing to do, or its driver has asked for a successor (`hand_over`); `settle` sets the timer, `armed_ns`, in that
same section.  A submit signals if it changes something before that instant and nobody is coming.

Lock rule: check arguments, lock, call the machine, unlock; only then raise, call back, or drop references.
"""

from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t

import asyncio
import collections
from asyncio import _get_running_loop

from batchcore.errors import BatchAborted, QueueFull, SchedulerClosed
from batchcore.records import REASONS

cdef extern from "Python.h":
    bint PyExceptionInstance_Check(object)
    bint PyErr_GivenExceptionMatches(object error, object kind)
    PyObject *PyException_GetTraceback(object error)

from batchcore._clock cimport monotonic_ns
from batchcore._lock cimport lock, unlock
from batchcore._types cimport (
    ACCEPTED, ASK, Answer, CANCELLED, CLOSED, COMPLETED, DISPATCH, DRAIN, ENDED, EXPIRED, FAILED, FLUSH, IDLE,
    NEVER_NS, NO_ROOM, SHUT_DOWN, Status, WAIT,
)
from batchcore.custom cimport ask, tell
from batchcore.engine cimport Engine, bearable, weight_of
from batchcore.form cimport Piece
from batchcore.future cimport (
    BaseFuture, FanOut, Owner, Parker, end_future, end_futures, forget_listeners, held_futures, insist, new_future,
    report, take_parker,
)
from batchcore.decision cimport (
    Decision, Estimate, machine_answer, machine_decide, machine_estimate, machine_next_wakeup_ns,
)
from batchcore.keys cimport KeyLane, owner_of
from batchcore.lane cimport Entry, Lane
from batchcore.machine cimport (
    Machine, machine_abandon, machine_cancel, machine_clear, machine_close, machine_complete, machine_flush,
    machine_reject, machine_submit,
)
from batchcore.results cimport results_of

cdef tuple ABORTIONS = (asyncio.CancelledError, GeneratorExit)


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


cdef class Batch:
    """Requests that leave together.  Belongs to the driver that took it until it is finished or failed."""

    def __len__(self):
        return len(self.futures)

    @property
    def key(self):
        """What its requests were submitted with."""
        return None if self.lane is None else self.lane.key

    def shown_items(self):
        """The items as arrays or structures of them where they are prepared; None in the place of one copied before."""
        return [item.source if isinstance(item, Piece) else item for item in self.items]

    cpdef object run(self):
        """Call `fn`; no reference to the items stays here."""
        cdef list items = self.items
        self.items = None
        if self.form is not None:
            return self.fn(*self.assemble(items))
        if self.model_size > len(self.futures):
            items += [items[len(items) - 1]] * (self.model_size - len(items))
        if self.collate is not None:
            return self.fn(self.collate(items))
        return self.fn(items)

    cdef tuple assemble(self, list pieces):
        """The arguments for `fn`; filler takes the place of an item that was changed since it was submitted."""
        cdef list sound = []
        try:
            return self.form.assemble(pieces, self.model_size)
        except Exception:
            self.spoiled = {}
            for i, piece in enumerate(pieces):
                try:
                    self.form.check(<Piece>piece)
                    sound.append(piece)
                except Exception as error:
                    self.spoiled[i] = error
            if not self.spoiled or not sound:
                self.spoiled = None
                raise
            return self.form.assemble(sound, self.model_size)


cdef class Dispatcher(Owner):
    """The part of a scheduler that outlives its user: see the head of the file.

    Parameters
    ----------
    engine : Engine
        Used by nobody else.
    name : str
        For messages.

    Notes
    -----
    Threads and loops hold the dispatcher, people hold the `Submitter`, and only the latter holds ``fn`` for good: an
    object whose method is ``fn`` and which holds its own scheduler can be collected once nothing is queued.
    """

    def __init__(self, Engine engine not None, str name not None):
        self.engine = engine
        self.name = name
        self.timeout_ns = NEVER_NS
        self.virtual_ns = NEVER_NS
        self.armed_ns = self.wake_at_ns = NEVER_NS
        self.running = set()
        self.fan_out = FanOut.__new__(FanOut)
        self.room = collections.deque()

    cdef int64_t now(self) noexcept:
        return monotonic_ns() if self.virtual_ns == NEVER_NS else self.virtual_ns

    def next_wakeup_ns(self):
        """When something happens if no event comes before, ns; None: nothing does."""
        cdef int64_t wake_at_ns
        lock(&self.lock)
        wake_at_ns = machine_next_wakeup_ns(&self.engine.machine)
        unlock(&self.lock)
        return None if wake_at_ns == NEVER_NS else wake_at_ns

    def now_ns(self):
        """The time."""
        return self.now()

    # --- requests come and go

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
        try:
            insist(self.signal if signal is None else signal, interruptions)
        except BaseException as error:
            self.coming = False
            self.clear(f"nobody could be started to compute it: {error}")
            raise
        if interruptions:
            raise interruptions[0]
        return 0

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
                lane.stage = self.form.stage(<Piece>item, lane.stage)
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
        lock(&self.lock)
        answer = machine_submit(
            &self.engine.machine, terms.now_ns, &self.engine.machine.main if lane is None else &lane.lane,
            &future.entry, terms.deadline_ns, terms.priority, terms.weight)
        if answer == ACCEPTED:
            Py_INCREF(future)
            if lane is not None:
                Py_INCREF(lane)
            if self.fn is None:
                self.fn = fn
            signal = self.due()
        if self.recorder is not None and (answer == ACCEPTED or answer == ENDED):
            self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
        unlock(&self.lock)
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
            if self.block and _get_running_loop() is None:
                return self.submit_blocking(fn, item, key, terms)
            if self.recorder is not None:
                self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
            raise self.refuse(1)
        return future

    cdef BaseFuture submit_waiting(self, object fn, object item, object key, object weight, Terms *terms):
        """The same, but whatever the options say wait for room."""
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
        if self.block and _get_running_loop() is None:
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
        lock(&self.lock)
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
                Py_INCREF(future)
                if place.owner != NULL:
                    Py_INCREF(<object>place.owner)
                if self.fn is None:
                    self.fn = fn
        if self.recorder is not None and not machine.closed:
            for _ in range(len(futures)):
                self.recorder.add(terms.now_ns, terms.deadline_ns, terms.priority)
        signal = fits and self.due()
        unlock(&self.lock)
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

    def refuse(self, n):
        """Count `n` rejections and return the QueueFull to raise."""
        lock(&self.lock)
        machine_reject(&self.engine.machine, n)
        unlock(&self.lock)
        remedy = "raise max_queue_size or shed load"
        if self.block:
            remedy = "on an event loop wait for room with `await scheduler.submit_wait(item)`"
        cdef str state = "queue is full" if n == 1 else f"queue has no room for {n} requests"
        return QueueFull(
            f"{state}: {self.engine.machine.queued} of {self.engine.machine.config.max_queue_size}; {remedy}")

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
                if terms.deadline_ns != NEVER_NS:
                    left_ns = min(left_ns, max(terms.deadline_ns - self.now(), <int64_t>0))
                if not parker.park(left_ns):
                    self.heartbeat()
            finally:
                self.leave_room(parker)
                self.after_blocking()

    def sort_by(self, *, key_fn, weight_fn, form, collate, copies):
        """Say what is done with items on their way, and with results; called once, before any comes."""
        self.key_fn = key_fn
        self.weight_fn = weight_fn
        self.form = form
        self.collate = collate
        self.copies = copies
        self.sorts = key_fn is not None or weight_fn is not None or form is not None

    def padding(self):
        """What fn was given in all, and how much of that came from items: array elements, or items in lists."""
        if self.form is None:
            return self.items_seen, self.rows_made
        return self.form.item_elements, self.form.batch_elements

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
        lock(&self.lock)
        cancelled = machine_cancel(&self.engine.machine, self.now(), &future.entry)
        signal = cancelled and self.due()
        unlock(&self.lock)
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

    # --- batches

    cpdef int signal(self) except -1:
        """Have `take` called soon, by somebody else.  Never blocks for long; may find nobody to ask."""
        raise NotImplementedError

    cdef void settle(self, Parker parker) noexcept:
        """Set the timer for `wake_at_ns`; `parker` is what `take` was given.  Under the lock."""
        self.armed_ns = self.wake_at_ns

    cpdef Batch take(self, Parker parker=None, object server=None):
        """Return the next batch to run, or None: then there is nothing to do before `wake_at`.

        Ends what has expired on the way.  With a batch, which `server` is noted on, the caller is still the one who is
        coming: it calls `take` again at once, or `hand_over`; after an error, `take` or `start_over`.
        """
        cdef Decision decision
        cdef Batch batch = self.spare
        cdef bint others
        cdef object fn = None
        cdef object keep    # the lane of the batch, or of the question
        self.spare = None
        while True:
            fn = None
            if batch is None:
                batch = Batch.__new__(Batch)
            lock(&self.lock)
            self.coming = True
            machine_decide(&self.engine.machine, self.now(), &decision, &batch.flight)
            fn = self.fn
            keep = owner_of(decision.lane)
            others = decision.kind == ASK and self.asker != 0   # it is they who are coming
            if decision.expired == NULL and (decision.kind == IDLE or decision.kind == WAIT or others):
                self.coming = others
                self.wake_at_ns = NEVER_NS if others else decision.wake_at_ns
                self.settle(parker)
                unlock(&self.lock)
                self.spare = batch
                return None
            unlock(&self.lock)
            if decision.kind == DISPATCH:
                self.fill(batch, &decision, fn, <KeyLane>keep)
                batch.server = server
            try:
                if decision.expired != NULL:
                    end_futures(futures_of(self.engine, decision.expired), EXPIRED, None, self.fan_out)
                if decision.kind == ASK and not others:
                    self.ask_policy(&decision)
                if self.room:
                    self.admit()
            except BaseException as error:
                if decision.kind != DISPATCH:
                    raise
                self.fan_out.error = error  # no batch is lost for it: it is raised when this one ends
            if decision.kind == DISPATCH:
                return batch

    cdef int ask_policy(self, Decision *decision) except -1:
        """Ask the user's policy, unless somebody else is.

        One that fails is reported, and what is queued leaves: no request pays for it.
        """
        cdef Machine *machine = &self.engine.machine
        cdef bint others
        decision.expired = NULL
        lock(&self.lock)
        others = self.asker != 0
        if not others:
            self.asker = PyThread_get_thread_ident()
        unlock(&self.lock)
        if others:
            return 0
        try:
            ask(self.engine.decider, machine, &self.lock, self.now(), decision)
        except BaseException as error:
            lock(&self.lock)
            machine_answer(
                machine, decision.lane, machine.changes, machine.batches, machine.now_ns, machine.config.max_batch_size)
            unlock(&self.lock)
            if not isinstance(error, Exception):    # a Ctrl-C on the way
                raise
            report(error, self.engine.decider)
        finally:
            self.asker = 0
        if decision.expired != NULL:
            end_futures(futures_of(self.engine, decision.expired), EXPIRED, None, self.fan_out)
        return 0

    cdef int fill(self, Batch batch, const Decision *decision, object fn, KeyLane lane) except -1:
        """Put into `batch` what the machine has let go of."""
        cdef BaseFuture future
        batch.id = decision.batch_id
        batch.reason = REASONS[<int>decision.reason]
        batch.fn = fn
        batch.lane = lane
        batch.form = self.form
        batch.collate = self.collate
        batch.model_size = decision.model_size
        self.items_seen += decision.batch_size
        self.rows_made += decision.model_size
        batch.futures = futures_of(self.engine, decision.batch)
        batch.items = [(<BaseFuture>future).take_item() for future in batch.futures]
        self.running.add(batch)
        return 0

    @property
    def wake_at(self):
        """When to call `take` again, seconds of time.monotonic(); None if only an event can change anything."""
        return None if self.wake_at_ns == NEVER_NS else self.wake_at_ns / 1e9

    cpdef int finish(self, Batch batch, object results) except -1:
        """End a batch with what `fn` returned: a sequence of results, with exception objects in the place of some.

        Those of filler, at the end, go."""
        cdef list values
        cdef BaseFuture future
        cdef Py_ssize_t i, n = len(batch.futures)
        cdef Py_ssize_t failed = 0
        try:
            values = results_of(results, batch.model_size, batch.form is not None, self.copies)
        except BaseException as error:
            return self.fail(batch, error)
        if batch.spoiled is not None:
            for i, error in batch.spoiled.items():  # from the first to the last
                values.insert(i, error)
        for i in range(n):
            failed += PyExceptionInstance_Check(values[i])
        if not self.leave(batch, failed):
            return 0
        for i in range(n):
            future = <BaseFuture>batch.futures[i]
            value = values[i]
            if failed and PyExceptionInstance_Check(value):
                end_future(future, FAILED, failure_of(value), self.fan_out)
            else:
                end_future(future, COMPLETED, value, self.fan_out)
        self.running.discard(batch)
        self.fan_out.wake()
        return self.tell_policy(batch)

    cpdef int fail(self, Batch batch, object error) except -1:
        """End a batch with the error that `fn` raised: every caller gets that very object.

        Of a batch that has ended, wholly or in part, it ends what is left.
        """
        cdef Py_ssize_t n = len(batch.futures)
        cdef BaseFuture future
        if self.leave(batch, n):
            note(error, f"batch {batch.id} of {n} request{'s' if n > 1 else ''} in scheduler {self.name!r}", "batch ")
        failure = failure_of(error)
        for future in batch.futures:
            if future.entry.status < COMPLETED:
                end_future(future, FAILED, failure, self.fan_out)
        self.running.discard(batch)
        self.fan_out.wake()
        return self.tell_policy(batch)

    cdef bint leave(self, Batch batch, int64_t failed) except -1:
        """Count a batch as done; False if it is already."""
        if batch.left:
            return False
        batch.left = True
        lock(&self.lock)
        machine_complete(&self.engine.machine, self.now(), &batch.flight, failed)
        unlock(&self.lock)
        return True

    cdef int tell_policy(self, Batch batch) except -1:
        """Tell the user's policy, if it wants to know, that a batch has ended; its callers have their answers."""
        if self.engine.hook is None:
            return 0
        try:
            tell(self.engine.hook, &batch.flight)
        except Exception as error:
            report(error, self.engine.hook)
        return 0

    # --- the whole

    def set_timeout_ns(self, timeout_ns):
        """Set the timeout of requests that name none; None: no timeout."""
        self.timeout_ns = NEVER_NS if timeout_ns is None else timeout_ns

    def flush(self, *, bint drain=False):
        """Let everything queued now leave without waiting."""
        lock(&self.lock)
        machine_flush(&self.engine.machine, self.now(), DRAIN if drain else FLUSH)
        signal = self.due()
        unlock(&self.lock)
        if signal:
            self.call_server()

    def reconfigure(self, options, capacity):
        """Change the engine's options, all or nothing."""
        self.engine.reconfigure(self.now(), **options)
        if capacity is not None:
            self.engine.set_capacity(self.now(), capacity)
        lock(&self.lock)
        signal = self.due()
        unlock(&self.lock)
        self.admit()
        if signal:
            self.call_server()

    def close(self):
        """Take no more requests; what is queued leaves without waiting."""
        lock(&self.lock)
        machine_close(&self.engine.machine, self.now())
        signal = self.due()
        unlock(&self.lock)
        self.admit()
        if signal:
            try:
                self.call_server()
            except Exception:
                pass    # what was queued has been told

    cpdef int hand_over(self) except -1:
        """Stop being the one who is coming; ask for a successor if there is more to do."""
        lock(&self.lock)
        self.coming = False
        signal = self.due()
        unlock(&self.lock)
        if signal:
            self.call_server()
        return 0

    def start_over(self, call):
        """Forget the timer and whoever was coming; `call` somebody else if there is something to do."""
        lock(&self.lock)
        self.coming = False
        self.armed_ns = NEVER_NS
        signal = self.due()
        unlock(&self.lock)
        if signal:
            self.call_server(call)

    cpdef int let_go(self) except -1:
        """Drop `fn` while nothing is queued."""
        cdef object _fn = self.fn   # the reference goes after the lock
        lock(&self.lock)
        if self.engine.machine.queued == 0:
            self.fn = None
        unlock(&self.lock)
        return 0

    def estimate_ns(self):
        """What a request submitted now could expect, ns: queue delay and service time; None if nothing is known."""
        cdef Estimate estimate
        lock(&self.lock)
        estimate = machine_estimate(&self.engine.machine, self.now())
        unlock(&self.lock)
        return None if estimate.queue_delay_ns < 0 else (estimate.queue_delay_ns, estimate.service_ns)

    @property
    def closed(self):
        """Whether `close` was called."""
        return self.engine.machine.closed

    def join(self, timeout=None):
        """Wait for the threads of this driver to end, but never for the one that calls; after `close`."""
        raise NotImplementedError

    @property
    def idle(self):
        """Whether nothing is queued and nothing runs."""
        return self.engine.machine.queued == 0 and self.engine.machine.in_flight == 0

    def clear(self, words=None):
        """End everything queued: as cancelled or, with `words` to say why, as shut down."""
        cdef Status status = CANCELLED if words is None else SHUT_DOWN
        cdef Entry *chain
        lock(&self.lock)
        chain = machine_clear(&self.engine.machine, self.now(), status)
        unlock(&self.lock)
        try:
            end_futures(futures_of(self.engine, chain), status, words, self.fan_out)
        finally:
            self.admit()

    def abandon(self, words):
        """End everything queued and running as shut down: nobody will compute it any more."""
        cdef Batch batch
        cdef BaseFuture future
        self.clear(words)
        for batch in list(self.running):
            self.running.discard(batch)
            if not batch.left:
                batch.left = True
                lock(&self.lock)
                machine_abandon(&self.engine.machine, self.now(), &batch.flight)
                unlock(&self.lock)
            for future in batch.futures:
                if future.entry.status < COMPLETED:
                    end_future(future, SHUT_DOWN, words, self.fan_out)
        self.fan_out.wake()

    def after_fork(self):
        """Start clean in a forked child: its copies of the parent's requests end, the parent answers its own."""
        self.armed_ns = NEVER_NS
        self.coming = False
        self.fan_out = FanOut.__new__(FanOut)
        self.recorder = None
        self.asker = 0
        self.room.clear()
        for future in self.pending():
            forget_listeners(future)
        self.abandon("the process forked; the request was left to the parent")

    def pending(self):
        """The futures of everything queued or running now, and of what that is a part of."""
        cdef Batch batch
        cdef const Lane *lane
        cdef const Entry *entry
        cdef list futures = []
        lock(&self.lock)
        lane = self.engine.machine.first_lane
        while lane != NULL:
            entry = lane.oldest
            while entry != NULL:
                futures.append(<object>entry.owner)
                entry = entry.later
            lane = lane.later
        unlock(&self.lock)
        for batch in list(self.running):
            futures += batch.futures
        return list(dict.fromkeys(futures + held_futures(futures)))


cdef tuple failure_of(object error):
    """An error with its traceback, which every `result` restores: callers would add theirs to one another's.

    Asks the interpreter and not the object, whose attributes may be anybody's code.
    """
    cdef PyObject *found
    if PyErr_GivenExceptionMatches(error, StopIteration):
        wrapped = RuntimeError("fn raised StopIteration, which cannot pass through a future")
        wrapped.__cause__ = error
        return (wrapped, None)
    if PyErr_GivenExceptionMatches(error, ABORTIONS):
        wrapped = BatchAborted("the batch was cancelled while it ran")
        wrapped.__cause__ = error
        return (wrapped, None)
    found = PyException_GetTraceback(error)
    if found == NULL:
        return (error, None)
    traceback = <object>found
    Py_DECREF(traceback)    # it came as a new reference
    return (error, traceback)


cdef int note(object error, str text, str prefix) except -1:
    """Leave one note on an error; the one from the last time that the same object was raised goes."""
    try:
        notes = [n for n in getattr(error, "__notes__", ()) if not (isinstance(n, str) and n.startswith(prefix))]
        if hasattr(error, "__notes__"):
            error.__notes__ = notes
        error.add_note(text)
    except BaseException:
        pass    # an error that takes no notes is delivered without
    return 0
