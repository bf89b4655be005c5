"""The scheduler's state machine: events in, decisions out.  The theory of operation is in docs/design.md.

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
    ACCEPTED, Answer, CANCELLED, CLOSED, COMPLETED, DISPATCH, DRAIN, ENDED, EXPIRED, FAILED, FULL, IDLE, Kind,
    NEVER_NS, NO_ROOM, PolicyId, QUEUED, REASON_COUNT, RUNNING, Reason, SHUT_DOWN, STATUS_COUNT, Status, WAIT,
)
from batchcore.cost cimport Cost, cost_learn
from batchcore.histogram cimport Histogram, histogram_add
from batchcore.policy cimport Plan, View, policy_plan
from batchcore.queue cimport Node, Queue, queue_peek, queue_push, queue_remove

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
    Cost cost
    Histogram batch_size    # requests a dispatched batch
    Histogram queue_delay   # ns a dispatched request
    Histogram service       # ns a completed batch
    bint closed             # takes no more and drains

cdef struct Decision:
    Kind kind
    Reason reason           # valid when DISPATCH
    int64_t at_ns           # when it was made
    int64_t wake_at_ns      # valid when WAIT
    int64_t batch_id        # valid when DISPATCH
    int64_t batch_size      # valid when DISPATCH
    Entry *batch            # valid when DISPATCH: chain by `later`, soonest due first
    Entry *expired          # chain by `later`, earliest deadline first; NULL: none


cdef inline Entry *of_expiry(Node *node) noexcept nogil:
    """The entry that a node of Machine.expiry belongs to."""
    return <Entry *>(<char *>node - <size_t>&(<Entry *>NULL).expiry)


cdef inline void machine_tell(Machine *machine, int64_t now_ns) noexcept nogil:
    """Clocks are read before the lock is taken, so times may arrive out of order: the latest one holds."""
    if now_ns > machine.now_ns:
        machine.now_ns = now_ns


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


cdef inline View machine_view(const Machine *machine) noexcept nogil:
    """What a policy may know; something must be queued."""
    cdef Node *expiry = queue_peek(&machine.expiry)
    return View(
        now_ns=machine.now_ns,
        queued=machine.queued,
        oldest_arrival_ns=machine.oldest.arrival_ns,
        earliest_deadline_ns=NEVER_NS if expiry == NULL else expiry.key,
        free_workers=machine.config.capacity - machine.in_flight,
        max_batch_size=machine.config.max_batch_size,
        max_wait_ns=machine.config.max_wait_ns,
        max_latency_ns=machine.config.max_latency_ns,
        cost=&machine.cost,
    )


cdef inline bint machine_ready(const Machine *machine) noexcept nogil:
    """Whether there is a batch to think about: something queued and a worker free."""
    return machine.queued > 0 and machine.in_flight < machine.config.capacity


cdef inline Plan machine_plan(const Machine *machine) noexcept nogil:
    """When and why the next batch leaves; the machine must be ready."""
    cdef View view
    if machine.queued >= machine.config.max_batch_size:
        return Plan(until_ns=machine.now_ns, reason=FULL)
    if machine.flush_left > 0:
        return Plan(until_ns=machine.now_ns, reason=machine.flush_reason)
    if machine.closed:
        return Plan(until_ns=machine.now_ns, reason=DRAIN)
    view = machine_view(machine)
    return policy_plan(machine.config.policy, &view)


cdef inline int64_t machine_next_wakeup_ns(const Machine *machine) noexcept nogil:
    """The earliest instant at which `machine_decide` would dispatch or expire anything if no event came before.

    Not after `machine.now_ns`: at once.  NEVER_NS: not without an event.
    """
    cdef Node *expiry = queue_peek(&machine.expiry)
    cdef int64_t wake_at_ns = NEVER_NS if expiry == NULL else expiry.key
    cdef int64_t until_ns
    if machine_ready(machine):
        until_ns = machine_plan(machine).until_ns
        if until_ns < wake_at_ns:
            wake_at_ns = until_ns
    return wake_at_ns


cdef inline Entry *machine_expire(Machine *machine) noexcept nogil:
    """End every queued entry whose deadline has come; return the chain of them."""
    cdef Entry *first = NULL
    cdef Entry *last = NULL
    cdef Entry *entry
    cdef Node *node = queue_peek(&machine.expiry)
    while node != NULL and node.key <= machine.now_ns:
        entry = of_expiry(node)
        machine_unlink(machine, entry, EXPIRED)
        machine.ended[<int>EXPIRED] += 1
        if last == NULL:
            first = entry
        else:
            last.later = entry
        last = entry
        node = queue_peek(&machine.expiry)
    return first


cdef inline void machine_decide(Machine *machine, int64_t now_ns, Decision *decision) noexcept nogil:
    """Expire what is too late, then say what to do now.  At most one batch a call."""
    cdef Plan plan
    cdef Entry *entry
    cdef Entry *last = NULL
    cdef int64_t n
    machine_tell(machine, now_ns)
    decision.at_ns = machine.now_ns
    decision.batch = NULL
    decision.expired = machine_expire(machine)
    if machine_ready(machine):
        plan = machine_plan(machine)
        if plan.until_ns <= machine.now_ns:
            n = min(machine.queued, machine.config.max_batch_size)
            for _ in range(n):
                entry = <Entry *>queue_peek(&machine.order)
                machine_unlink(machine, entry, RUNNING)
                histogram_add(&machine.queue_delay, machine.now_ns - entry.arrival_ns)
                if last == NULL:
                    decision.batch = entry
                else:
                    last.later = entry
                last = entry
            machine.running += n
            machine.in_flight += 1
            machine.batches += 1
            machine.by_reason[<int>plan.reason] += 1
            histogram_add(&machine.batch_size, n)
            decision.kind = DISPATCH
            decision.reason = plan.reason
            decision.batch_id = machine.batches
            decision.batch_size = n
            return
    decision.wake_at_ns = machine_next_wakeup_ns(machine)
    decision.kind = IDLE if decision.wake_at_ns == NEVER_NS else WAIT


cdef inline void machine_complete(
    Machine *machine, int64_t now_ns, int64_t dispatched_at_ns, int64_t batch_size, int64_t failed,
) noexcept nogil:
    """End a batch in flight; `failed` of its requests got an error.  The caller marks the entries."""
    machine_tell(machine, now_ns)
    machine.running -= batch_size
    machine.in_flight -= 1
    machine.ended[<int>FAILED] += failed
    machine.ended[<int>COMPLETED] += batch_size - failed
    machine.progress_at_ns = machine.now_ns
    histogram_add(&machine.service, machine.now_ns - dispatched_at_ns)
    cost_learn(&machine.cost, batch_size, machine.now_ns - dispatched_at_ns)


cdef inline void machine_abandon(Machine *machine, int64_t now_ns, int64_t batch_size) noexcept nogil:
    """End a batch in flight that nobody will finish any more; nothing is learned from it."""
    machine_tell(machine, now_ns)
    machine.running -= batch_size
    machine.in_flight -= 1
    machine.ended[<int>SHUT_DOWN] += batch_size


cdef inline void machine_flush(Machine *machine, int64_t now_ns, Reason reason) noexcept nogil:
    """Let everything queued now leave without waiting, for `reason` (FLUSH or DRAIN)."""
    machine_tell(machine, now_ns)
    machine.flush_seq = machine.next_seq
    machine.flush_left = machine.queued
    machine.flush_reason = reason


cdef inline void machine_close(Machine *machine, int64_t now_ns) noexcept nogil:
    """Take no more; let the rest leave without waiting."""
    machine_tell(machine, now_ns)
    machine.closed = True
