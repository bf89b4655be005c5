"""The invariants of a machine, looked after one by one; for tests."""

from libc.stdint cimport int64_t

from batchcore import records

from batchcore._types cimport NEVER_NS, QUEUED, STATUS_COUNT
from batchcore.lane cimport EMPTY, Entry, Lane, READY, WAITING, of_expiry
from batchcore.machine cimport Flight, Machine
from batchcore.queue cimport Node, Queue, in_run, queue_peek, sooner


cdef int audit(const Machine *machine) except -1:
    """Raise RuntimeError, naming the invariant, if one is broken.  O(n log n)."""
    cdef const Lane *lane = machine.first_lane
    cdef const Lane *other = NULL
    cdef const Flight *flight = machine.first_flight
    cdef const Flight *before = NULL
    cdef int64_t running = 0
    cdef int64_t in_flight = 0
    cdef int64_t queued = 0
    cdef double shares = 0.0
    cdef dict accounts = {}
    cdef set ready = set()
    cdef set waiting = set()
    cdef set late = set()
    while lane != NULL:
        require(lane.earlier == other, "the list of lanes is linked both ways")
        queued += audit_lane(machine, lane)
        if lane.account != NULL:
            accounts[<size_t>lane.account] = accounts.get(<size_t>lane.account, 0) + 1
            require(lane.account.lanes >= accounts[<size_t>lane.account], "an account counts its lanes")
            require(lane.account.used >= 0.0, "nobody has used less than nothing")
            if accounts[<size_t>lane.account] == 1:
                shares += lane.account.share
        (ready if lane.stand == READY else waiting).add(<size_t>&lane.place)
        if lane.lateness.key != NEVER_NS:
            late.add(<size_t>&lane.lateness)
        other = lane
        lane = lane.later
    require(abs(shares - machine.shares) <= 1e-9 * (shares + 1e6), "the shares are those of what is queued")
    require(len(ready) + len(waiting) == machine.lanes, "the lanes are counted")
    require(queued == machine.queued, "the lanes hold what is queued")
    require({<size_t>node for node in nodes_of(&machine.ready)} == ready, "ready lanes are among the ready ones")
    require({<size_t>node for node in nodes_of(&machine.waiting)} == waiting, "waiting lanes are among those that wait")
    require({<size_t>node for node in nodes_of(&machine.late)} == late, "lanes with deadlines are among the late ones")
    require(
        machine.submitted == machine.queued + machine.running + machine.rejected
        + sum([machine.ended[i] for i in range(<int>STATUS_COUNT)]),
        "every request is counted exactly once")
    while flight != NULL:
        require(flight.earlier == before, "the list of flights is linked both ways")
        require(before == NULL or before.id < flight.id, "flights are in order of dispatch")
        require(
            before == NULL or before.dispatched_at_ns <= flight.dispatched_at_ns, "flights are in order of time")
        require(flight.size > 0, "every flight has requests")
        running += flight.size
        in_flight += 1
        before = flight
        flight = flight.later
    require(machine.last_flight == before, "the last flight is the last of the list")
    require(in_flight == machine.in_flight, "the list of flights holds what is in flight")
    require(running == machine.running, "what runs is in flight")
    require(machine.batches == sum([machine.by_reason[i] for i in range(len(records.REASONS))]),
            "every batch has a reason")
    return 0


cdef int64_t audit_lane(const Machine *machine, const Lane *lane) except -1:
    """The same for one lane with something queued; return how many requests are."""
    cdef const Entry *entry = lane.oldest
    cdef const Entry *earlier = NULL
    cdef const Node *expiry = queue_peek(&lane.expiry)
    cdef int64_t weight = 0
    cdef set arrivals = set()
    cdef set deadlines = set()
    require(lane.stand != EMPTY and lane.queued > 0, "a lane in the list has something queued")
    while entry != NULL:
        require(entry.earlier == earlier, "the list of arrivals is linked both ways")
        require(entry.status == QUEUED, "only queued entries are in the list of arrivals")
        require(entry.lane == lane, "an entry knows its lane")
        if earlier != NULL:
            require(earlier.order.seq < entry.order.seq, "arrivals are in order of submission")
            require(earlier.arrival_ns <= entry.arrival_ns, "arrivals are in order of time")
        arrivals.add(<size_t>entry)
        if entry.deadline_ns != NEVER_NS:
            deadlines.add(<size_t>entry)
        weight += entry.weight
        earlier = entry
        entry = entry.later
    require(lane.newest == earlier, "the newest arrival is the last of the list")
    require(len(arrivals) == lane.queued, "the list of arrivals holds what is queued")
    require(weight == lane.weight, "the weight is that of what is queued")
    require({<size_t>node for node in nodes_of(&lane.order)} == arrivals, "the order holds what is queued")
    require(
        {<size_t>of_expiry(<Node *><size_t>node) for node in nodes_of(&lane.expiry)} == deadlines,
        "the deadlines are those of what is queued")
    require(lane.lateness.key == (NEVER_NS if expiry == NULL else expiry.key), "a lane is late by its first deadline")
    require(
        lane.stand == WAITING or lane.account != NULL or lane.place.key == queue_peek(&lane.order).key,
        "a ready lane stands by its soonest request")
    return lane.queued


cdef int require(bint holds, str invariant) except -1:
    if not holds:
        raise RuntimeError(f"invariant broken: {invariant}")
    return 0


cdef list nodes_of(const Queue *queue):
    """The addresses of the nodes of a queue, each once; checks its order on the way."""
    cdef list nodes = []
    cdef list parents = []
    cdef Node *node
    cdef Node *child
    cdef Node *elder
    for i in range(queue.run_count):
        node = queue.runs[i].head
        require(node != NULL and node.prev == NULL and queue.runs[i].tail.next == NULL, "a run has two ends")
        while node != NULL:
            require(node.child == in_run(), "a node in a run says so")
            require(node.next == NULL or (sooner(node, node.next) and node.next.prev == node), "a run is sorted")
            require(node.next != NULL or node == queue.runs[i].tail, "a run ends with its tail")
            nodes.append(<size_t>node)
            node = node.next
    if queue.heap != NULL:
        require(queue.heap.prev == NULL and queue.heap.next == NULL, "the root of the heap stands alone")
        parents.append(<size_t>queue.heap)
    while parents:
        node = <Node *><size_t>parents.pop()
        nodes.append(<size_t>node)
        elder = node
        child = node.child
        while child != NULL:
            require(sooner(node, child), "no child in the heap is sooner than its parent")
            require(child.prev == elder, "the heap is linked both ways")
            parents.append(<size_t>child)
            elder = child
            child = child.next
    return nodes
