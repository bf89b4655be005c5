"""From submit to result: the engine, a clock, the futures and the user's `fn`, but no thread and no event loop.

A `Dispatcher` is an `Intake` (see `intake.pyx`, also for the lock and for why no wake-up is lost) that gives what the
engine decided to whoever drives it.  A driver calls `take` for the next batch, runs `fn`, and calls `finish` or `fail`;
it overrides `signal`, which asks for a call of `take` from somewhere else.  Drivers: `workers.pyx` (threads),
`callers.pyx` (the threads of callers) and `loops.pyx` (event loops).
"""

cimport cython
from cpython.pythread cimport PyThread_get_thread_ident
from cpython.ref cimport Py_DECREF, PyObject
from libc.stdint cimport int64_t

from batchcore.errors import BatchAborted
from batchcore.records import REASONS

cdef extern from "Python.h":
    bint PyExceptionInstance_Check(object)
    bint PyErr_GivenExceptionMatches(object error, object kind)
    PyObject *PyException_GetTraceback(object error)

from batchcore._lock cimport lock, unlock
from batchcore._types cimport (
    ASK, COMPLETED, DISPATCH, DRAIN, EXPIRED, FAILED, FLUSH, IDLE, NEVER_NS, SHUT_DOWN, WAIT,
)
from batchcore.custom cimport ask, tell
from batchcore.decision cimport Decision, Estimate, machine_answer, machine_decide, machine_estimate
from batchcore.engine cimport Engine
from batchcore.form cimport Piece
from batchcore.future cimport (
    BaseFuture, FanOut, Parker, cancellations, end_future, end_futures, forget_listeners, held_futures, report,
)
from batchcore.intake cimport Intake, futures_of
from batchcore.keys cimport KeyLane, owner_of
from batchcore.lane cimport Entry, Lane
from batchcore.machine cimport (
    Flight, Machine, machine_abandon, machine_close, machine_complete, machine_flush, machine_start,
)
from batchcore.results cimport results_of

cdef int64_t QUICK_NS = 1_000_000    # of a batch: less is little beside some changes of thread


@cython.freelist(8)
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


cdef class Dispatcher(Intake):
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
        Intake.__init__(self, engine, name)
        self.wake_at_ns = NEVER_NS
        self.running = set()

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
        if self.form is not None:
            with cython.critical_section(self.form):
                return self.form.item_elements, self.form.batch_elements
        with cython.critical_section(self):
            return self.items_seen, self.rows_made

    # --- batches

    cdef void settle(self, Parker parker) noexcept:
        """Set the timer for `wake_at_ns`; `parker` is what `take` was given.  Under the lock."""
        self.armed_ns = self.wake_at_ns

    cpdef Batch take(self, Parker parker=None):
        """Return the next batch to run, or None: then there is nothing to do before `wake_at`.

        Ends what has expired on the way.  With a batch the caller is still the one who is coming: it calls `take` again
        at once, or `hand_over`; after an error, `take` or `start_over`.
        """
        cdef Decision decision
        cdef Batch batch
        cdef bint others
        cdef object fn = None
        cdef object keep    # the lane of the batch, or of the question
        with cython.critical_section(self):
            batch = self.spare
            self.spare = None
        while True:
            fn = keep = None    # let go before the lock: that may run anything
            if batch is None:
                batch = Batch.__new__(Batch)
            lock(&self.engine.lock)
            self.coming = True
            machine_decide(&self.engine.machine, self.now(), &decision, &batch.flight)
            fn = self.fn
            keep = owner_of(decision.lane)
            batch.flight.entries = decision.batch if decision.kind == DISPATCH else NULL
            others = decision.kind == ASK and self.asker != 0   # it is they who are coming
            if decision.expired == NULL and (decision.kind == IDLE or decision.kind == WAIT or others):
                self.coming = others
                self.wake_at_ns = NEVER_NS if others else decision.wake_at_ns
                self.settle(parker)
                unlock(&self.engine.lock)
                with cython.critical_section(self):
                    self.spare = batch  # in the place of none, or of another that has nothing in it
                return None
            unlock(&self.engine.lock)
            if decision.kind == DISPATCH:
                self.fill(batch, &decision, fn, <KeyLane>keep)
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
                self.fan_out.keep(error)    # no batch is lost for it: it is raised when this one ends
            if decision.kind == DISPATCH:
                machine_start(&batch.flight, self.now())    # what was done for it until here is not fn's time
                return batch

    cdef int ask_policy(self, Decision *decision) except -1:
        """Ask the user's policy, unless somebody else is.

        One that fails is reported, and what is queued leaves: no request pays for it.
        """
        cdef Machine *machine = &self.engine.machine
        cdef object decider = None
        decision.expired = NULL
        lock(&self.engine.lock)
        if self.asker == 0:
            decider = self.engine.decider_
            if decider is not None:     # else it has just been changed for one of ours
                self.asker = PyThread_get_thread_ident()
        unlock(&self.engine.lock)
        if decider is None:
            return 0
        try:
            ask(self.engine, decider, machine, &self.engine.lock, self.now(), decision)
        except BaseException as error:
            lock(&self.engine.lock)
            machine_answer(
                machine, decision.lane, machine.changes, machine.batches, machine.now_ns, machine.config.max_batch_size)
            unlock(&self.engine.lock)
            if not isinstance(error, Exception):    # a Ctrl-C on the way
                raise
            report(error, decider)
        finally:
            lock(&self.engine.lock)
            self.asker = 0
            unlock(&self.engine.lock)
        if decision.expired != NULL:
            end_futures(futures_of(self.engine, decision.expired), EXPIRED, None, self.fan_out)
        return 0

    cdef int fill(self, Batch batch, const Decision *decision, object fn, KeyLane lane) except -1:
        """Put into `batch` what the machine has let go of."""
        batch.id = decision.batch_id
        batch.reason = REASONS[<int>decision.reason]
        batch.fn = fn
        batch.lane = lane
        batch.form = self.form
        batch.collate = self.collate
        batch.model_size = decision.model_size
        with cython.critical_section(self):
            self.items_seen += decision.batch_size
            self.rows_made += decision.model_size
        try:
            batch.futures = futures_of(self.engine, decision.batch)
            batch.items = [(<BaseFuture>future).take_item() for future in batch.futures]
            self.running.add(batch)
        finally:
            lock(&self.engine.lock)
            batch.flight.entries = NULL     # `pending` finds them among those that run
            unlock(&self.engine.lock)
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
        except Exception as error:
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
        cdef bint first
        lock(&self.engine.lock)
        first = not batch.left
        if first:
            batch.left = True
            machine_complete(&self.engine.machine, self.now(), &batch.flight, failed)
        unlock(&self.engine.lock)
        return first

    cdef int tell_policy(self, Batch batch) except -1:
        """Tell the user's policy, if it wants to know, that a batch has ended; its callers have their answers."""
        cdef object hook
        lock(&self.engine.lock)
        hook = self.engine.hook
        unlock(&self.engine.lock)
        if hook is None:
            return 0
        try:
            tell(hook, &batch.flight)
        except Exception as error:
            report(error, hook)
        return 0

    # --- the whole

    def flush(self, *, bint drain=False):
        """Let everything queued now leave without waiting."""
        lock(&self.engine.lock)
        machine_flush(&self.engine.machine, self.now(), DRAIN if drain else FLUSH)
        signal = self.due()
        unlock(&self.engine.lock)
        if signal:
            self.call_server()

    def reconfigure(self, options, capacity):
        """Change the engine's options, all or nothing."""
        self.engine.reconfigure(self.now(), **options)
        if capacity is not None:
            self.engine.set_capacity(self.now(), capacity)
        lock(&self.engine.lock)
        signal = self.due()
        unlock(&self.engine.lock)
        self.admit()
        if signal:
            self.call_server()

    def close(self):
        """Take no more requests; what is queued leaves without waiting."""
        lock(&self.engine.lock)
        machine_close(&self.engine.machine, self.now())
        signal = self.due()
        unlock(&self.engine.lock)
        self.admit()
        if signal:
            try:
                self.call_server()
            except Exception:
                pass    # what was queued has been told

    cpdef int hand_over(self) except -1:
        """Stop being the one who is coming; ask for a successor if there is more to do."""
        lock(&self.engine.lock)
        self.coming = False
        signal = self.due()
        unlock(&self.engine.lock)
        if signal:
            self.call_server()
        return 0

    def start_over(self, call):
        """Forget the timer and whoever was coming; `call` somebody else if there is something to do."""
        lock(&self.engine.lock)
        self.coming = False
        self.armed_ns = NEVER_NS
        signal = self.due()
        unlock(&self.engine.lock)
        if signal:
            self.call_server(call)

    cpdef int let_go(self) except -1:
        """Drop `fn` while nothing is queued."""
        cdef object _fn = None  # the reference goes after the lock
        lock(&self.engine.lock)
        if self.engine.machine.queued == 0:
            _fn = self.fn
            self.fn = None
        unlock(&self.engine.lock)
        return 0

    def estimate_ns(self):
        """What a request submitted now could expect, ns: queue delay and service time; None if nothing is known."""
        cdef Estimate estimate
        lock(&self.engine.lock)
        estimate = machine_estimate(&self.engine.machine, self.now())
        unlock(&self.engine.lock)
        return None if estimate.queue_delay_ns < 0 else (estimate.queue_delay_ns, estimate.service_ns)

    cdef bint is_quick(self) noexcept:
        """Whether a batch takes no longer than it takes to change threads a few times."""
        cdef Estimate estimate
        lock(&self.engine.lock)
        estimate = machine_estimate(&self.engine.machine, self.now())
        unlock(&self.engine.lock)
        return estimate.queue_delay_ns >= 0 and estimate.service_ns < QUICK_NS

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
        lock(&self.engine.lock)
        idle = self.engine.machine.queued == 0 and self.engine.machine.in_flight == 0
        unlock(&self.engine.lock)
        return idle

    def abandon(self, words):
        """End everything queued and running as shut down: nobody will compute it any more."""
        cdef Batch batch
        cdef BaseFuture future
        self.clear(words)
        for batch in list(self.running):
            self.running.discard(batch)
            lock(&self.engine.lock)
            if not batch.left:
                batch.left = True
                machine_abandon(&self.engine.machine, self.now(), &batch.flight)
            unlock(&self.engine.lock)
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
        cdef const Flight *flight
        cdef list futures = []
        lock(&self.engine.lock)
        try:    # there may be no memory for the list
            lane = self.engine.machine.first_lane
            while lane != NULL:
                add_chain(futures, lane.oldest)
                lane = lane.later
            flight = self.engine.machine.first_flight
            while flight != NULL:
                add_chain(futures, flight.entries)
                flight = flight.later
        finally:
            unlock(&self.engine.lock)
        for batch in list(self.running):
            futures += batch.futures
        return list(dict.fromkeys(futures + held_futures(futures)))


cdef int add_chain(list futures, const Entry *entry) except -1:
    while entry != NULL:
        futures.append(<object>entry.owner)
        entry = entry.later
    return 0


cdef tuple failure_of(object error):
    """An error with its traceback, which every `result` restores: callers would add theirs to one another's.

    Asks the interpreter and not the object, whose attributes may be anybody's code.
    """
    cdef PyObject *found
    if PyErr_GivenExceptionMatches(error, StopIteration):
        wrapped = RuntimeError("fn raised StopIteration, which cannot pass through a future")
        wrapped.__cause__ = error
        return (wrapped, None)
    if PyErr_GivenExceptionMatches(error, cancellations()):
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
