"""What the machine does now: when the next batch leaves, who is in it, and who is too late.

The policy's plan, made once after an event, with the deadlines taken into account.  `machine_decide` carries it out;
`machine_next_wakeup_ns` and `machine_estimate` foretell it.  The same rules as in `machine.pxd` hold for callers.
"""

from libc.stdint cimport int64_t

from batchcore._types cimport (
    ADAPTIVE, ASK, CHOSEN, CUSTOM, DEADLINE, DISPATCH, DRAIN, EXPIRED, FIXED, IDLE, Kind, NEVER_NS, PROBE, RUNNING,
    Reason, WAIT,
)
from batchcore.adaptive cimport plan_adaptive
from batchcore.cost cimport MOST_NS, cost_expect_ns, cost_known, cost_predict_ns
from batchcore.deadline cimport Choice, LOOK, Outlook, careful_ns, choose, needed_size, staggered_size
from batchcore.histogram cimport histogram_add
from batchcore.machine cimport Entry, Flight, Machine, PAST, Past, machine_tell, machine_unlink, of_expiry
from batchcore.policy cimport Plan, View, WAKE_MARGIN_NS, no_later, plan_fixed, plan_immediate
from batchcore.queue cimport Node, queue_peek, queue_put_back, queue_remove
from batchcore.traffic cimport traffic_closed, traffic_moment, traffic_rate

cdef struct Decision:
    Kind kind
    Reason reason           # valid when DISPATCH
    int64_t at_ns           # when it was made
    int64_t wake_at_ns      # valid when WAIT
    int64_t batch_id        # valid when DISPATCH
    int64_t batch_size      # valid when DISPATCH
    Entry *batch            # valid when DISPATCH: chain by `later`, soonest due first
    Entry *expired          # chain by `later`; NULL: none
    Entry *last_expired     # its end; valid when expired != NULL

cdef struct Estimate:
    int64_t queue_delay_ns  # of a request that comes now; -1: nothing is known yet
    int64_t service_ns      # of its batch

cdef struct Departure:      # a plan with the deadlines taken into account
    int64_t until_ns        # leave at this instant, or at once if it is not after now
    int64_t skip            # requests to pass over;
    int64_t give_up_ns      # those of them with an earlier deadline end as expired
    int64_t size            # requests to take after them; 0: none, then think again
    Reason reason


cdef inline View machine_view(const Machine *machine) noexcept nogil:
    """What a policy may know; something must be queued."""
    return View(
        now_ns=machine.now_ns,
        queued=machine.queued,
        running=machine.running,
        oldest_arrival_ns=machine.oldest.arrival_ns,
        in_flight=machine.in_flight,
        capacity=machine.config.capacity,
        max_batch_size=machine.config.max_batch_size,
        max_wait_ns=machine.config.max_wait_ns,
        max_latency_ns=machine.config.max_latency_ns,
        dispatched_at_ns=machine.dispatched_at_ns,
        moment=machine.moment,
        waits_since_ns=machine.now_ns if machine.waits_since_ns == NEVER_NS else machine.waits_since_ns,
        cost=&machine.cost,
        traffic=&machine.traffic,
    )


cdef inline bint machine_ready(const Machine *machine) noexcept nogil:
    """Whether there is a batch to think about: something queued and a worker free."""
    return machine.queued > 0 and machine.in_flight < machine.config.capacity


cdef inline bint machine_lets_go(const Machine *machine) noexcept nogil:
    """Whether what is queued leaves without waiting, whatever the policy says."""
    return machine.flush_left > 0 or machine.closed


cdef inline bint machine_asks(const Machine *machine) noexcept nogil:
    """Whether the user's policy has to be asked before anything can be decided; the machine must be ready."""
    return machine.config.policy == CUSTOM and not machine_lets_go(machine) and (
        not machine.planned or (machine.plan.size == 0 and machine.plan.until_ns <= machine.now_ns))


cdef inline void machine_answer(
    Machine *machine, int64_t changes, int64_t batches, int64_t until_ns, int64_t size,
) noexcept nogil:
    """What the user's policy said of the state after `changes` and `batches`: dispatch `size` now, or with 0 wait.

    A wait that was decided before the latest event is void, and so is a batch that was before another one left: then
    it is asked again.
    """
    if batches == machine.batches and (size > 0 or changes == machine.changes):
        size = min(size, min(machine.queued, machine.config.max_batch_size))
        machine.plan = Plan(until_ns=until_ns, size=size, reason=CHOSEN)
        machine.planned = True


cdef inline Plan machine_plan(Machine *machine) noexcept nogil:
    """The policy's plan, made once after an event; the machine must be ready."""
    cdef View view
    if machine.planned:
        return machine.plan
    traffic_moment(&machine.traffic, machine.now_ns, machine.moment)
    view = machine_view(machine)
    if machine_lets_go(machine):
        machine.plan = plan_immediate(&view)
        if machine.queued < machine.config.max_batch_size:
            machine.plan.reason = machine.flush_reason if machine.flush_left > 0 else DRAIN
    elif machine.config.policy == ADAPTIVE:
        machine.plan = plan_adaptive(&view)
    elif machine.config.policy == FIXED:
        machine.plan = plan_fixed(&view)
    else:
        machine.plan = plan_immediate(&view)
    machine.planned = True
    if machine.plan.until_ns > machine.now_ns and machine.waits_since_ns == NEVER_NS:
        machine.waits_since_ns = machine.now_ns
    return machine.plan


cdef inline void machine_look(Machine *machine, Departure *departure, int64_t wanted) noexcept nogil:
    """Choose what to pass over and what to take, since the first deadline does not bear the batch that was wanted."""
    cdef Entry *entries[LOOK]
    cdef int64_t deadlines[LOOK]
    cdef int64_t single_ns = careful_ns(&machine.cost, 1)
    cdef Node *node = queue_peek(&machine.order)
    cdef int64_t shortest_ns = NEVER_NS
    cdef int64_t longest_ns = 0
    cdef int64_t timeout_ns
    cdef bint last = machine.config.capacity - machine.in_flight == 1
    cdef Outlook outlook
    cdef Choice choice
    cdef int64_t i
    outlook.seen = 0
    while node != NULL and outlook.seen < LOOK:
        queue_remove(&machine.order, node)
        entries[outlook.seen] = <Entry *>node
        deadlines[outlook.seen] = entries[outlook.seen].deadline_ns
        timeout_ns = NEVER_NS
        if entries[outlook.seen].deadline_ns != NEVER_NS:
            timeout_ns = entries[outlook.seen].deadline_ns - entries[outlook.seen].arrival_ns
        shortest_ns = min(shortest_ns, timeout_ns)
        longest_ns = max(longest_ns, timeout_ns)
        outlook.seen += 1
        node = queue_peek(&machine.order)
    for i in range(outlook.seen - 1, -1, -1):
        queue_put_back(&machine.order, &entries[i].order)
    outlook.deadlines = deadlines
    outlook.mixed = machine.config.capacity == 1 and longest_ns - shortest_ns > shortest_ns // 4
    outlook.queued = machine.queued
    outlook.now_ns = machine.now_ns
    outlook.size_limit = machine.config.max_batch_size if wanted >= machine.queued else wanted
    if machine.config.capacity > 1:
        outlook.size_limit = staggered_size(
            &machine.cost, outlook.size_limit, machine.config.capacity, shortest_ns)
    outlook.lost = machine.lost
    outlook.kept = machine.kept
    outlook.cost = &machine.cost
    choice = choose(&outlook)
    if choice.skip > 0 or choice.size != wanted or departure.until_ns > machine.now_ns:
        departure.reason = DEADLINE
    departure.until_ns = machine.now_ns
    departure.skip = choice.skip
    departure.size = choice.size
    departure.give_up_ns = machine.now_ns + single_ns
    if choice.size > 0:
        if last:
            departure.give_up_ns += careful_ns(&machine.cost, choice.size)
    elif machine.queued <= outlook.seen:
        # Nobody can make it by what we believe.  One is tried now and then, or a wrong belief would hold for ever.
        departure.skip = machine.queued - 1
        departure.size = 1
        departure.reason = PROBE
        if machine.in_flight > 0:
            departure.until_ns = NEVER_NS
        elif machine.probe_at_ns > machine.now_ns:
            departure.until_ns = machine.probe_at_ns


cdef inline Departure machine_departure(Machine *machine) noexcept nogil:
    """When and why the next batch leaves, and who is in it; the machine must be ready."""
    cdef Plan plan = machine_plan(machine)
    cdef Departure departure = Departure(
        until_ns=plan.until_ns, skip=0, give_up_ns=0, size=plan.size, reason=plan.reason)
    cdef Node *expiry = queue_peek(&machine.expiry)
    cdef int64_t more, enough, latest_ns
    cdef View view
    if expiry == NULL:
        return departure
    if not cost_known(&machine.cost):
        if departure.until_ns > machine.now_ns and machine.config.policy != CUSTOM:
            departure.until_ns = machine.now_ns     # no wait is known to be safe; this batch teaches
            departure.reason = DEADLINE
        return departure
    if plan.size == 0:      # the user's policy waits; no longer than the first deadline bears
        departure.size = min(machine.queued, machine.config.max_batch_size)
    if expiry.key < machine.now_ns + careful_ns(&machine.cost, departure.size):
        machine_look(machine, &departure, departure.size)
        return departure
    more = min(machine.queued + 1, machine.config.max_batch_size)
    latest_ns = expiry.key - WAKE_MARGIN_NS - max(
        careful_ns(&machine.cost, departure.size), careful_ns(&machine.cost, more))
    if plan.until_ns > machine.now_ns:
        if latest_ns < plan.until_ns:
            departure.until_ns = latest_ns
            departure.reason = DEADLINE
    elif machine.config.policy == ADAPTIVE and machine.config.capacity > 1 and not machine_lets_go(machine) and (
            not traffic_closed(&machine.traffic)):
        # Other workers serve those that come later: a batch that is smaller than needed may wait for more.
        # The rate is that of when the plan was made, or the announced instant would move.
        enough = needed_size(
            &machine.cost,
            staggered_size(
                &machine.cost, machine.config.max_batch_size, machine.config.capacity,
                expiry.key - of_expiry(expiry).arrival_ns),
            machine.config.capacity, traffic_rate(&machine.traffic, machine.traffic.moment_at_ns))
        # It never waits for longer than that batch takes: nobody may come at all.
        latest_ns = min(latest_ns, machine.oldest.arrival_ns + careful_ns(&machine.cost, enough))
        if machine.queued < enough and latest_ns > machine.now_ns:
            view = machine_view(machine)
            plan = no_later(&view, Plan(until_ns=latest_ns, size=plan.size, reason=DEADLINE), more)
            departure.until_ns = plan.until_ns
            departure.reason = plan.reason
    return departure


cdef inline int64_t machine_hopeless_ns(const Machine *machine) noexcept nogil:
    """How long before its deadline a queued request is sure to be late: with every worker busy, the fastest batch."""
    if machine.in_flight > 0 and machine.in_flight >= machine.config.capacity:
        return <int64_t>min(machine.cost.fastest_ns, cost_expect_ns(&machine.cost, 1))
    return 0


cdef inline int64_t machine_next_wakeup_ns(Machine *machine) noexcept nogil:
    """The earliest instant at which `machine_decide` would do anything if no event came before.

    Not after `machine.now_ns`: at once.  NEVER_NS: not without an event.
    """
    cdef Node *expiry = queue_peek(&machine.expiry)
    cdef int64_t wake_at_ns = NEVER_NS
    cdef int64_t until_ns
    if expiry != NULL:
        wake_at_ns = expiry.key - machine_hopeless_ns(machine)
    if machine_ready(machine):
        if machine_asks(machine):
            return machine.now_ns
        until_ns = machine_departure(machine).until_ns
        if until_ns < wake_at_ns:
            wake_at_ns = until_ns
    return wake_at_ns


cdef inline void machine_end_late(Machine *machine, Decision *decision, Entry *entry) noexcept nogil:
    """End a queued entry as expired."""
    machine_unlink(machine, entry, EXPIRED)
    machine.ended[<int>EXPIRED] += 1
    machine.lost += 1.0
    if decision.expired == NULL:
        decision.expired = entry
    else:
        decision.last_expired.later = entry
    decision.last_expired = entry


cdef inline void machine_depart(
    Machine *machine, const Departure *departure, Decision *decision, Flight *flight,
) noexcept nogil:
    """Do what was chosen: give up, pass over, take."""
    cdef Entry *entry
    cdef Entry *last = NULL
    cdef Node *passed = NULL
    cdef Node *node
    cdef Past *past
    cdef int64_t oldest_ns = machine.now_ns
    for _ in range(departure.skip):
        entry = <Entry *>queue_peek(&machine.order)
        if entry.deadline_ns < departure.give_up_ns:
            machine_end_late(machine, decision, entry)
        else:
            queue_remove(&machine.order, &entry.order)
            entry.order.next = passed
            passed = &entry.order
    for _ in range(departure.size):
        entry = <Entry *>queue_peek(&machine.order)
        machine_unlink(machine, entry, RUNNING)
        histogram_add(&machine.queue_delay, machine.now_ns - entry.arrival_ns)
        oldest_ns = min(oldest_ns, entry.arrival_ns)
        if last == NULL:
            decision.batch = entry
        else:
            last.later = entry
        last = entry
    while passed != NULL:
        node = passed
        passed = node.next
        queue_put_back(&machine.order, node)
    if departure.size == 0:
        return
    if departure.reason == PROBE:
        machine.probe_at_ns = machine.now_ns + 2 * cost_predict_ns(&machine.cost, 1)
    machine.running += departure.size
    machine.in_flight += 1
    machine.batches += 1
    machine.by_reason[<int>departure.reason] += 1
    machine.dispatched_at_ns = machine.now_ns
    machine.waits_since_ns = NEVER_NS
    machine.lost *= 0.9
    machine.kept = machine.kept * 0.9 + <double>departure.size
    histogram_add(&machine.batch_size, departure.size)
    flight.id = machine.batches
    flight.dispatched_at_ns = machine.now_ns
    flight.size = departure.size
    flight.expected_ns = cost_predict_ns(&machine.cost, departure.size)
    flight.earlier = machine.last_flight
    flight.later = NULL
    if machine.last_flight != NULL:
        machine.last_flight.later = flight
    else:
        machine.first_flight = flight
    machine.last_flight = flight
    past = &machine.past[flight.id % PAST]
    past.id = flight.id
    past.at_ns = machine.now_ns
    past.size = departure.size
    past.left = machine.queued
    past.waited_ns = machine.now_ns - oldest_ns
    past.expected_ns = flight.expected_ns
    past.service_ns = NEVER_NS
    past.reason = departure.reason
    decision.kind = DISPATCH
    decision.reason = departure.reason
    decision.batch_id = flight.id
    decision.batch_size = departure.size


cdef inline void machine_decide(
    Machine *machine, int64_t now_ns, Decision *decision, Flight *flight,
) noexcept nogil:
    """Expire what is too late, then say what to do now.  At most one batch a call, which becomes `flight`."""
    cdef Departure departure
    cdef Node *expiry
    machine_tell(machine, now_ns)
    decision.at_ns = machine.now_ns
    decision.wake_at_ns = NEVER_NS
    decision.batch = decision.expired = NULL
    while True:
        expiry = queue_peek(&machine.expiry)
        if expiry == NULL or expiry.key - machine_hopeless_ns(machine) > machine.now_ns:
            break
        machine_end_late(machine, decision, of_expiry(expiry))
    while machine_ready(machine):
        if machine_asks(machine):
            decision.kind = ASK
            return
        departure = machine_departure(machine)
        if departure.until_ns > machine.now_ns:
            decision.wake_at_ns = departure.until_ns
            break
        machine_depart(machine, &departure, decision, flight)
        if departure.size > 0:
            return
    expiry = queue_peek(&machine.expiry)
    if expiry != NULL:
        decision.wake_at_ns = min(decision.wake_at_ns, expiry.key - machine_hopeless_ns(machine))
    decision.kind = IDLE if decision.wake_at_ns == NEVER_NS else WAIT


cdef inline void machine_give_up(Machine *machine, int64_t now_ns, int64_t count, Decision *decision) noexcept nogil:
    """End the `count` soonest as expired, because the user's policy says so; `decision` gets the chain of them."""
    machine_tell(machine, now_ns)
    decision.expired = NULL
    for _ in range(min(count, machine.queued)):
        machine_end_late(machine, decision, <Entry *>queue_peek(&machine.order))


cdef inline Estimate machine_estimate(Machine *machine, int64_t now_ns) noexcept nogil:
    """What a request of usual priority that came now could expect, if nothing better came after it."""
    cdef Estimate estimate = Estimate(queue_delay_ns=-1, service_ns=0)
    cdef int64_t full = machine.queued // machine.config.max_batch_size
    cdef int64_t start_ns, free_ns
    cdef const Flight *flight
    machine_tell(machine, now_ns)
    if not cost_known(&machine.cost) or machine.config.capacity == 0:
        return estimate
    start_ns = machine.now_ns
    if machine.in_flight >= machine.config.capacity:
        start_ns = NEVER_NS
        flight = machine.first_flight
        while flight != NULL:
            free_ns = max(flight.dispatched_at_ns + flight.expected_ns, machine.now_ns)
            start_ns = min(start_ns, free_ns)
            flight = flight.later
    elif machine.queued > 0 and not machine_asks(machine):
        free_ns = machine_departure(machine).until_ns
        if machine.now_ns < free_ns < NEVER_NS:
            start_ns = free_ns
    estimate.service_ns = cost_predict_ns(
        &machine.cost, machine.queued + 1 - full * machine.config.max_batch_size)
    estimate.queue_delay_ns = start_ns - machine.now_ns + <int64_t>min(
        <double>full * cost_expect_ns(&machine.cost, machine.config.max_batch_size) / <double>machine.config.capacity,
        MOST_NS)
    return estimate
