"""Which requests a batch is made of when not all of them can be answered in time.

Works on the deadlines of the requests that are queued, in their order of service, and on predicted service times with a
margin of half the usual deviation.  Nothing here knows a queue or changes anything.

While the first deadline is safe, this has no say. When it is not, a few choices of (requests passed over, size) are
compared: the largest batch that is fast enough for the first one; the suffix rule, which passes over as few as it can
so that all of the rest makes it in a batch as large as it gets; the most efficient batch. Each is followed by the
suffix rule to the end of the queue, and the choice that loses least wins; time that it takes costs, too, as far as
requests are being lost (a decayed share of `lost` to `kept`).

Cost: O(n) a choice, n at most LOOK; O(log n) for a size.
Source: the rules and figures of the simulation study in docs/policies.md; early drop: Nexus (SOSP 2019).
"""

from libc.stdint cimport int64_t

from batchcore.cost cimport Cost, MOST_NS, cost_expect_ns

cdef enum:
    LOOK = 256      # requests looked at

cdef struct Choice:
    int64_t skip    # requests passed over; all that were given: none can make it
    int64_t size    # requests taken after them

cdef struct Outlook:
    const int64_t *deadlines    # of the first `seen` of `queued` requests, in order of service
    int64_t seen
    int64_t queued
    int64_t now_ns
    int64_t size_limit          # largest batch wanted
    bint mixed                  # their timeouts differ by more than a quarter, and there is one worker
    double lost                 # decayed counts of requests given up
    double kept                 # and of those taken
    const Cost *cost


cdef inline int64_t careful_ns(const Cost *cost, int64_t n) noexcept nogil:
    """Service time to count on where a deadline is at stake."""
    return <int64_t>min(cost_expect_ns(cost, n) * (1.0 + 0.5 * cost.deviation), MOST_NS)


cdef inline int64_t largest_within(const Cost *cost, int64_t slack_ns, int64_t limit) noexcept nogil:
    """The largest batch of at most `limit` that is done within `slack_ns`, taking service times to grow with size."""
    cdef int64_t low = 0
    cdef int64_t middle
    if careful_ns(cost, limit) <= slack_ns:
        return limit
    while low + 1 < limit:
        middle = (low + limit) // 2
        if careful_ns(cost, middle) <= slack_ns:
            low = middle
        else:
            limit = middle
    return low


cdef inline int64_t staggered_size(
    const Cost *cost, int64_t limit, int64_t workers, int64_t timeout_ns,
) noexcept nogil:
    """The largest batch that bears its own service time and the wait for one of so many staggered workers."""
    return max(largest_within(cost, timeout_ns - timeout_ns // (workers + 1), limit), <int64_t>1)


cdef inline int64_t needed_size(const Cost *cost, int64_t limit, int64_t workers, double rate) noexcept nogil:
    """The size up to `limit` from which batches of it, on all workers, keep up with a fifth more than comes.

    A smaller batch is worth deferring (Symphony, 2023) while its deadlines allow, and only then: where small batches
    are enough, deferral costs latency and gains nothing.  Takes efficiency to grow with size.
    """
    cdef double wanted = 1.2 * rate / <double>workers
    cdef int64_t low = 0
    cdef int64_t middle
    while low + 1 < limit:
        middle = (low + limit) // 2
        if <double>middle >= wanted * cost_expect_ns(cost, middle):
            limit = middle
        else:
            low = middle
    return limit


cdef inline Choice choose_suffix(const Outlook *outlook, int64_t now_ns, int64_t skip) noexcept nogil:
    """Pass over as few as possible, from `skip` on, so that the first one kept is answered in time."""
    cdef int64_t size
    while skip < outlook.seen:
        size = min(outlook.queued - skip, outlook.size_limit)
        if outlook.deadlines[skip] >= now_ns + careful_ns(outlook.cost, size):
            return Choice(skip=skip, size=size)
        skip += 1
    return Choice(skip=skip, size=0)


cdef inline Choice choose_first(const Outlook *outlook, int64_t single_ns) noexcept nogil:
    """Keep the first that can be kept at all, in the largest batch that is fast enough for it."""
    cdef int64_t skip = 0
    while skip < outlook.seen and outlook.deadlines[skip] < outlook.now_ns + single_ns:
        skip += 1
    if skip == outlook.seen:
        return Choice(skip=skip, size=0)
    return Choice(skip=skip, size=largest_within(
        outlook.cost, outlook.deadlines[skip] - outlook.now_ns, min(outlook.queued - skip, outlook.size_limit)))


cdef inline Choice choose_efficient(const Outlook *outlook, const Choice *first, const Choice *suffix) noexcept nogil:
    """Between the two, the one whose batch computes most a second."""
    cdef Choice best = first[0]
    cdef double most = 0.0
    cdef double rate
    cdef int64_t skip, size
    for skip in range(first.skip, suffix.skip):
        size = largest_within(
            outlook.cost, outlook.deadlines[skip] - outlook.now_ns, min(outlook.queued - skip, outlook.size_limit))
        rate = <double>size / cost_expect_ns(outlook.cost, size)
        if rate > most:
            most = rate
            best = Choice(skip=skip, size=size)
    return best


cdef inline double losses(const Outlook *outlook, const Choice *choice, int64_t single_ns) noexcept nogil:
    """What a choice loses of the requests seen, if the suffix rule sees to the rest, and what its time is worth."""
    cdef int64_t now_ns = outlook.now_ns + careful_ns(outlook.cost, choice.size)
    cdef int64_t lost = 0
    cdef int64_t i = 0
    cdef int64_t most
    cdef double price = 0.0
    cdef Choice next
    for i in range(choice.skip):
        if outlook.deadlines[i] < now_ns + single_ns:
            lost += 1
    # Those passed over that could still make it would be served next; they are few, and counted as served.
    i = choice.skip + choice.size
    while i < outlook.seen:
        next = choose_suffix(outlook, now_ns, i)
        lost += next.skip - i
        if next.size == 0:
            break
        now_ns += careful_ns(outlook.cost, next.size)
        i = next.skip + next.size
    if outlook.lost > 0.0:
        most = outlook.size_limit
        price = 0.5 * outlook.lost / (outlook.lost + outlook.kept) * (
            <double>most / cost_expect_ns(outlook.cost, most)) * <double>(now_ns - outlook.now_ns)
    return <double>lost + price


cdef inline Choice choose(const Outlook *outlook) noexcept nogil:
    """The best batch now; of size 0 if nobody could be answered in time."""
    cdef int64_t single_ns = careful_ns(outlook.cost, 1)
    cdef Choice best = choose_suffix(outlook, outlook.now_ns, 0)
    cdef Choice first, other
    cdef double least, loss
    if best.skip == 0:
        return best
    first = choose_first(outlook, single_ns)
    if best.size == 0 or not outlook.mixed:
        return first if best.size == 0 else best
    other = choose_efficient(outlook, &first, &best)
    least = losses(outlook, &best, single_ns)
    loss = losses(outlook, &first, single_ns)
    if loss < least:
        least = loss
        best = first
    if losses(outlook, &other, single_ns) < least:
        best = other
    return best
