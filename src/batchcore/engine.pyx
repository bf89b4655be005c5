"""The engine: a batch scheduler that is told the time and never asks for it.

This file checks arguments, makes one call into `machine.pxd`, and turns the answer into Python; the rules are there.
It knows no clock, thread, event loop or metrics library, so a test or a simulation drives the very code that serves.

Python's `Engine` is for tests, simulation and inspection.  The dispatcher shares its `Machine` and uses it from C.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int32_t, int64_t
from libc.string cimport memset

import array
import operator

from batchcore import records
from batchcore.errors import QueueFull, SchedulerClosed

from batchcore._lock cimport lock, unlock
from batchcore._types cimport (
    ACCEPTED, ADAPTIVE, ASK, Answer, BATCH_DOWN, CANCELLED, CHEAPER, CLOSED, COMPLETED, CUSTOM, DISPATCH, EXPIRED,
    FAILED, FIXED, FLUSH, Fitting, IMMEDIATE, NEVER_NS, NO_ROOM, PAD_UP, PolicyId, SHUT_DOWN, START_NS, WAIT,
)
from batchcore.audit cimport audit
from batchcore.cost cimport Cost, SLOTS, cost_known, cost_learn, cost_load_ns, cost_predict_ns
from batchcore.custom cimport ask, hooks_of, tell
from batchcore.histogram cimport CARRY, Histogram, MAX_BOUNDS, histogram_extend
from batchcore.decision cimport Decision, machine_decide, machine_next_wakeup_ns
from batchcore.keys cimport KeyLane, Keys, owner_of
from batchcore.lane cimport Entry, lane_open
from batchcore.machine cimport (
    Config, Machine, PAST, Past, machine_cancel, machine_clear, machine_close, machine_complete, machine_flush,
    machine_reject, machine_rethink, machine_submit, machine_tell,
)
from batchcore.traffic cimport traffic_callers, traffic_closed, traffic_rate

MAX_BATCH_SIZE = 1_048_576
MAX_QUEUE_SIZE = 2**31 - 1
MAX_CAPACITY = 4096
MAX_DURATION_NS = 10**16
MAX_PRIORITY = 1_000_000
MAX_WEIGHT = 2**31 - 1
AGING_NS = 2_000_000_000

cdef int32_t c_max_priority = MAX_PRIORITY
cdef int64_t c_max_weight = MAX_WEIGHT
cdef int64_t MAX_INSTANT_NS = 2**62 - 1     # leaves room to add any duration

cdef tuple STATUSES = ("new", "queued", "running", "completed", "failed", "expired", "cancelled", "shut_down")
cdef dict POLICIES = {"adaptive": ADAPTIVE, "immediate": IMMEDIATE, "fixed": FIXED}
cdef dict FITTINGS = {"min_cost": CHEAPER, "pad_up": PAD_UP, "batch_down": BATCH_DOWN}
cdef object UNCHANGED = object()

DEFAULT_SIZE_BOUNDS = tuple(2**k for k in range(21))
DEFAULT_DELAY_BOUNDS_NS = tuple(100_000 * 2**k for k in range(20))


cpdef int64_t integer(str name, object value, object low, object high) except? -1:
    """Return `value` as an integer of `low` to `high`.

    Raises
    ------
    TypeError
        If it is not an integer; a bool is not.
    ValueError
        If it is out of range.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} is {number}; it must be from {low} to {high}")
    return number


cdef object USUAL = 0   # the priority of nearly all


cdef int32_t priority_of(object value) except? -1:
    if value is USUAL:
        return 0
    if type(value) is int:
        try:
            if -c_max_priority <= <int64_t>value <= c_max_priority:
                return <int32_t>value
        except OverflowError:
            pass
    return integer("priority", value, -MAX_PRIORITY, MAX_PRIORITY)


cdef int32_t weight_of(object value, const Config *config) except -1:
    """The weight of a request, which a batch must bear."""
    return bearable(integer("weight", value, 1, MAX_WEIGHT), config)


cdef int32_t bearable(int64_t weight, const Config *config) except -1:
    if weight > c_max_weight:
        raise ValueError(f"weight is {weight}; it must be at most {MAX_WEIGHT}")
    if weight > config.max_batch_weight and not config.overweight:
        raise ValueError(
            f"weight is {weight}, and max_batch_weight is {config.max_batch_weight}; raise it, make the item smaller, "
            "or run such items alone with on_overweight='alone'")
    return <int32_t>weight


cdef int64_t instant(str name, object value) except? -1:
    return integer(name, value, -MAX_INSTANT_NS, MAX_INSTANT_NS)


cdef int64_t duration(str name, object value) except? -1:
    return NEVER_NS if value is None else integer(name, value, 0, MAX_DURATION_NS)


cdef int check_sizes(object sizes, int64_t max_batch_size) except -1:
    """That the largest batch is one that the model accepts; `sizes` is None where it accepts any."""
    largest = max_batch_size if sizes is None else max(sizes)
    if max_batch_size > largest:
        raise ValueError(
            f"max_batch_size is {max_batch_size}, and the largest of allowed_batch_sizes is {largest}; allow it too, "
            "or lower max_batch_size")
    return 0


cdef int set_bounds(Histogram *histogram, str name, object bounds) except -1:
    cdef list checked = [integer(f"{name}[{i}]", bound, 0, MAX_DURATION_NS) for i, bound in enumerate(bounds)]
    if not 1 <= len(checked) <= MAX_BOUNDS:
        raise ValueError(f"{name} has {len(checked)} bounds; it must have from 1 to {MAX_BOUNDS}")
    if any([a >= b for a, b in zip(checked, checked[1:])]):
        raise ValueError(f"{name} must be strictly increasing, not {tuple(checked)}")
    for i, bound in enumerate(checked):
        histogram.bounds[i] = bound
    histogram.size = len(checked)
    return 0


cdef object snapshot(const Histogram *histogram):
    return records.Histogram(
        bounds=tuple([histogram.bounds[i] for i in range(histogram.size)]),
        counts=tuple([histogram.counts[i] for i in range(histogram.size + 1)]),
        sum=histogram.carried * <object>CARRY + histogram.sum,
    )


cdef class Request:
    """One submitted item, as the engine knows it.

    Made by `Engine.submit`.  Reading it is safe from any thread.
    """

    def __cinit__(self):
        self.entry.owner = <void *>self
        self.entry.deadline_ns = NEVER_NS

    @property
    def status(self):
        """Where the request is in its life: new, queued, running, or how it ended."""
        return STATUSES[<int>self.entry.status]

    @property
    def arrival_ns(self):
        """Instant of submit, ns."""
        return self.entry.arrival_ns

    @property
    def deadline_ns(self):
        """Instant after which an answer is worthless, ns; None where there is none."""
        return None if self.entry.deadline_ns == NEVER_NS else self.entry.deadline_ns

    @property
    def priority(self):
        """Lower is sooner."""
        return self.entry.priority

    @property
    def weight(self):
        """What it counts for in `max_batch_weight`."""
        return self.entry.weight


cdef class Running:
    """A batch that `decide` handed to Python, until it is completed."""


cdef class Engine:
    """Decide which requests run together, and when, in a time that the caller keeps.

    Events (`submit`, `cancel`, `complete`, `set_capacity`, `reconfigure`, `flush`, `close`) go in with their time;
    `decide` answers what to do now.  The engine never reads a clock, starts a thread, blocks or logs: the same events
    give the same decisions on every machine.  A time before the latest one told counts as that one.

    Parameters
    ----------
    policy : {"adaptive", "immediate", "fixed"} or callable or object, default "immediate"
        ``immediate`` never waits while a worker is free.  ``fixed`` waits for a full batch, at most `max_wait_ns`.
        ``adaptive`` learns when a wait, or a smaller batch, pays.  Anything else is a policy of your own: see
        `batchcore.custom`.
    max_batch_size : int, default 32
        Most requests in a batch, 1 to MAX_BATCH_SIZE.
    max_wait_ns : int, optional
        Longest that the oldest request waits for company, 0 to MAX_DURATION_NS; ``fixed`` needs it.
    max_latency_ns : int, optional
        Target from submit to result that waiting for company must not break, 0 to MAX_DURATION_NS.
    max_queue_size : int, default 65536
        Most requests that may be queued, 1 to MAX_QUEUE_SIZE.
    capacity : int, default 1
        Batches that may run at once, 0 (paused) to MAX_CAPACITY.
    aging_ns : int, default AGING_NS
        Head start of a priority level, how long better requests can pass worse ones, 0 to
        MAX_DURATION_NS / MAX_PRIORITY.
    cost_model : sequence of (int, int), optional
        Service times known beforehand: pairs of batch size, or weight, and ns, each of them taken as three batches.
    max_batch_weight : int, optional
        Most that a batch may weigh, 1 to MAX_WEIGHT; service times are then learned by weight.
    overweight : bool, default False
        Whether a request that is heavier is taken, alone in its batch.
    padded : bool, default False
        Whether a batch weighs as much as if all its requests were as heavy as the heaviest; those of like weight go
        together when more are queued than fit.
    allowed_batch_sizes : sequence of int, optional
        The only sizes that the model is given, 1 to MAX_BATCH_SIZE, ascending; `max_batch_size` is at most the last.
    batch_padding_policy : {"min_cost", "pad_up", "batch_down"}, default "min_cost"
        What to do with a batch of another size: add filler, leave some queued, or what costs less a request.
    shares : mapping or callable, optional
        How much of the workers' time each key gets, in relation to the others.  Default: the soonest request first.
    batch_size_bounds, delay_bounds_ns : tuple of int, optional
        Upper bounds of the histograms in `stats`, strictly increasing, 1 to 32 of them.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range.

    Notes
    -----
    Not thread-safe but for `set_capacity`, `reconfigure` and what only reads, save `check`: those lock, since a
    dispatcher shares its engine with whoever asks.  Costs are those of `machine.pxd`.

    Examples
    --------
    Two requests come within the window of 5 ns and leave together when it ends:

    >>> engine = Engine(policy="fixed", max_wait_ns=5, max_batch_size=4)
    >>> first, second = engine.submit(0), engine.submit(2)
    >>> engine.decide(4).wake_at_ns
    5
    >>> decision = engine.decide(5)
    >>> decision.reason, decision.batch == (first, second)
    ('window', True)
    >>> engine.complete(9, decision)
    >>> first.status
    'completed'
    """

    def __cinit__(self):
        memset(&self.machine, 0, sizeof(Machine))
        self.machine.now_ns = START_NS
        self.machine.progress_at_ns = NEVER_NS
        self.machine.dispatched_at_ns = START_NS
        self.machine.probe_at_ns = START_NS
        lane_open(&self.machine.main, NULL, NULL)
        self.expired = ()
        self.in_flight = {}

    def __init__(
        self, *, policy="immediate", max_batch_size=32, max_wait_ns=None, max_latency_ns=None, max_queue_size=65536,
        capacity=1, aging_ns=AGING_NS, cost_model=None, batch_size_bounds=None, delay_bounds_ns=None,
        max_batch_weight=None, bint overweight=False, bint padded=False, allowed_batch_sizes=None,
        batch_padding_policy="min_cost", shares=None,
    ):
        cdef Config config = self.machine.config
        config.aging_ns = integer("aging_ns", aging_ns, 0, MAX_DURATION_NS // MAX_PRIORITY)
        config.capacity = integer("capacity", capacity, 0, MAX_CAPACITY)
        configure(&config, policy, max_batch_size, max_wait_ns, max_latency_ns, max_queue_size)
        config.max_batch_weight = NEVER_NS
        if max_batch_weight is not None:
            config.max_batch_weight = integer("max_batch_weight", max_batch_weight, 1, MAX_WEIGHT)
        config.weighed = padded or max_batch_weight is not None
        config.overweight = overweight
        config.padded = padded
        if batch_padding_policy not in FITTINGS:
            raise ValueError(f"batch_padding_policy is {batch_padding_policy!r}; it must be one of {tuple(FITTINGS)}")
        config.fitting = <Fitting><int>FITTINGS[batch_padding_policy]
        self.keys = Keys(shares)
        self.keys.machine = &self.machine
        self.share = self.keys.share_of(None)
        if self.share is not None:
            self.machine.main.account = &self.share.account
        if allowed_batch_sizes is not None:
            self.allow(allowed_batch_sizes, config.max_batch_size)
        delays = delay_bounds_ns or DEFAULT_DELAY_BOUNDS_NS
        set_bounds(&self.machine.batch_size, "batch_size_bounds", batch_size_bounds or DEFAULT_SIZE_BOUNDS)
        set_bounds(&self.machine.queue_delay, "delay_bounds_ns", delays)
        set_bounds(&self.machine.service, "delay_bounds_ns", delays)
        self.machine.config = config
        if config.policy == CUSTOM:
            self.decider_, self.hook = hooks_of(policy)
        for i, pair in enumerate(() if cost_model is None else cost_model):
            try:
                size, service_ns = pair
            except (TypeError, ValueError):
                raise TypeError(f"cost_model[{i}] must be a pair of batch size and time, not {pair!r}") from None
            size = integer(f"size of cost_model[{i}]", size, 1, MAX_BATCH_SIZE)
            service_ns = integer(f"time of cost_model[{i}], ns,", service_ns, 1, MAX_DURATION_NS)
            for _ in range(3):
                cost_learn(&self.machine.cost, size, service_ns)

    def __dealloc__(self):
        cdef Entry *entry
        cdef Entry *later
        self.machine.main.account = NULL    # the garbage collector may have taken it already
        entry = machine_clear(&self.machine, self.machine.now_ns, SHUT_DOWN)
        while entry != NULL:
            later = entry.later
            if entry.lane.owner != NULL:
                Py_DECREF(<object>entry.lane.owner)
            Py_DECREF(<object>entry.owner)
            entry = later

    cdef int allow(self, object sizes, int64_t max_batch_size) except -1:
        """Take note of the sizes that the model accepts."""
        cdef int32_t[::1] memory
        checked = [integer(f"allowed_batch_sizes[{i}]", size, 1, MAX_BATCH_SIZE) for i, size in enumerate(sizes)]
        if not checked or any([a >= b for a, b in zip(checked, checked[1:])]):
            raise ValueError(f"allowed_batch_sizes must be some sizes in ascending order, not {checked}")
        check_sizes(checked, max_batch_size)
        self.sizes = array.array("i", checked)
        memory = self.sizes
        self.machine.cost.sizes = &memory[0]
        self.machine.cost.size_count = len(checked)
        return 0

    cdef tuple let_go(self, Entry *chain):
        """The requests of a chain; the queue's references to them pass to the tuple."""
        cdef list requests = []
        while chain != NULL:
            requests.append(<object>chain.owner)
            Py_DECREF(<object>chain.owner)
            if chain.lane.owner != NULL:
                self.keys.release(chain)
            chain = chain.later
        return tuple(requests)

    def submit(self, now_ns, *, priority=0, deadline_ns=None, key=None, weight=1):
        """Queue a new request.

        Parameters
        ----------
        now_ns : int
            The time.
        priority : int, default 0
            Lower is sooner; -MAX_PRIORITY to MAX_PRIORITY.
        deadline_ns : int, optional
            Instant after which an answer is worthless.  Not after `now_ns`: the request comes back expired.
        key : hashable, optional
            Only requests of equal keys share a batch.
        weight : int, default 1
            What it counts for in `max_batch_weight`, 1 to MAX_WEIGHT.

        Returns
        -------
        Request

        Raises
        ------
        QueueFull
            If `max_queue_size` requests are queued; counted as a rejection.
        SchedulerClosed
            After `close`; nothing has changed.
        TypeError, ValueError
            If an argument is of the wrong type or out of range; nothing has changed.
        """
        cdef int64_t now = instant("now_ns", now_ns)
        cdef int64_t deadline = NEVER_NS if deadline_ns is None else instant("deadline_ns", deadline_ns)
        cdef int32_t rank = priority_of(priority)
        cdef Request request = Request.__new__(Request)
        cdef int32_t heft = weight_of(weight, &self.machine.config)
        cdef KeyLane lane = self.keys.find(key, None)
        cdef Answer answer = machine_submit(
            &self.machine, now, &self.machine.main if lane is None else &lane.lane, &request.entry, deadline, rank,
            heft)
        if lane is not None and answer != ACCEPTED:
            self.keys.leave(lane)
        if answer == CLOSED:
            raise SchedulerClosed("the engine is closed")
        if answer == NO_ROOM:
            machine_reject(&self.machine, 1)
            raise QueueFull(f"queue is full: {self.machine.queued} of {self.machine.config.max_queue_size}")
        if answer == ACCEPTED:
            request.machine = &self.machine
            Py_INCREF(request)
            if lane is not None:
                Py_INCREF(lane)
        return request

    def cancel(self, now_ns, Request request not None):
        """End a queued request for its caller and free its place.

        Returns
        -------
        bool
            False, with no change, if the request is not queued, or not here.
        """
        cdef int64_t now = instant("now_ns", now_ns)
        cdef bint cancelled = (
            request.machine == &self.machine and machine_cancel(&self.machine, now, &request.entry))
        if cancelled:
            Py_DECREF(request)
            if request.entry.lane.owner != NULL:
                self.keys.release(&request.entry)
        return cancelled

    def decide(self, now_ns):
        """Expire what is too late and say what to do now; at most one batch a call.

        Returns
        -------
        batchcore.records.Decision

        Raises
        ------
        Exception
            What a policy of the user's own raises, or TypeError or ValueError for an answer of it that is none.
            Nothing is lost: the next call asks again, and tells of what has expired on the way.
        """
        cdef Decision decision
        cdef Running running = Running.__new__(Running)
        cdef int64_t now = instant("now_ns", now_ns)
        cdef tuple expired
        cdef object keep    # the lane that is asked about
        memset(&decision, 0, sizeof(Decision))
        while True:
            machine_decide(&self.machine, now, &decision, &running.flight)
            keep = owner_of(decision.lane)
            self.expired += self.let_go(decision.expired)
            if decision.kind != ASK:
                break
            decision.expired = NULL
            ask(self, self.decider_, &self.machine, &self.lock, now, &decision)
            self.expired += self.let_go(decision.expired)
        expired, self.expired = self.expired, ()
        if decision.kind == DISPATCH:
            running.batch = self.let_go(decision.batch)
            self.in_flight[decision.batch_id] = running
            reason = records.REASONS[<int>decision.reason]
            return records.Decision(
                "dispatch", decision.at_ns, reason, None, decision.batch_id, running.batch, expired,
                None if keep is None else (<KeyLane>keep).key, decision.model_size)
        if decision.kind == WAIT:
            return records.Decision("wait", decision.at_ns, None, decision.wake_at_ns, None, (), expired)
        return records.Decision("idle", decision.at_ns, None, None, None, (), expired)

    def complete(self, now_ns, decision, *, failed=0):
        """End a batch: `failed` of its requests got an error, the others a result.

        Parameters
        ----------
        now_ns : int
            The time.
        decision : batchcore.records.Decision
            The dispatch that this ends.
        failed : int, default 0
            0 to the size of the batch; the last ones of it are marked as failed.

        Raises
        ------
        TypeError
            If `decision` is no Decision.
        ValueError
            If it is not a dispatch of this engine that is in flight, or `failed` is out of range.
        """
        cdef int64_t now = instant("now_ns", now_ns)
        cdef Request request
        cdef Running running
        if not isinstance(decision, records.Decision):
            raise TypeError(f"decision must be a batchcore.records.Decision, not {decision!r}")
        running = self.in_flight.get(decision.batch_id)
        if running is None or running.batch is not decision.batch:
            raise ValueError(f"batch {decision.batch_id} is not in flight here")
        cdef int64_t failures = integer("failed", failed, 0, running.flight.size)
        cdef int64_t successes = running.flight.size - failures
        del self.in_flight[decision.batch_id]
        machine_complete(&self.machine, now, &running.flight, failures)
        for i, request in enumerate(running.batch):
            request.entry.status = COMPLETED if i < successes else FAILED
        if self.hook is not None:
            tell(self.hook, &running.flight)

    def set_capacity(self, now_ns, capacity):
        """Say how many batches may run at once, 0 to MAX_CAPACITY; what runs already is not stopped."""
        cdef int64_t now = instant("now_ns", now_ns)
        cdef int64_t batches = integer("capacity", capacity, 0, MAX_CAPACITY)
        lock(&self.lock)
        self.machine.config.capacity = batches
        self.changed += 1
        machine_tell(&self.machine, now)
        machine_rethink(&self.machine)
        unlock(&self.lock)

    def reconfigure(
        self, now_ns, *, policy=UNCHANGED, max_batch_size=UNCHANGED, max_wait_ns=UNCHANGED, max_latency_ns=UNCHANGED,
        max_queue_size=UNCHANGED,
    ):
        """Change what is given, all at once or, on a bad value, nothing; the next decision follows it.

        A `max_batch_size` above the last bound of its histogram becomes a bound more, while there is room for
        one and nothing was counted above the last.

        Raises
        ------
        TypeError, ValueError
            As at construction; nothing has changed.
        """
        cdef int64_t now = instant("now_ns", now_ns)
        cdef Config config
        cdef int64_t seen
        cdef bint anew = policy is not UNCHANGED
        decider = hook = None
        while True:
            lock(&self.lock)
            config = self.machine.config
            seen = self.changed
            unlock(&self.lock)
            configure(&config, policy, max_batch_size, max_wait_ns, max_latency_ns, max_queue_size)
            check_sizes(self.sizes, config.max_batch_size)
            if anew and config.policy == CUSTOM:
                decider, hook = hooks_of(policy)
            if self.put(now, &config, seen, anew, decider, hook):
                break

    cdef bint put(
        self, int64_t now_ns, const Config *config, int64_t seen, bint anew, object decider, object hook,
    ) except -1:
        """Put a configuration in force, with the hooks of a policy that is `anew`.

        False, and no change, where somebody else did since `seen`: it was made of what holds no more.
        """
        cdef object _decider = None  # let go last: that may run anything, and other threads
        cdef object _hook = None
        cdef bint first
        lock(&self.lock)
        first = self.changed == seen
        if first:
            machine_tell(&self.machine, now_ns)
            if anew:
                _decider = self.decider_
                _hook = self.hook
                self.decider_ = decider
                self.hook = hook
            self.machine.config = config[0]
            self.changed += 1
            machine_rethink(&self.machine)
            histogram_extend(&self.machine.batch_size, config.max_batch_size)
        unlock(&self.lock)
        return first

    cdef object look(self, Machine *copy):
        """Copy the machine as it is at one instant; return the decider of then."""
        cdef object decider
        lock(&self.lock)
        copy[0] = self.machine
        decider = self.decider_
        unlock(&self.lock)
        return decider

    def flush(self, now_ns):
        """Let everything that is queued now leave without waiting, as workers become free."""
        machine_flush(&self.machine, instant("now_ns", now_ns), FLUSH)

    def close(self, now_ns):
        """Take no more requests; let the rest leave without waiting."""
        machine_close(&self.machine, instant("now_ns", now_ns))

    def next_wakeup_ns(self):
        """Return the earliest instant at which `decide` would do something if no event came before, or None.

        An instant that is not after the latest time told means: at once.
        """
        cdef int64_t wake_at_ns
        lock(&self.lock)
        wake_at_ns = machine_next_wakeup_ns(&self.machine)
        unlock(&self.lock)
        return None if wake_at_ns == NEVER_NS else wake_at_ns

    def predict_ns(self, batch_size):
        """Return the expected service time of a batch, ns; None before the first completion."""
        cdef int64_t n = integer("batch_size", batch_size, 1, MAX_BATCH_SIZE)
        cdef int64_t found = -1
        lock(&self.lock)
        if cost_known(&self.machine.cost):
            found = cost_predict_ns(&self.machine.cost, n)
        unlock(&self.lock)
        return None if found < 0 else found

    def stats(self, item_elements=0, batch_elements=0):
        """Return a snapshot of everything the engine counts, and of what it does not.

        Returns
        -------
        batchcore.records.Stats
        """
        cdef Machine copy
        cdef const Machine *machine = &copy
        decider = self.look(&copy)
        return records.Stats(
            submitted=machine.submitted,
            completed=machine.ended[<int>COMPLETED],
            failed=machine.ended[<int>FAILED],
            rejected=machine.rejected,
            expired=machine.ended[<int>EXPIRED],
            cancelled=machine.ended[<int>CANCELLED],
            shut_down=machine.ended[<int>SHUT_DOWN],
            queued=machine.queued,
            running=machine.running,
            in_flight_batches=machine.in_flight,
            batches=machine.batches,
            batches_by_reason={name: machine.by_reason[i] for i, name in enumerate(records.REASONS)},
            batch_size=snapshot(&machine.batch_size),
            queue_delay_ns=snapshot(&machine.queue_delay),
            service_ns=snapshot(&machine.service),
            last_progress_at_ns=None if machine.progress_at_ns == NEVER_NS else machine.progress_at_ns,
            capacity=machine.config.capacity,
            policy=name_of(machine.config.policy, decider),
            max_batch_size=machine.config.max_batch_size,
            max_queue_size=machine.config.max_queue_size,
            max_wait_ns=None if machine.config.max_wait_ns == NEVER_NS else machine.config.max_wait_ns,
            max_latency_ns=None if machine.config.max_latency_ns == NEVER_NS else machine.config.max_latency_ns,
            max_batch_weight=None if machine.config.max_batch_weight == NEVER_NS else machine.config.max_batch_weight,
            keys=len(self.keys),
            item_elements=item_elements,
            batch_elements=batch_elements,
        )

    def past(self):
        """Return the latest 32 batches as `batchcore.records.Past`, oldest first."""
        cdef Machine copy
        cdef const Past *past
        cdef int64_t i
        cdef list found = []
        self.look(&copy)
        for i in range(max(copy.batches - PAST, <int64_t>0) + 1, copy.batches + 1):
            past = &copy.past[i % PAST]
            found.append(records.Past(
                batch_id=past.id, at_ns=past.at_ns, reason=records.REASONS[<int>past.reason], size=past.size,
                left=past.left, waited_ns=past.waited_ns, expected_ns=past.expected_ns or None,
                service_ns=None if past.service_ns == NEVER_NS else past.service_ns))
        return tuple(found)

    def learned(self, now_ns):
        """Return what was learned of `fn` and of the callers, as `batchcore.records.Learned`."""
        cdef Machine copy
        cdef const Cost *cost = &copy.cost
        cdef int64_t now = instant("now_ns", now_ns)
        self.look(&copy)
        now = max(now, copy.now_ns)
        sizes = [<int64_t>(cost.slots[i].n + 0.5) for i in range(SLOTS) if cost.slots[i].seen > 0]
        return records.Learned(
            sizes=tuple([(size, <int64_t>(cost_load_ns(cost, size) + 0.5)) for size in sizes]),
            per_item_ns=cost.slope, per_batch_ns=cost.intercept, deviation=cost.deviation,
            arrivals_per_second=traffic_rate(&copy.traffic, now) * 1e9, closed=traffic_closed(&copy.traffic),
            callers=traffic_callers(&copy.traffic), weighed=copy.config.weighed)

    @property
    def policy(self):
        """Name of the policy in force; of your own, what its function or class is called."""
        cdef Machine copy
        decider = self.look(&copy)
        return name_of(copy.config.policy, decider)

    @property
    def decider(self):
        """What is asked where the policy is your own; None with one of ours."""
        cdef Machine copy
        return self.look(&copy)

    def check(self):
        """Raise RuntimeError if an invariant of the state is broken.  O(n log n); for tests.

        Raises
        ------
        RuntimeError
            Naming the invariant.  A bug in batchcore, never in its caller.
        """
        audit(&self.machine)


cdef object name_of(PolicyId policy, object decider):
    if policy == CUSTOM:
        owner = getattr(decider, "__self__", decider)
        return getattr(owner, "__name__", type(owner).__name__)
    return [name for name, known in POLICIES.items() if known == policy][0]


cdef int configure(
    Config *config, object policy, object max_batch_size, object max_wait_ns, object max_latency_ns,
    object max_queue_size,
) except -1:
    """Write what is given into `config`, a copy that the caller throws away if this raises."""
    if policy is not UNCHANGED:
        if isinstance(policy, str) and policy in POLICIES:
            config.policy = <PolicyId><int>POLICIES[policy]
        else:
            hooks_of(policy)
            config.policy = CUSTOM
    if max_batch_size is not UNCHANGED:
        config.max_batch_size = integer("max_batch_size", max_batch_size, 1, MAX_BATCH_SIZE)
    if max_queue_size is not UNCHANGED:
        config.max_queue_size = integer("max_queue_size", max_queue_size, 1, MAX_QUEUE_SIZE)
    if max_wait_ns is not UNCHANGED:
        config.max_wait_ns = duration("max_wait_ns", max_wait_ns)
    if max_latency_ns is not UNCHANGED:
        config.max_latency_ns = duration("max_latency_ns", max_latency_ns)
    if config.policy == FIXED and config.max_wait_ns == NEVER_NS:
        raise ValueError("policy 'fixed' waits for a full batch and needs max_wait_ns, the longest it may wait")
    return 0
