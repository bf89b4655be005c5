"""A policy of the user's own: what it is shown, what it may answer, and how it is asked.

The machine never calls Python.  Where such a policy is in force it says ASK, and whoever drives it asks here, outside
the lock, and gives the answer back.  What happens meanwhile is not lost: a wait that was decided before the latest
event is void, and a batch is cut to what is queued.
"""

import inspect
import operator

import cython

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from batchcore import records

from batchcore._lock cimport Lock, lock, unlock
from batchcore._types cimport NEVER_NS
from batchcore.cost cimport MAX_SIZE, cost_known, cost_predict_ns
from batchcore.decision cimport Decision, machine_answer, machine_give_up
from batchcore.keys cimport KeyLane, owner_of
from batchcore.lane cimport Entry, lane_soonest
from batchcore.machine cimport Flight, Machine, machine_tell
from batchcore.queue cimport Node, queue_peek
from batchcore.traffic cimport traffic_rate

cdef object instant_of(int64_t instant_ns):
    return None if instant_ns == NEVER_NS else instant_ns


@cython.final
cdef class View:
    """What a policy may know when it is asked: a snapshot; its methods work only inside the call.

    Attributes
    ----------
    now_ns : int
        The time.
    key : object
        Of the requests that wait; what follows of these is of that key alone.
    queued, running : int
        Requests that wait, at least 1, and that are being computed.
    in_flight, capacity : int
        Batches being computed, and that may be at once; there is at least one more of these.
    max_batch_size : int
        Most requests in a batch.
    max_wait_ns, max_latency_ns : int or None
        Limits as configured; keeping them is up to the policy.
    oldest_arrival_ns, newest_arrival_ns : int
        Of the requests that wait.
    earliest_deadline_ns : int or None
        Of the requests that wait.
    last_completion_ns : int or None
        When a batch last ended; None before the first.
    arrivals_per_second : float
        Recent rate of requests, an exponential average over 300 ms.
    """

    def predict_ns(self, n):
        """Return the learned service time of a batch of `n`, ns; None before the first completion."""
        cdef int64_t size
        cdef int64_t found = -1
        n = operator.index(n)
        if not 1 <= n <= MAX_SIZE:
            raise ValueError(f"n is {n}; it must be from 1 to {MAX_SIZE}")
        size = n
        self.enter()
        if cost_known(&self.machine.cost):
            found = cost_predict_ns(&self.machine.cost, size)
        unlock(self.mutex)
        return None if found < 0 else found

    def deadlines(self, n):
        """Return the deadlines, or None, of the `n` soonest requests in their order of service.  O(n)."""
        return self.soonest(n, True)

    def arrivals(self, n):
        """Return the arrival instants of the `n` soonest requests in their order of service.  O(n)."""
        return self.soonest(n, False)

    def busy_until_ns(self):
        """Return when the batches in flight are expected to end, soonest first; now for those that are overdue."""
        cdef const Flight *flight
        cdef int64_t count = 0
        cdef int64_t *ends = <int64_t *>malloc((self.in_flight + 1) * sizeof(int64_t))
        if ends == NULL:
            raise MemoryError
        try:
            self.enter()
            flight = self.machine.first_flight
            while flight != NULL and count < self.in_flight:
                ends[count] = max(flight.dispatched_at_ns + flight.expected_ns, self.now_ns)
                count += 1
                flight = flight.later
            unlock(self.mutex)
            return sorted([ends[i] for i in range(count)])
        finally:
            free(ends)

    @property
    def key(self):
        return None if self.owner is None else (<KeyLane>self.owner).key

    @property
    def max_wait_ns(self):
        return instant_of(self.max_wait)

    @property
    def max_latency_ns(self):
        return instant_of(self.max_latency)

    @property
    def earliest_deadline_ns(self):
        return instant_of(self.earliest_deadline)

    @property
    def last_completion_ns(self):
        return instant_of(self.last_completion)

    cdef list soonest(self, object n, bint deadlines):
        cdef int64_t most = max(min(operator.index(n), <object>self.queued), 0)
        cdef int64_t count = 0
        cdef int64_t i
        cdef Entry **entries = <Entry **>malloc((most + 1) * sizeof(Entry *))
        if entries == NULL:
            raise MemoryError
        try:
            self.enter()
            count = lane_soonest(self.lane, entries, most)
            for i in range(count):
                # In place of the address: a list may not be made under the lock.
                (<int64_t *>entries)[i] = entries[i].deadline_ns if deadlines else entries[i].arrival_ns
            unlock(self.mutex)
            return [instant_of((<int64_t *>entries)[i]) for i in range(count)]
        finally:
            free(entries)

    cdef void fill(self) noexcept:
        """Copy what the machine says now; nothing here may run Python code."""
        cdef const Machine *machine = self.machine
        cdef const Node *expiry = queue_peek(&self.lane.expiry)
        self.changes = machine.changes
        self.batches = machine.batches
        self.now_ns = machine.now_ns
        self.queued = self.lane.queued
        self.running = machine.running
        self.in_flight = machine.in_flight
        self.capacity = machine.config.capacity
        self.max_batch_size = machine.config.max_batch_size
        self.max_wait = machine.config.max_wait_ns
        self.max_latency = machine.config.max_latency_ns
        self.oldest_arrival_ns = self.lane.oldest.arrival_ns
        self.newest_arrival_ns = self.lane.newest.arrival_ns
        self.earliest_deadline = NEVER_NS if expiry == NULL else expiry.key
        self.last_completion = machine.progress_at_ns
        self.arrivals_per_second = traffic_rate(&machine.traffic, machine.now_ns) * 1e9

    cdef int enter(self) except -1:
        """Lock the machine; raise, and leave it, if the call is over."""
        if self.mutex != NULL:      # it is in a view that somebody else made
            lock(self.mutex)
            if self.machine != NULL:
                return 0
            unlock(self.mutex)
        raise RuntimeError("a View is valid only inside the call that it was made for; copy what you need later")


cdef tuple hooks_of(object policy):
    """What to call to decide, and what when a batch has ended, or None: `policy` itself, or its methods."""
    if not isinstance(policy, type):
        decide = getattr(policy, "decide", policy)
        if inspect.iscoroutinefunction(decide):
            raise TypeError(f"policy is {policy!r}, which is async; a policy is asked between events and cannot wait")
        if decide is not policy and callable(decide):
            return decide, getattr(policy, "completed", None)
        if callable(policy):
            return policy, None
    raise ValueError(
        f"policy is {policy!r}; it must be 'adaptive', 'immediate', 'fixed', or a policy of your own: an object with a "
        "method decide(view), or a function of a view")


cdef int64_t number_of(object answer, object value) except? -1:
    """A number in an answer, cut to 64 bits."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return max(min(operator.index(value), NEVER_NS - 1), -NEVER_NS)
    except TypeError:
        raise TypeError(
            f"the policy answered {answer!r}; it must be a number of requests, a Wait(until_ns) or a Drop(count), in "
            "whole numbers") from None


cdef int ask(
    object engine, object decider, Machine *machine, Lock *mutex, int64_t now_ns, Decision *decision,
) except -1:
    """Ask the user's policy and tell the machine; `decision.expired` gets the chain of those it gave up.

    Raises what the policy raises, and TypeError or ValueError for an answer that is none.
    """
    cdef View view = View.__new__(View)
    cdef int64_t until_ns, size
    view.machine = machine
    view.lane = decision.lane
    view.owner = owner_of(view.lane)
    view.mutex = mutex
    view.engine = engine
    lock(mutex)
    machine_tell(machine, now_ns)
    if view.lane.queued > 0 and machine.in_flight < machine.config.capacity:
        view.fill()
    unlock(mutex)
    if view.queued == 0:
        return 0
    try:
        answer = decider(view)
    finally:
        lock(mutex)
        view.machine = NULL
        unlock(mutex)
    if isinstance(answer, records.Wait):
        size = 0
        until_ns = NEVER_NS if answer.until_ns is None else number_of(answer, answer.until_ns)
        if until_ns <= view.now_ns:
            raise ValueError(f"the policy answered {answer!r} at {view.now_ns}; it must name a later instant")
    elif isinstance(answer, records.Drop):
        size = min(number_of(answer, answer.count), view.queued)
        if size < 1:
            raise ValueError(f"the policy answered {answer!r}; it must drop at least 1 request")
        lock(mutex)
        if view.changes == machine.changes:
            machine_give_up(machine, view.lane, now_ns, size, decision)
        unlock(mutex)
        return 0
    else:
        size = min(number_of(answer, answer), view.max_batch_size)
        until_ns = view.now_ns
        if size < 1:
            raise ValueError(f"the policy answered {answer}; it must dispatch at least 1 request, or Wait")
    lock(mutex)
    machine_answer(machine, view.lane, view.changes, view.batches, until_ns, size)
    unlock(mutex)
    return 0


cdef int tell(object hook, const Flight *flight) except -1:
    """Tell the user's policy of a batch that has ended."""
    hook(flight.dispatched_at_ns + flight.service_ns, flight.size, flight.service_ns)
    return 0
