"""The scheduler's state machine: what it is made of, and its events.  What it does about them is in `decision.pxd`, the
theory of operation in docs/design.md.

Every function takes the time and none reads a clock, allocates, blocks, calls Python or fails.  Whoever calls holds the
lock of the machine (see `_lock.pxd`) for the length of one call.  Entries live inside their owners' objects: an entry
that is queued must stay where it is, and the owner keeps it alive until the machine has let go of it.

Order of service: by (due, seq), due = min(deadline, arrival + aging / 2) + priority * aging.  All keys are fixed at
submit, so ageing costs nothing: a request of a worse priority is passed only by those that come within a bounded time.

Invariants (`machine_check`; the tests ask for it after every step): `queued` entries are in `order` and in the list of
arrivals, those with a deadline in `expiry` too, nothing else is; arrivals are sorted by time and seq;
submitted = queued + running + the sum of all ends.

Cost: submit, cancel and a request's share of a dispatch are O(1) for sorted streams and amortised O(log n) else
(`queue.pxd`); a decision is O(1) plus what it takes out.
"""

from libc.stdint cimport int32_t, int64_t

from batchcore._types cimport (
    ACCEPTED, Answer, CANCELLED, CLOSED, COMPLETED, ENDED, EXPIRED, FAILED, NEVER_NS, NO_ROOM, PolicyId, QUEUED,
    REASON_COUNT, Reason, SHUT_DOWN, STATUS_COUNT, Status,
)
from batchcore.cost cimport Cost, cost_learn
from batchcore.histogram cimport Histogram, histogram_add
from batchcore.policy cimport Plan
from batchcore.queue cimport Node, Queue, queue_push, queue_remove
from batchcore.traffic cimport AFTER_COMPLETION, FURTHER, INTO_IDLE, Moment, Traffic, traffic_arrive, traffic_complete

cdef enum:
    PAST = 32       # latest batches remembered, for explanations

cdef struct Entry:
    Node order              # place in Machine.order; first, so that a Node of order is its Entry
    Node expiry             # place in Machine.expiry; valid when deadline_ns != NEVER_NS and QUEUED
    Entry *earlier          # arrivals: the one before; valid when QUEUED
    Entry *later            # arrivals: the one after; valid when QUEUED; else next in the chain handed out
    int64_t arrival_ns      # instant of submit
    int64_t deadline_ns     # instant after which an answer is worthless; NEVER_NS: none
    void *owner             # whose entry this is; never looked at here
    int32_t priority        # lower is sooner
    Status status

cdef struct Config:
    int64_t max_batch_size  # requests, at least 1
    int64_t max_queue_size  # requests, at least 1
    int64_t max_wait_ns     # NEVER_NS: no limit
    int64_t max_latency_ns  # NEVER_NS: no limit
    int64_t aging_ns        # head start of a priority level
    int64_t capacity        # batches that may run at once; 0 pauses
    PolicyId policy

cdef struct Flight:         # a batch that runs; lives inside its owner's object
    Flight *earlier         # in order of dispatch
    Flight *later
    int64_t id              # 1 for the first batch of a machine
    int64_t dispatched_at_ns
    int64_t size            # requests
    int64_t expected_ns     # service time predicted at dispatch; 0: nothing was known
    int64_t service_ns      # what it took; valid when it has ended

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
    Queue order             # queued entries by (due, seq)
    Queue expiry            # queued entries that have a deadline, by (deadline, seq)
    Entry *oldest           # arrivals: first of the queued entries
    Entry *newest           # arrivals: last of them
    int64_t now_ns          # the latest time told; time never goes back
    int64_t next_seq        # seq of the next submit
    int64_t flush_seq       # queued entries below this seq leave without waiting
    int64_t flush_left      # how many they are
    Reason flush_reason     # FLUSH or DRAIN; valid when flush_left > 0
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
    int64_t waits_since_ns  # when the batch that is forming was first let wait; NEVER_NS: it was not yet
    int64_t probe_at_ns     # no hopeless request is tried before
    Flight *first_flight    # batches in flight, in order of dispatch
    Flight *last_flight
    int64_t changes         # events that a plan may depend on, ever
    bint planned            # `plan` was made after the last of them
    Plan plan               # the policy's; of size 0: the user's policy is to be asked again then
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

cdef inline Entry *of_expiry(Node *node) noexcept nogil:
    """The entry that a node of Machine.expiry belongs to."""
    return <Entry *>(<char *>node - <size_t>&(<Entry *>NULL).expiry)


cdef inline void machine_tell(Machine *machine, int64_t now_ns) noexcept nogil:
    """Clocks are read before the lock is taken, so times may arrive out of order: the latest one holds."""
    if now_ns > machine.now_ns:
        machine.now_ns = now_ns


cdef inline void machine_change(Machine *machine) noexcept nogil:
    """Something happened that a plan may depend on."""
    machine.planned = False
    machine.changes += 1


cdef inline void machine_unlink(Machine *machine, Entry *entry, Status status) noexcept nogil:
    """Take a queued entry out of every list."""
    queue_remove(&machine.order, &entry.order)
    if entry.deadline_ns != NEVER_NS:
        queue_remove(&machine.expiry, &entry.expiry)
    if entry.earlier != NULL:
        entry.earlier.later = entry.later
    else:
        machine.oldest = entry.later
    if entry.later != NULL:
        entry.later.earlier = entry.earlier
    else:
        machine.newest = entry.earlier
    entry.earlier = entry.later = NULL
    machine.queued -= 1
    if machine.queued == 0:
        machine.waits_since_ns = NEVER_NS
    machine_change(machine)
    if entry.order.seq < machine.flush_seq:
        machine.flush_left -= 1
    entry.status = status


cdef inline Answer machine_submit(
    Machine *machine, int64_t now_ns, Entry *entry, int64_t deadline_ns, int32_t priority,
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
    machine.submitted += 1
    if deadline_ns <= now_ns:
        entry.status = EXPIRED
        machine.ended[<int>EXPIRED] += 1
        return ENDED
    due_ns = now_ns + machine.config.aging_ns // 2
    entry.order.key = (deadline_ns if deadline_ns < due_ns else due_ns) + priority * machine.config.aging_ns
    entry.order.seq = machine.next_seq
    machine.next_seq += 1
    queue_push(&machine.order, &entry.order)
    if deadline_ns != NEVER_NS:
        entry.expiry.key = deadline_ns
        entry.expiry.seq = entry.order.seq
        queue_push(&machine.expiry, &entry.expiry)
    entry.earlier = machine.newest
    entry.later = NULL
    if machine.newest != NULL:
        machine.newest.later = entry
    else:
        machine.oldest = entry
    machine.newest = entry
    entry.status = QUEUED
    machine.queued += 1
    machine.moment = INTO_IDLE if machine.queued == 1 else FURTHER
    machine_change(machine)
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
    machine.ended[<int>CANCELLED] += 1
    return True


cdef inline Entry *machine_clear(Machine *machine, int64_t now_ns, Status status) noexcept nogil:
    """End everything that is queued, as CANCELLED or SHUT_DOWN; return the chain of it by `later`, oldest first."""
    cdef Entry *entry
    cdef Entry *first = NULL
    machine_tell(machine, now_ns)
    while machine.newest != NULL:
        entry = machine.newest
        machine_unlink(machine, entry, status)
        machine.ended[<int>status] += 1
        entry.later = first
        first = entry
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
    machine_change(machine)


cdef inline void machine_complete(Machine *machine, int64_t now_ns, Flight *flight, int64_t failed) noexcept nogil:
    """End a batch in flight; `failed` of its requests got an error.  The caller marks the entries."""
    cdef int64_t service_ns
    machine_land(machine, now_ns, flight)
    service_ns = flight.service_ns = machine.now_ns - flight.dispatched_at_ns
    machine.ended[<int>FAILED] += failed
    machine.ended[<int>COMPLETED] += flight.size - failed
    machine.progress_at_ns = machine.now_ns
    histogram_add(&machine.service, service_ns)
    if failed < flight.size:    # how soon fn raises says nothing of how long it takes
        cost_learn(&machine.cost, flight.size, service_ns)
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
    machine_change(machine)
    machine.flush_seq = machine.next_seq
    machine.flush_left = machine.queued
    machine.flush_reason = reason


cdef inline void machine_close(Machine *machine, int64_t now_ns) noexcept nogil:
    """Take no more; let the rest leave without waiting."""
    machine_tell(machine, now_ns)
    machine_change(machine)
    machine.closed = True
