"""What is queued under one key, and where that stands among the others.

Only requests of one lane share a batch.  A lane with something queued is READY, its batch to be thought about now, or
it is WAITING for an instant.  Ready lanes are ordered by their soonest request or, under fair shares, by how much of
the workers' time their account has used, by its share: start-time fair queueing, which needs no rounds and no quantum.
An account that was idle starts level with the others, or where it stopped if that is ahead of them: else one that is
emptied by each batch would never pay, and the others starve.  Level is what every account would have used by now had
they been served a little at a time; where that lags behind the one that is served, it follows (WF2Q+, Bennett and Zhang
1996).

A lane that nothing is queued in is in no list of the machine's and may go.  Costs are those of `queue.pxd`, in lanes.
"""

from libc.stdint cimport int32_t, int64_t

from batchcore._types cimport NEVER_NS, Status
from batchcore.policy cimport Plan
from batchcore.queue cimport Node, Queue, queue_peek, queue_put_back, queue_remove

cdef enum Stand:
    EMPTY
    READY       # `place` is in Machine.ready
    WAITING     # `place` is in Machine.waiting, by the instant

cdef struct Entry:
    Node order              # place in Lane.order; first, so that a Node of order is its Entry
    Node expiry             # place in Lane.expiry; valid when deadline_ns != NEVER_NS and QUEUED
    Entry *earlier          # arrivals of the lane: the one before; valid when QUEUED
    Entry *later            # arrivals: the one after; valid when QUEUED; else next in the chain handed out
    Lane *lane              # valid when QUEUED
    int64_t arrival_ns      # instant of submit
    int64_t deadline_ns     # instant after which an answer is worthless; NEVER_NS: none
    void *owner             # whose entry this is; never looked at here
    int32_t priority        # lower is sooner
    int32_t weight          # at least 1
    int32_t passed          # batches that left without it though it came before others of theirs
    Status status

cdef struct Account:
    double share            # of the workers' time, in relation to other accounts; above 0
    double used             # load served for it, by its share
    int64_t lanes           # of it with something queued

cdef struct Lane:
    Node place              # as `stand` says; first, so that such a Node is its Lane
    Node lateness           # place in Machine.late, by the earliest deadline; in it when the key is not NEVER_NS
    Lane *earlier           # lanes with something queued
    Lane *later
    Stand stand
    Queue order             # queued entries by (due, seq)
    Queue expiry            # queued entries that have a deadline, by (deadline, seq)
    Entry *oldest           # arrivals: first of the queued entries
    Entry *newest           # arrivals: last of them
    int64_t queued          # entries
    int64_t weight          # of all of them
    int64_t waits_since_ns  # when the batch that is forming was first let wait; NEVER_NS: it was not yet
    int64_t planned_at      # Machine.changes when `plan` was made
    Plan plan               # the policy's; of size 0: the user's policy is to be asked again then
    Account *account        # NULL where there are no shares
    void *owner             # who keeps the lane alive; NULL: the machine does


cdef inline Entry *of_expiry(Node *node) noexcept nogil:
    """The entry that a node of Lane.expiry belongs to."""
    return <Entry *>(<char *>node - <size_t>&(<Entry *>NULL).expiry)


cdef inline Lane *of_lateness(Node *node) noexcept nogil:
    """The lane that a node of Machine.late belongs to."""
    return <Lane *>(<char *>node - <size_t>&(<Lane *>NULL).lateness)


cdef inline void lane_open(Lane *lane, void *owner, Account *account) noexcept nogil:
    """Make a lane of zeroed memory."""
    lane.lateness.key = NEVER_NS
    lane.waits_since_ns = NEVER_NS
    lane.planned_at = -1
    lane.owner = owner
    lane.account = account


cdef inline int64_t lane_soonest(Lane *lane, Entry **entries, int64_t limit) noexcept nogil:
    """Write the first entries in order of service, at most `limit`; return how many there are."""
    cdef Node *node = queue_peek(&lane.order)
    cdef int64_t seen = 0
    cdef int64_t i
    while node != NULL and seen < limit:
        queue_remove(&lane.order, node)
        entries[seen] = <Entry *>node
        seen += 1
        node = queue_peek(&lane.order)
    for i in range(seen - 1, -1, -1):
        queue_put_back(&lane.order, &entries[i].order)
    return seen
