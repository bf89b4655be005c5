"""The scheduler's state machine: what it is made of, and its events.  What it does about them is in `decision.pxd`, the
theory of operation in docs/design.md.

Every function takes the time and none reads a clock, allocates, blocks, calls Python or fails.  Whoever calls holds the
lock of the machine (see `_lock.pxd`) for the length of one call.  Entries live inside their owners' objects: an entry
that is queued must stay where it is, and the owner keeps it alive until the machine has let go of it.

Order of service: by (due, seq), due = min(deadline, arrival + aging / 2) + priority * aging.  All keys are fixed at
submit, so ageing costs nothing: a request of a worse priority is passed only by those that come within a bounded time.

Invariants (`audit.pyx`; the tests ask for it after every step): the queued entries of a lane are in its `order` and in
its list of arrivals, those with a deadline in its `expiry` too, nothing else is; arrivals are sorted by time and seq;
lanes with something queued are ready or waiting, and late by their earliest deadline, no others are;
submitted = queued + running + the sum of all ends.

Cost: submit, cancel and a request's share of a dispatch are O(1) for sorted streams and amortised O(log n) else
(`queue.pxd`); a decision is O(1) plus what it takes out.
"""

from libc.stdint cimport int32_t, int64_t

from batchcore._types cimport (
    ACCEPTED, Answer, CANCELLED, CLOSED, COMPLETED, ENDED, EXPIRED, FAILED, FIXED, Fitting, NEVER_NS, NO_ROOM,
    PolicyId, QUEUED, REASON_COUNT, Reason, SHUT_DOWN, STATUS_COUNT, Status,
)
from batchcore._numeric cimport rank_of
from batchcore.cost cimport Cost, cost_learn
from batchcore.histogram cimport Histogram, histogram_add
from batchcore.lane cimport Account, EMPTY, Entry, Lane, READY, Stand, WAITING
from batchcore.queue cimport Node, Queue, queue_peek, queue_push, queue_remove
from batchcore.traffic cimport AFTER_COMPLETION, FURTHER, INTO_IDLE, Moment, Traffic, traffic_arrive, traffic_complete

cdef enum:
    PAST = 32       # latest batches remembered, for explanations

cdef struct Config:
    int64_t max_batch_size  # requests, at least 1
    int64_t max_queue_size  # requests, at least 1
    int64_t max_wait_ns     # NEVER_NS: no limit
    int64_t max_latency_ns  # NEVER_NS: no limit
    int64_t aging_ns        # head start of a priority level
    int64_t capacity        # batches that may run at once; 0 pauses
    PolicyId policy
    int64_t max_batch_weight    # NEVER_NS: no limit
    bint weighed            # what a batch takes goes by its weight
    bint overweight         # a request heavier than that is taken, alone in its batch; else refused
    bint padded             # a batch weighs as if all its requests were as heavy as the heaviest of them
    Fitting fitting         # valid with Cost.sizes

cdef struct Flight:         # a batch that runs; lives inside its owner's object
    Flight *earlier         # in order of dispatch
    Flight *later
    int64_t id              # 1 for the first batch of a machine
    int64_t dispatched_at_ns
    int64_t started_at_ns   # when fn was given it
    int64_t size            # requests
    int64_t load            # what the model is loaded with: requests with filler, or their weight
    int64_t expected_ns     # service time predicted at dispatch; 0: nothing was known
    int64_t service_ns      # what it took; valid when it has ended
    Entry *entries          # for its owner: the chain of its requests, while that is taken over; else NULL

cdef struct Past:           # what is remembered of a batch
    int64_t id              # 0: none yet
    int64_t at_ns           # dispatch
    int64_t size            # requests
    int64_t left            # requests that stayed in the queue
    int64_t waited_ns       # queue delay of the oldest request taken
    int64_t expected_ns     # service time predicted at dispatch; 0: nothing was known
    int64_t service_ns      # what it took; NEVER_NS while it runs
    Reason reason

cdef struct Machine:
    Config config
    Lane main               # of requests without a key
    Lane *first_lane        # lanes with something queued, in no order
    int64_t lanes           # how many they are
    Queue ready             # those of them that may leave now, by rank
    Queue waiting           # those that wait, by the instant
    Queue late              # those with deadlines, by the earliest
    double level            # Account.used of one that was idle for long
    double shares           # of the accounts with something queued, together
    int64_t now_ns          # the latest time told; time never goes back
    int64_t next_seq        # seq of the next submit
    int64_t flush_seq       # queued entries below this seq leave without waiting
    Reason flush_reason     # FLUSH or DRAIN; of those
    int64_t queued          # entries
    int64_t running         # entries
    int64_t in_flight       # batches
    int64_t batches         # dispatched ever; the id of the latest
    int64_t submitted       # entries ever, the rejected ones included
    int64_t rejected        # entries ever
    int64_t ended[STATUS_COUNT]     # entries ever, by the Status they ended with
    int64_t by_reason[REASON_COUNT]     # batches ever
    int64_t progress_at_ns  # latest completion; NEVER_NS before the first
    int64_t dispatched_at_ns    # latest dispatch; START_NS before the first
    int64_t probe_at_ns     # no hopeless request is tried before
    Flight *first_flight    # batches in flight, in order of dispatch
    Flight *last_flight
    int64_t changes         # events that a plan may depend on, ever
    Moment moment           # what the last of them was
    double lost             # decayed counts of requests that were too late,
    double kept             # and of those dispatched
    Cost cost
    Traffic traffic
    Past past[PAST]         # by batch id modulo PAST
    Histogram batch_size    # requests a dispatched batch
    Histogram queue_delay   # ns a dispatched request
    Histogram service       # ns a completed batch
    bint closed             # takes no more and drains

cdef inline void machine_tell(Machine *machine, int64_t now_ns) noexcept nogil:
    """Clocks are read before the lock is taken, so times may arrive out of order: the latest one holds."""
    if now_ns > machine.now_ns:
        machine.now_ns = now_ns


cdef inline void machine_change(Machine *machine) noexcept nogil:
    """Something happened that a plan may depend on."""
    machine.changes += 1


cdef inline int64_t lane_rank(const Lane *lane) noexcept nogil:
    """The place of a ready lane among its like: the lesser is served sooner."""
    return queue_peek(&lane.order).key if lane.account == NULL else rank_of(lane.account.used)


cdef inline void machine_stand(Machine *machine, Lane *lane, Stand stand) noexcept nogil:
    """Take a lane from where it stands and put it among the ready ones, or nowhere."""
    if lane.stand == stand == READY and machine.lanes == 1:     # as nearly always
        lane.place.key = lane_rank(lane)
        return
    if lane.stand == READY:
        queue_remove(&machine.ready, &lane.place)
    elif lane.stand == WAITING:
        queue_remove(&machine.waiting, &lane.place)
    lane.stand = stand
    if stand == READY:
        lane.place.key = lane_rank(lane)
        lane.place.seq = queue_peek(&lane.order).seq
        queue_push(&machine.ready, &lane.place)


cdef inline void machine_wait(Machine *machine, Lane *lane, int64_t until_ns) noexcept nogil:
    """Put a ready lane among those that wait."""
    queue_remove(&machine.ready, &lane.place)
    lane.stand = WAITING
    lane.place.key = until_ns
    queue_push(&machine.waiting, &lane.place)


cdef inline void machine_rethink(Machine *machine) noexcept nogil:
    """Something happened that the plan of any lane may depend on: none waits for what it waited for."""
    cdef Node *node = queue_peek(&machine.waiting)
    machine_change(machine)
    while node != NULL:
        machine_stand(machine, <Lane *>node, READY)
        node = queue_peek(&machine.waiting)


cdef inline void machine_late(Machine *machine, Lane *lane) noexcept nogil:
    """See to the place of a lane by its earliest deadline."""
    cdef Node *expiry = queue_peek(&lane.expiry)
    if expiry != NULL and lane.lateness.key == expiry.key and lane.lateness.seq == expiry.seq:
        return
    if lane.lateness.key != NEVER_NS:
        queue_remove(&machine.late, &lane.lateness)
        lane.lateness.key = NEVER_NS
    if expiry != NULL:
        lane.lateness.key = expiry.key
        lane.lateness.seq = expiry.seq
        queue_push(&machine.late, &lane.lateness)


cdef inline void machine_settle(Machine *machine, Lane *lane) noexcept nogil:
    """See to the places of a lane after entries have left it."""
    machine_change(machine)
    machine_late(machine, lane)
    if lane.queued > 0:
        machine_stand(machine, lane, READY)
        return
    machine_stand(machine, lane, EMPTY)
    lane.waits_since_ns = NEVER_NS
    if lane.account != NULL:
        lane.account.lanes -= 1
        if lane.account.lanes == 0:
            machine.shares -= lane.account.share
    if lane.earlier != NULL:
        lane.earlier.later = lane.later
    else:
        machine.first_lane = lane.later
    if lane.later != NULL:
        lane.later.earlier = lane.earlier
    lane.earlier = lane.later = NULL
    machine.lanes -= 1
    if machine.lanes == 1:
        machine_rethink(machine)
    elif machine.lanes == 0:
        machine.shares = 0.0    # what rounding has left


cdef inline void machine_fill(Machine *machine, Lane *lane) noexcept nogil:
    """Take up a lane that has got its first entry."""
    if lane.account != NULL:
        if lane.account.lanes == 0:
            lane.account.used = max(lane.account.used, machine.level)
            machine.shares += lane.account.share
        lane.account.lanes += 1
    lane.later = machine.first_lane
    if lane.later != NULL:
        lane.later.earlier = lane
    machine.first_lane = lane
    machine.lanes += 1
    if machine.lanes == 2:
        machine_rethink(machine)


cdef inline void machine_unlink(Machine *machine, Entry *entry, Status status) noexcept nogil:
    """Take a queued entry out of every list; `machine_settle` must follow."""
    cdef Lane *lane = entry.lane
    queue_remove(&lane.order, &entry.order)
    if entry.deadline_ns != NEVER_NS:
        queue_remove(&lane.expiry, &entry.expiry)
    if entry.earlier != NULL:
        entry.earlier.later = entry.later
    else:
        lane.oldest = entry.later
    if entry.later != NULL:
        entry.later.earlier = entry.earlier
    else:
        lane.newest = entry.earlier
    entry.earlier = entry.later = NULL
    lane.queued -= 1
    lane.weight -= entry.weight
    machine.queued -= 1
    entry.status = status


cdef inline Answer machine_submit(
    Machine *machine, int64_t now_ns, Lane *lane, Entry *entry, int64_t deadline_ns, int32_t priority, int32_t weight,
) noexcept nogil:
    """Queue a NEW entry.  On NO_ROOM and CLOSED nothing has changed; `machine_reject` counts a refusal that stands."""
    cdef int64_t due_ns
    now_ns = max(now_ns, machine.now_ns)
    if machine.closed:
        return CLOSED
    if deadline_ns > now_ns and machine.queued >= machine.config.max_queue_size:
        return NO_ROOM
    machine.now_ns = now_ns
    entry.arrival_ns = now_ns
    entry.deadline_ns = deadline_ns
    entry.priority = priority
    entry.weight = weight
    entry.passed = 0
    machine.submitted += 1
    if deadline_ns <= now_ns:
        entry.status = EXPIRED
        machine.ended[<int>EXPIRED] += 1
        return ENDED
    due_ns = now_ns + machine.config.aging_ns // 2
    entry.order.key = (deadline_ns if deadline_ns < due_ns else due_ns) + priority * machine.config.aging_ns
    entry.order.seq = machine.next_seq
    machine.next_seq += 1
    queue_push(&lane.order, &entry.order)
    if deadline_ns != NEVER_NS:
        entry.expiry.key = deadline_ns
        entry.expiry.seq = entry.order.seq
        queue_push(&lane.expiry, &entry.expiry)
        if deadline_ns < lane.lateness.key:
            machine_late(machine, lane)
    entry.lane = lane
    entry.earlier = lane.newest
    entry.later = NULL
    if lane.newest != NULL:
        lane.newest.later = entry
    else:
        lane.oldest = entry
    lane.newest = entry
    entry.status = QUEUED
    lane.queued += 1
    lane.weight += weight
    machine.queued += 1
    machine.moment = INTO_IDLE if machine.queued == 1 else FURTHER
    machine_change(machine)
    if lane.queued == 1:
        machine_fill(machine, lane)
    if lane.stand != READY or (
            entry.order.key < lane.place.key if lane.account == NULL else queue_peek(&lane.order) == &entry.order):
        machine_stand(machine, lane, READY)
    if machine.config.weighed and machine.cost.per_request == 0.0:
        machine.cost.per_request = weight
    traffic_arrive(&machine.traffic, now_ns, machine.queued + machine.running)
    return ACCEPTED


cdef inline void machine_reject(Machine *machine, int64_t count) noexcept nogil:
    """Count requests that were refused for good because the queue was full."""
    machine.submitted += count
    machine.rejected += count


cdef inline bint machine_cancel(Machine *machine, int64_t now_ns, Entry *entry) noexcept nogil:
    """End a queued entry for its caller; False, and no change, where it is not queued."""
    if entry.status != QUEUED:
        return False
    machine_tell(machine, now_ns)
    machine_unlink(machine, entry, CANCELLED)
    machine_settle(machine, entry.lane)
    machine.ended[<int>CANCELLED] += 1
    return True


cdef inline Entry *machine_clear(Machine *machine, int64_t now_ns, Status status) noexcept nogil:
    """End everything that is queued, as CANCELLED or SHUT_DOWN; return the chain of it, oldest first in each lane."""
    cdef Entry *entry
    cdef Entry *first = NULL
    cdef Lane *lane = machine.first_lane
    machine_tell(machine, now_ns)
    while lane != NULL:
        while lane.newest != NULL:
            entry = lane.newest
            machine_unlink(machine, entry, status)
            machine.ended[<int>status] += 1
            entry.later = first
            first = entry
        machine_settle(machine, lane)
        lane = machine.first_lane
    return first


cdef inline void machine_land(Machine *machine, int64_t now_ns, Flight *flight) noexcept nogil:
    """Take a batch out of those in flight."""
    machine_tell(machine, now_ns)
    if flight.earlier != NULL:
        flight.earlier.later = flight.later
    else:
        machine.first_flight = flight.later
    if flight.later != NULL:
        flight.later.earlier = flight.earlier
    else:
        machine.last_flight = flight.earlier
    machine.running -= flight.size
    machine.in_flight -= 1
    machine.moment = AFTER_COMPLETION
    if machine.config.policy == FIXED and (
            machine.config.max_latency_ns == NEVER_NS and queue_peek(&machine.late) == NULL):
        machine_change(machine)     # windows end when they end: thousands of lanes go on waiting
    else:
        machine_rethink(machine)


cdef inline void machine_start(Flight *flight, int64_t now_ns) noexcept nogil:
    """Note that what comes from here on is the model's time; else that counts from the dispatch."""
    flight.started_at_ns = now_ns


cdef inline void machine_complete(Machine *machine, int64_t now_ns, Flight *flight, int64_t failed) noexcept nogil:
    """End a batch in flight; `failed` of its requests got an error.  The caller marks the entries."""
    cdef int64_t service_ns
    machine_land(machine, now_ns, flight)
    service_ns = flight.service_ns = max(machine.now_ns - flight.started_at_ns, <int64_t>0)
    machine.ended[<int>FAILED] += failed
    machine.ended[<int>COMPLETED] += flight.size - failed
    machine.progress_at_ns = machine.now_ns
    histogram_add(&machine.service, service_ns)
    if failed < flight.size:    # how soon fn raises says nothing of how long it takes
        cost_learn(&machine.cost, flight.load, service_ns)
    traffic_complete(
        &machine.traffic, machine.now_ns, service_ns // max(machine.config.capacity, <int64_t>1), flight.size,
        machine.queued + machine.running)
    if machine.past[flight.id % PAST].id == flight.id:
        machine.past[flight.id % PAST].service_ns = service_ns


cdef inline void machine_abandon(Machine *machine, int64_t now_ns, Flight *flight) noexcept nogil:
    """End a batch in flight that nobody will finish any more; nothing is learned from it."""
    machine_land(machine, now_ns, flight)
    machine.ended[<int>SHUT_DOWN] += flight.size


cdef inline void machine_flush(Machine *machine, int64_t now_ns, Reason reason) noexcept nogil:
    """Let everything queued now leave without waiting, for `reason` (FLUSH or DRAIN)."""
    machine_tell(machine, now_ns)
    machine_rethink(machine)
    machine.flush_seq = machine.next_seq
    machine.flush_reason = reason


cdef inline void machine_close(Machine *machine, int64_t now_ns) noexcept nogil:
    """Take no more; let the rest leave without waiting."""
    machine_tell(machine, now_ns)
    machine_rethink(machine)
    machine.closed = True
