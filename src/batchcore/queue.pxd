"""A queue by key that costs O(1) where requests come in a few sorted streams, and O(log n) where they do not.

Requests of one priority and one timeout arrive with growing keys; so do those of the next class.  A node is appended to
the sorted run whose last key is the greatest one not above its own (patience sorting: k sorted streams never need more
than k runs).  What fits none of RUNS runs goes to a pairing heap.  The soonest is the least of the runs' heads and the
heap's root.

The nodes live inside the requests: nothing is allocated, nothing can fail, and any node can leave from anywhere.
Order: by key, then by seq.  Costs: push and peek O(RUNS), remove O(RUNS) from a run and amortised O(log n) from the
heap.
Sources: patience sorting, Mallows 1963; pairing heap, Fredman, Sedgewick, Sleator, Tarjan 1986.
Knows nothing of time, requests or priorities.
"""

from libc.stdint cimport int64_t

cdef enum:
    RUNS = 8

cdef struct Node:
    Node *prev      # run: the one before; heap: the elder sibling, or the parent of an eldest child; else NULL
    Node *next      # run: the one after; heap: the younger sibling; else NULL
    Node *child     # heap: the eldest child; IN_RUN says that the node is in a run
    int64_t key     # the lesser is the sooner
    int64_t seq     # breaks ties: the lesser is the sooner

cdef struct Run:
    Node *head      # never NULL in a run that counts
    Node *tail

cdef struct Queue:
    Run runs[RUNS]  # runs[0 .. run_count) are the ones that count, in no order
    int run_count
    Node *heap      # root, or NULL


cdef inline Node *in_run() noexcept nogil:
    """The mark in `child` of a node that sits in a run; never a real address."""
    return <Node *>1


cdef inline bint sooner(const Node *a, const Node *b) noexcept nogil:
    return a.key < b.key or (a.key == b.key and a.seq < b.seq)


cdef inline Node *heap_meld(Node *a, Node *b) noexcept nogil:
    """Join two heaps, either of which may be NULL; return the root."""
    if a == NULL:
        return b
    if b == NULL:
        return a
    if sooner(b, a):
        a, b = b, a
    b.prev = a
    b.next = a.child
    if b.next != NULL:
        b.next.prev = b
    a.child = b
    return a


cdef inline Node *heap_meld_all(Node *first) noexcept nogil:
    """Join siblings in the two passes that make the bound: in pairs, then the pairs from the last to the first."""
    cdef Node *pairs = NULL
    cdef Node *a
    cdef Node *b
    cdef Node *root = NULL
    while first != NULL:
        a = first
        b = a.next
        first = b.next if b != NULL else NULL
        a.prev = a.next = NULL
        if b != NULL:
            b.prev = b.next = NULL
        a = heap_meld(a, b)
        a.next = pairs
        pairs = a
    while pairs != NULL:
        a = pairs
        pairs = a.next
        a.prev = a.next = NULL
        root = heap_meld(root, a)
    return root


cdef inline void queue_push(Queue *queue, Node *node) noexcept nogil:
    cdef Run *best = NULL
    cdef Run *run
    cdef int i
    for i in range(queue.run_count):
        run = &queue.runs[i]
        if not sooner(node, run.tail) and (best == NULL or sooner(best.tail, run.tail)):
            best = run
    node.prev = node.next = NULL
    if best == NULL and queue.run_count == RUNS:
        node.child = NULL
        queue.heap = heap_meld(queue.heap, node)
        return
    node.child = in_run()
    if best == NULL:
        best = &queue.runs[queue.run_count]
        queue.run_count += 1
        best.head = node
    else:
        node.prev = best.tail
        best.tail.next = node
    best.tail = node


cdef inline void queue_put_back(Queue *queue, Node *node) noexcept nogil:
    """Return a node that was taken out as the soonest of all; of several, the latest of them first."""
    cdef Run *run = &queue.runs[0]
    node.prev = NULL
    node.child = in_run()
    if queue.run_count == 0:
        queue.run_count = 1
        node.next = NULL
        run.tail = node
    else:
        node.next = run.head
        run.head.prev = node
    run.head = node


cdef inline Node *queue_peek(const Queue *queue) noexcept nogil:
    """The soonest node, or NULL."""
    cdef Node *best = queue.heap
    cdef int i
    for i in range(queue.run_count):
        if best == NULL or sooner(queue.runs[i].head, best):
            best = queue.runs[i].head
    return best


cdef inline void queue_remove(Queue *queue, Node *node) noexcept nogil:
    """Take out `node`, which must be in this queue, from wherever it sits."""
    cdef Run *run
    cdef int i
    if node.child == in_run():
        if node.prev != NULL:
            node.prev.next = node.next
        if node.next != NULL:
            node.next.prev = node.prev
        if node.prev == NULL or node.next == NULL:
            for i in range(queue.run_count):
                run = &queue.runs[i]
                if run.head == node:
                    run.head = node.next
                    if run.head == NULL:
                        queue.run_count -= 1
                        run[0] = queue.runs[queue.run_count]
                    break
                if run.tail == node:
                    run.tail = node.prev
                    break
    else:
        if node.prev == NULL:
            queue.heap = heap_meld_all(node.child)
        else:
            if node.prev.child == node:
                node.prev.child = node.next
            else:
                node.prev.next = node.next
            if node.next != NULL:
                node.next.prev = node.prev
            queue.heap = heap_meld(queue.heap, heap_meld_all(node.child))
    node.prev = node.next = node.child = NULL
