"""What the machine does now: when the next batch leaves, who is in it, and who is too late.

The policy's plan, made once after an event, with the deadlines taken into account.  `machine_decide` carries it out;
`machine_next_wakeup_ns` and `machine_estimate` foretell it.  The same rules as in `machine.pxd` hold for callers.
"""

from libc.stdint cimport int64_t

from batchcore._types cimport (
    ADAPTIVE, ASK, BATCH_DOWN, CHOSEN, CUSTOM, DEADLINE, DISPATCH, DRAIN, EXPIRED, FIXED, IDLE, Kind, NEVER_NS, PAD_UP,
    PROBE, RUNNING, Reason, WAIT,
)
from batchcore._numeric cimport rank_of
from batchcore.adaptive cimport plan_adaptive
from batchcore.cost cimport (
    Cost, MAX_LOAD, MOST_NS, cost_expect_ns, cost_known, cost_load_ns, cost_predict_ns, cost_size_down, cost_size_up,
)
from batchcore.deadline cimport Choice, LOOK, Outlook, careful_ns, choose, needed_size, staggered_size
from batchcore.grouping cimport GROUP_LOOK, group_alike
from batchcore.histogram cimport histogram_add
from batchcore.lane cimport Entry, Lane, READY, WAITING, lane_soonest, of_expiry, of_lateness
from batchcore.machine cimport (
    Flight, Machine, PAST, Past, machine_rethink, machine_settle, machine_stand, machine_tell, machine_unlink,
    machine_wait,
)
from batchcore.policy cimport Plan, View, WAKE_MARGIN_NS, no_later, plan_fixed, plan_immediate
from batchcore.queue cimport Node, queue_peek, queue_put_back, queue_remove
from batchcore.traffic cimport traffic_closed, traffic_moment, traffic_rate

cdef enum:
    FURTHER_LOOKS = 64      # requests that one batch passes over because they are too heavy for what is left of it
    MOST_PASSED = 16        # batches that a request lets others of its lane go before it

cdef struct Decision:
    Kind kind
    Reason reason           # valid when DISPATCH
    int64_t at_ns           # when it was made
    int64_t wake_at_ns      # valid when WAIT
    int64_t batch_id        # valid when DISPATCH
    int64_t batch_size      # valid when DISPATCH
    int64_t model_size      # valid when DISPATCH: with filler
    Lane *lane              # valid when DISPATCH or ASK
    Entry *batch            # valid when DISPATCH: chain by `later`, soonest due first
    Entry *expired          # chain by `later`; NULL: none
    Entry *last_expired     # its end; valid when expired != NULL

cdef struct Load:           # the batch that is being taken
    Entry *last             # NULL: none yet
    int64_t size            # requests
    int64_t weight          # of all of them
    int64_t heaviest        # of one
    int64_t oldest_ns       # earliest arrival

cdef struct Estimate:
    int64_t queue_delay_ns  # of a request that comes now; -1: nothing is known yet
    int64_t service_ns      # of its batch

cdef struct Departure:      # a plan with the deadlines taken into account
    bint asks               # the user's policy has to be asked first; nothing below is valid
    int64_t until_ns        # leave at this instant, or at once if it is not after now
    int64_t skip            # requests to pass over;
    int64_t give_up_ns      # those of them with an earlier deadline end as expired
    int64_t size            # requests to take after them; 0: none, then think again
    Reason reason


cdef inline View machine_view(const Machine *machine, const Lane *lane) noexcept nogil:
    """What a policy may know; something must be queued in the lane."""
    return View(
        now_ns=machine.now_ns,
        queued=lane.queued,
        running=machine.running,
        heavy=lane.weight >= machine.config.max_batch_weight,
        alone=machine.lanes == 1,
        oldest_arrival_ns=lane.oldest.arrival_ns,
        in_flight=machine.in_flight,
        capacity=machine.config.capacity,
        max_batch_size=machine.config.max_batch_size,
        max_wait_ns=machine.config.max_wait_ns,
        max_latency_ns=machine.config.max_latency_ns,
        dispatched_at_ns=machine.dispatched_at_ns,
        moment=machine.moment,
        waits_since_ns=machine.now_ns if lane.waits_since_ns == NEVER_NS else lane.waits_since_ns,
        cost=&machine.cost,
        traffic=&machine.traffic,
    )


cdef inline bint machine_flushes(const Machine *machine, const Lane *lane) noexcept nogil:
    """Whether a flush has something left in the lane."""
    return lane.oldest.order.seq < machine.flush_seq


cdef inline bint machine_lets_go(const Machine *machine, const Lane *lane) noexcept nogil:
    """Whether what is queued leaves without waiting, whatever the policy says."""
    return machine.closed or machine_flushes(machine, lane)


cdef inline bint machine_asks(const Machine *machine, const Lane *lane) noexcept nogil:
    """Whether the user's policy has to be asked before anything can be decided of a lane."""
    return machine.config.policy == CUSTOM and not machine_lets_go(machine, lane) and (
        lane.planned_at != machine.changes or (lane.plan.size == 0 and lane.plan.until_ns <= machine.now_ns))


cdef inline void machine_answer(
    Machine *machine, Lane *lane, int64_t changes, int64_t batches, int64_t until_ns, int64_t size,
) noexcept nogil:
    """What the user's policy said of the state after `changes` and `batches`: dispatch `size` now, or with 0 wait.

    A wait that was decided before the latest event is void, and so is a batch that was before another one left: then
    it is asked again.
    """
    if lane.queued > 0 and batches == machine.batches and (size > 0 or changes == machine.changes):
        size = min(size, min(lane.queued, machine.config.max_batch_size))
        lane.plan = Plan(until_ns=until_ns, size=size, reason=CHOSEN)
        lane.planned_at = machine.changes
        if lane.stand == WAITING:   # somebody else was told to wait meanwhile
            machine_stand(machine, lane, READY)


cdef inline Plan machine_plan(Machine *machine, Lane *lane) noexcept nogil:
    """The policy's plan, made once after an event; a worker must be free."""
    cdef View view
    if lane.planned_at == machine.changes:
        return lane.plan
    traffic_moment(&machine.traffic, machine.now_ns, machine.moment)
    view = machine_view(machine, lane)
    if machine_lets_go(machine, lane):
        lane.plan = plan_immediate(&view)
        if lane.queued < machine.config.max_batch_size:
            lane.plan.reason = machine.flush_reason if machine_flushes(machine, lane) else DRAIN
    elif machine.config.policy == ADAPTIVE:
        lane.plan = plan_adaptive(&view)
    elif machine.config.policy == FIXED:
        lane.plan = plan_fixed(&view)
    else:
        lane.plan = plan_immediate(&view)
    lane.planned_at = machine.changes
    if lane.plan.until_ns > machine.now_ns and lane.waits_since_ns == NEVER_NS:
        lane.waits_since_ns = machine.now_ns
    return lane.plan


cdef inline void machine_look(
    Machine *machine, Lane *lane, Departure *departure, int64_t wanted,
) noexcept nogil:
    """Choose what to pass over and what to take, since the first deadline does not bear the batch that was wanted."""
    cdef Entry *entries[LOOK]
    cdef int64_t deadlines[LOOK]
    cdef int64_t single_ns = careful_ns(&machine.cost, 1)
    cdef int64_t shortest_ns = NEVER_NS
    cdef int64_t longest_ns = 0
    cdef int64_t timeout_ns
    cdef bint last = machine.config.capacity - machine.in_flight == 1
    cdef Outlook outlook
    cdef Choice choice
    cdef int64_t i
    outlook.seen = lane_soonest(lane, entries, LOOK)
    for i in range(outlook.seen):
        deadlines[i] = entries[i].deadline_ns
        timeout_ns = NEVER_NS
        if entries[i].deadline_ns != NEVER_NS:
            timeout_ns = entries[i].deadline_ns - entries[i].arrival_ns
        shortest_ns = min(shortest_ns, timeout_ns)
        longest_ns = max(longest_ns, timeout_ns)
    outlook.deadlines = deadlines
    outlook.mixed = machine.config.capacity == 1 and longest_ns - shortest_ns > shortest_ns // 4
    outlook.queued = lane.queued
    outlook.now_ns = machine.now_ns
    outlook.size_limit = machine.config.max_batch_size if wanted >= lane.queued else wanted
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
    elif lane.queued <= outlook.seen:
        # Nobody can make it by what we believe.  One is tried now and then, or a wrong belief would hold for ever.
        departure.skip = lane.queued - 1
        departure.size = 1
        departure.reason = PROBE
        if machine.in_flight > 0:
            departure.until_ns = NEVER_NS
        elif machine.probe_at_ns > machine.now_ns:
            departure.until_ns = machine.probe_at_ns


cdef inline Departure machine_departure(Machine *machine, Lane *lane) noexcept nogil:
    """When and why the next batch of a lane leaves, and who is in it; a worker must be free."""
    cdef Plan plan = machine_plan(machine, lane)
    cdef Departure departure = Departure(
        asks=False, until_ns=plan.until_ns, skip=0, give_up_ns=0, size=plan.size, reason=plan.reason)
    cdef Node *expiry = queue_peek(&lane.expiry)
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
        departure.size = min(lane.queued, machine.config.max_batch_size)
    if expiry.key < machine.now_ns + careful_ns(&machine.cost, departure.size):
        machine_look(machine, lane, &departure, departure.size)
        return departure
    more = min(lane.queued + 1, machine.config.max_batch_size)
    latest_ns = expiry.key - WAKE_MARGIN_NS - max(
        careful_ns(&machine.cost, departure.size), careful_ns(&machine.cost, more))
    if plan.until_ns > machine.now_ns and latest_ns < plan.until_ns:
        departure.until_ns = latest_ns
        departure.reason = DEADLINE
    elif machine.config.policy == ADAPTIVE and machine.config.capacity > 1 and machine.lanes == 1 and (
            not machine_lets_go(machine, lane) and not traffic_closed(&machine.traffic)):
        # Other workers serve those that come later: a batch that is smaller than needed may wait for more.
        # So may one that waits already, and the instant is announced for both.  The rate is that of when the plan
        # was made, or the announced instant would move.
        enough = needed_size(
            &machine.cost,
            staggered_size(
                &machine.cost, machine.config.max_batch_size, machine.config.capacity,
                expiry.key - of_expiry(expiry).arrival_ns),
            machine.config.capacity, traffic_rate(&machine.traffic, machine.traffic.moment_at_ns))
        # It never waits for longer than that batch takes: nobody may come at all.
        latest_ns = min(latest_ns, lane.oldest.arrival_ns + careful_ns(&machine.cost, enough))
        if lane.queued < enough and latest_ns > max(plan.until_ns, machine.now_ns):
            view = machine_view(machine, lane)
            plan = no_later(&view, Plan(until_ns=latest_ns, size=plan.size, reason=DEADLINE), more)
            if plan.until_ns > departure.until_ns or departure.until_ns <= machine.now_ns:
                departure.until_ns = plan.until_ns
                departure.reason = plan.reason
    return departure


cdef inline int64_t machine_hopeless_ns(const Machine *machine) noexcept nogil:
    """How long before its deadline a queued request is sure to be late: with every worker busy, the fastest batch."""
    if machine.in_flight > 0 and machine.in_flight >= machine.config.capacity:
        return <int64_t>min(machine.cost.fastest_ns, cost_expect_ns(&machine.cost, 1))
    return 0


cdef inline Lane *machine_soonest(Machine *machine, Departure *departure) noexcept nogil:
    """The lane to serve now, or of which to ask the user's policy; NULL: no worker is free, or every lane waits.

    Ready lanes that turn out to wait are put where those that wait are.
    """
    cdef Node *node = queue_peek(&machine.waiting)
    cdef Lane *lane
    if machine.in_flight >= machine.config.capacity:
        return NULL
    while node != NULL and node.key <= machine.now_ns:
        machine_stand(machine, <Lane *>node, READY)
        node = queue_peek(&machine.waiting)
    while True:
        lane = <Lane *>queue_peek(&machine.ready)
        if lane == NULL:
            return NULL
        if lane.account != NULL and rank_of(lane.account.used) != lane.place.key:
            machine_stand(machine, lane, READY)     # another lane of the account was served meanwhile
            continue
        departure.asks = machine_asks(machine, lane)
        if departure.asks:
            return lane
        departure[0] = machine_departure(machine, lane)
        if departure.until_ns <= machine.now_ns:
            return lane
        if lane.plan.size == 0:     # the user's policy is asked again then
            departure.until_ns = min(departure.until_ns, lane.plan.until_ns)
        machine_wait(machine, lane, departure.until_ns)


cdef inline int64_t machine_wakes_ns(const Machine *machine) noexcept nogil:
    """When the first of the lanes that wait is to leave, or the first request is too late, whichever comes first."""
    cdef const Node *late = queue_peek(&machine.late)
    cdef const Node *waiting = queue_peek(&machine.waiting)
    cdef int64_t wake_at_ns = NEVER_NS
    if late != NULL:
        wake_at_ns = late.key - machine_hopeless_ns(machine)
    if waiting != NULL and machine.in_flight < machine.config.capacity:
        wake_at_ns = min(wake_at_ns, waiting.key)
    return wake_at_ns


cdef inline int64_t machine_next_wakeup_ns(Machine *machine) noexcept nogil:
    """The earliest instant at which `machine_decide` would do anything if no event came before.

    Not after `machine.now_ns`: at once.  NEVER_NS: not without an event.
    """
    cdef Departure departure
    if machine_soonest(machine, &departure) != NULL:
        return machine.now_ns
    return machine_wakes_ns(machine)


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


cdef inline int64_t machine_fit(const Machine *machine, int64_t size, int64_t queued) noexcept nogil:
    """How many to take so that the model, which accepts certain sizes only, is given one of them for `size`.

    Where more are queued they take the place of filler.  Else it is filler, or the size before: the cheaper of both a
    request (TensorFlow Serving's rule), or what the options say.
    """
    cdef const Cost *cost = &machine.cost
    cdef int64_t up = cost_size_up(cost, size)
    cdef int64_t down = cost_size_down(cost, size)
    if up <= queued and up <= machine.config.max_batch_size:
        return up
    if down == 0 or machine.config.fitting == PAD_UP:
        return size
    if machine.config.fitting == BATCH_DOWN:
        return down
    if cost_expect_ns(cost, down) * <double>size <= cost_expect_ns(cost, up) * <double>down and cost_known(cost):
        return down
    return size


cdef inline bint load_bears(const Machine *machine, const Load *load, int64_t weight) noexcept nogil:
    """Whether a batch bears one more request of so much weight."""
    if machine.config.padded:
        return (load.size + 1) * max(load.heaviest, weight) <= machine.config.max_batch_weight
    return load.weight + weight <= machine.config.max_batch_weight


cdef inline void machine_take(Machine *machine, Decision *decision, Load *load, Entry *entry) noexcept nogil:
    """Put a queued entry into the batch."""
    machine_unlink(machine, entry, RUNNING)
    histogram_add(&machine.queue_delay, machine.now_ns - entry.arrival_ns)
    load.oldest_ns = min(load.oldest_ns, entry.arrival_ns)
    load.size += 1
    load.weight += entry.weight
    load.heaviest = max(load.heaviest, <int64_t>entry.weight)
    if decision.batch == NULL:
        decision.batch = entry
    else:
        load.last.later = entry
    load.last = entry


cdef inline Node *machine_take_soonest(
    Machine *machine, Lane *lane, int64_t size, Decision *decision, Load *load, Node *passed,
) noexcept nogil:
    """Take up to `size` in order of service.  Of those too heavy for what is left of the batch a few are passed over,
    each in a few batches at most; return the chain of them, the last first, which goes on in `passed`."""
    cdef int64_t looks = FURTHER_LOOKS
    cdef Node *before = passed
    cdef Node *overtaken = passed   # the last of those that some taken came after
    cdef Entry *entry
    while load.size < size and looks > 0:
        entry = <Entry *>queue_peek(&lane.order)
        if entry == NULL:
            break
        if load.size == 0 or load_bears(machine, load, entry.weight):
            machine_take(machine, decision, load, entry)
            overtaken = passed
            continue
        queue_remove(&lane.order, &entry.order)
        entry.order.next = passed
        passed = &entry.order
        if entry.passed >= MOST_PASSED:
            break
        looks -= 1
    while overtaken != before:
        (<Entry *>overtaken).passed += 1
        overtaken = overtaken.next
    return passed


cdef inline void machine_take_alike(
    Machine *machine, Lane *lane, int64_t size, Decision *decision, Load *load,
) noexcept nogil:
    """Take up to `size` of about the same weight, the soonest among them."""
    cdef Entry *entries[GROUP_LOOK]
    cdef int64_t weights[GROUP_LOOK]
    cdef bint taken[GROUP_LOOK]
    cdef int64_t seen = lane_soonest(lane, entries, min(<int64_t>GROUP_LOOK, 4 * size))
    cdef int64_t must = 1
    cdef int64_t heaviest = 0
    cdef int64_t i, left
    for i in range(seen):
        weights[i] = entries[i].weight
        if i > 0 and entries[i].passed >= MOST_PASSED:
            must = i + 1
    left = group_alike(weights, seen, must, size, machine.config.max_batch_weight, taken)
    if left == 0:   # those who must not be passed over any more cannot all go together: nobody is
        for i in range(min(seen, size)):
            heaviest = max(heaviest, weights[i])
            if i > 0 and (i + 1) * heaviest > machine.config.max_batch_weight:
                break
            taken[i] = True
            left += 1
    for i in range(seen):
        if taken[i]:
            machine_take(machine, decision, load, entries[i])
            left -= 1
        elif left > 0:      # some that came later go before it
            entries[i].passed += 1


cdef inline void machine_launch(
    Machine *machine, Lane *lane, Reason reason, const Load *load, Decision *decision, Flight *flight,
) noexcept nogil:
    """Count and remember the batch that has been taken."""
    cdef Past *past
    cdef double work
    decision.model_size = cost_size_up(&machine.cost, load.size)
    flight.size = load.size
    flight.load = decision.model_size
    if machine.config.weighed:
        flight.load = load.size * load.heaviest if machine.config.padded else load.weight
        flight.load = min(flight.load, <int64_t>MAX_LOAD)
        machine.cost.per_request += 0.1 * (<double>flight.load / <double>load.size - machine.cost.per_request)
    if reason == PROBE:
        machine.probe_at_ns = machine.now_ns + 2 * cost_predict_ns(&machine.cost, 1)
    if machine.in_flight == 0 and machine.probe_at_ns > machine.now_ns:
        machine_rethink(machine)    # lanes that wait for their turn to be tried will not get it while something runs
    if lane.account != NULL:
        work = <double>(flight.load if machine.config.weighed else load.weight)
        machine.level = max(machine.level, lane.account.used) + work / max(machine.shares, lane.account.share)
        lane.account.used += work / lane.account.share
    machine.running += load.size
    machine.in_flight += 1
    machine.batches += 1
    machine.by_reason[<int>reason] += 1
    machine.dispatched_at_ns = machine.now_ns
    machine.lost *= 0.9
    machine.kept = machine.kept * 0.9 + <double>load.size
    histogram_add(&machine.batch_size, load.size)
    flight.id = machine.batches
    flight.dispatched_at_ns = flight.started_at_ns = machine.now_ns
    flight.expected_ns = <int64_t>cost_load_ns(&machine.cost, flight.load)
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
    past.size = load.size
    past.left = machine.queued
    past.waited_ns = machine.now_ns - load.oldest_ns
    past.expected_ns = flight.expected_ns
    past.service_ns = NEVER_NS
    past.reason = reason
    decision.kind = DISPATCH
    decision.reason = reason
    decision.batch_id = flight.id
    decision.batch_size = load.size


cdef inline void machine_depart(
    Machine *machine, Lane *lane, const Departure *departure, Decision *decision, Flight *flight,
) noexcept nogil:
    """Do what was chosen: give up, pass over, take."""
    cdef Load load = Load(last=NULL, size=0, weight=0, heaviest=0, oldest_ns=machine.now_ns)
    cdef int64_t size = departure.size
    cdef int64_t kept = 0
    cdef Node *passed = NULL
    cdef Node *node
    cdef Entry *entry
    for _ in range(departure.skip):
        entry = <Entry *>queue_peek(&lane.order)
        if entry.deadline_ns < departure.give_up_ns:
            machine_end_late(machine, decision, entry)
        else:
            queue_remove(&lane.order, &entry.order)
            entry.order.next = passed
            passed = &entry.order
            kept += 1
    if machine.cost.size_count > 0 and size > 0:
        size = machine_fit(machine, size, lane.queued - kept)
    if machine.config.padded and departure.skip == 0 and 0 < size <= GROUP_LOOK // 2:
        machine_take_alike(machine, lane, size, decision, &load)
    else:
        passed = machine_take_soonest(machine, lane, size, decision, &load, passed)
    while passed != NULL:
        node = passed
        passed = node.next
        queue_put_back(&lane.order, node)
    lane.waits_since_ns = NEVER_NS
    if load.size > 0:
        machine_launch(machine, lane, departure.reason, &load, decision, flight)
    machine_settle(machine, lane)


cdef inline void machine_decide(
    Machine *machine, int64_t now_ns, Decision *decision, Flight *flight,
) noexcept nogil:
    """Expire what is too late, then say what to do now.  At most one batch a call, which becomes `flight`."""
    cdef Departure departure
    cdef Node *late
    cdef Lane *lane
    machine_tell(machine, now_ns)
    decision.at_ns = machine.now_ns
    decision.wake_at_ns = NEVER_NS
    decision.batch = decision.expired = NULL
    while True:
        late = queue_peek(&machine.late)
        if late == NULL or late.key - machine_hopeless_ns(machine) > machine.now_ns:
            break
        lane = of_lateness(late)
        machine_end_late(machine, decision, of_expiry(queue_peek(&lane.expiry)))
        machine_settle(machine, lane)
    while True:
        lane = machine_soonest(machine, &departure)
        decision.lane = lane
        if lane == NULL:
            break
        if departure.asks:
            decision.kind = ASK
            return
        machine_depart(machine, lane, &departure, decision, flight)
        if decision.batch != NULL:
            return
    decision.wake_at_ns = machine_wakes_ns(machine)
    decision.kind = IDLE if decision.wake_at_ns == NEVER_NS else WAIT


cdef inline void machine_give_up(
    Machine *machine, Lane *lane, int64_t now_ns, int64_t count, Decision *decision,
) noexcept nogil:
    """End the `count` soonest of a lane as expired, because the user's policy says so; `decision` gets the chain."""
    machine_tell(machine, now_ns)
    decision.expired = NULL
    count = min(count, lane.queued)
    for _ in range(count):
        machine_end_late(machine, decision, <Entry *>queue_peek(&lane.order))
    if count > 0:
        machine_settle(machine, lane)


cdef inline Estimate machine_estimate(Machine *machine, int64_t now_ns) noexcept nogil:
    """What a request of usual priority that came now could expect, if nothing better came after it."""
    cdef Estimate estimate = Estimate(queue_delay_ns=-1, service_ns=0)
    cdef int64_t full = machine.queued // machine.config.max_batch_size
    cdef int64_t start_ns, free_ns
    cdef const Flight *flight
    cdef Departure departure
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
    elif machine_soonest(machine, &departure) == NULL:
        free_ns = machine_wakes_ns(machine)
        if machine.now_ns < free_ns < NEVER_NS:
            start_ns = free_ns
    estimate.service_ns = cost_predict_ns(
        &machine.cost, machine.queued + 1 - full * machine.config.max_batch_size)
    estimate.queue_delay_ns = start_ns - machine.now_ns + <int64_t>min(
        <double>full * cost_expect_ns(&machine.cost, machine.config.max_batch_size) / <double>machine.config.capacity,
        MOST_NS)
    return estimate
