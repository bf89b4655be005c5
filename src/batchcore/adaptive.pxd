"""The default policy: no settings, only limits.

Taking everything whenever a worker is free is within a per cent of the best there is for one worker and Poisson
arrivals.  It is badly wrong in some situations, and this policy is that rule and a remedy for each:

- callers that wait for answers before they ask again (`wait_for_returns`): taking the first one back alone leaves the
  others a batch behind for ever;
- bursts (`wait_for_more`): the first of a burst would leave alone;
- several workers and a service time that hardly grows with size (`wait_for_turn`): they would bunch;
- a model whose batches do not pay, or hurt (`choose_size`).

While requests of several keys are queued nobody waits: there is something else to do.

No wait is longer in all than the time that merging saves the workers, S = l(n) + l(1) - l(n + 1): never more than one
batch's overhead, which is the ski-rental bound.  Nothing waits that cannot gain, nor past `max_wait_ns` and
`max_latency_ns`.

Cost: a prediction for each fifth of a size, about ten at 32; a scan of BINS more when there is something to wait for.
Source: the rules and figures of the simulation study in docs/policies.md.
"""

from libc.stdint cimport int64_t

from batchcore._numeric cimport power
from batchcore._types cimport FULL, GATHERED, IDLE_WORKER, Reason, SPACED, SPLIT, START_NS
from batchcore.cost cimport Cost, cost_expect_ns, cost_known, cost_law_ns, cost_load
from batchcore.policy cimport Plan, SLEEP_NS, View, largest_size, no_later, plan_immediate
from batchcore.traffic cimport (
    BINS, Gaps, Traffic, bin_end_ns, bin_of, gaps_known, traffic_closed, traffic_callers, traffic_rate,
)

cdef extern from *:
    # Share of throughput that waiting for the last callers may cost: those left behind pay a whole batch.
    const double PATIENCE "0.035"


cdef inline int64_t choose_size(const View *view) noexcept nogil:
    """The size that makes the mean latency of what is queued least; the largest unless another is 8 % better.

    It may cost 2 % of throughput, 4 while another worker is free: more is missed if the rate grows.
    """
    cdef const Cost *cost = view.cost
    cdef int64_t largest = largest_size(view)
    cdef int64_t best = largest
    cdef int64_t quickest = largest
    cdef int64_t size = largest
    cdef double rate = traffic_rate(view.traffic, view.now_ns) / <double>view.capacity
    cdef double service = cost_expect_ns(cost, size)
    cdef double speed = <double>size / service
    cdef double most = 1.08 * speed
    cdef double slowest = 0.98 * speed if view.capacity - view.in_flight == 1 else 0.96 * speed
    cdef double least = 0.92 * (<double>view.queued / (speed - rate) + service) if speed > rate else 1e300
    cdef double time
    while size > 1:
        size = min(size * 4 // 5, size - 1)
        service = cost_expect_ns(cost, size)
        speed = <double>size / service
        if speed > most:
            most = speed
            quickest = size
        if speed > rate and speed >= slowest:
            time = <double>view.queued / (speed - rate) + service
            if time < least:
                least = time
                best = size
    return best if least < 1e300 else quickest


cdef inline int64_t wait_for_returns(const View *view, int64_t longest_ns) noexcept nogil:
    """How long to wait for callers that are about to come back, so that most requests are answered a second."""
    cdef const Gaps *returns = &view.traffic.returns
    cdef int64_t missing = traffic_callers(view.traffic) - view.queued - view.running
    cdef int64_t since_ns = view.now_ns - view.traffic.completed_at_ns
    cdef int first = bin_of(since_ns)
    cdef int last = first
    cdef double rates[BINS]     # answers a nanosecond if the wait ends with a bin
    cdef double now = <double>view.queued / cost_expect_ns(view.cost, view.queued)
    cdef double most = now
    cdef double tail = 0.0      # weight of the returns still to be expected,
    cdef double come = 0.0      # and of those that would come in the wait
    cdef double spent = 0.0     # expected length of the wait: it ends the moment that all are back
    cdef double before = 0.0
    cdef double after, size
    cdef int64_t from_ns = 0
    cdef int64_t end_ns
    cdef int i
    if view.capacity > 1:
        missing = min(missing, view.traffic.awaited)    # callers of other workers' batches come back to those
    if missing <= 0 or not gaps_known(returns):
        return 0
    for i in range(first, BINS):
        tail += returns.weights[i]
    if tail <= 0.0:
        return 0
    for i in range(first, BINS):
        end_ns = bin_end_ns(i) - since_ns
        if end_ns > longest_ns:
            break
        come += returns.weights[i]
        after = power(come / tail, missing)
        spent += (1.0 - 0.5 * (before + after)) * <double>(end_ns - from_ns)
        before = after
        from_ns = end_ns
        size = min(<double>view.queued + <double>missing * come / tail, <double>view.max_batch_size)
        rates[i] = size / (spent + cost_expect_ns(view.cost, <int64_t>(size + 0.5)))
        most = max(most, rates[i])
        last = i + 1
    if most <= now:
        return 0
    for i in range(last - 1, first - 1, -1):
        if rates[i] >= (1.0 - PATIENCE) * most:
            return bin_end_ns(i) - since_ns
    return 0


cdef inline int64_t wait_for_more(const View *view, int64_t longest_ns) noexcept nogil:
    """How long to wait for the next request, if one is about to come: one step ahead on the gaps that were seen.

    For Poisson arrivals no wait ever gains, since the time until the next one is the same at any moment.  A wait
    costs at least a sleep; else it would look worth one to meet those that the GIL held up while a batch ended.
    """
    cdef const Gaps *gaps = &view.traffic.gaps[<int>view.moment]
    cdef double queued = <double>view.queued
    cdef double service = cost_expect_ns(view.cost, view.queued)
    cdef double grown = cost_expect_ns(view.cost, view.queued + 1)
    cdef double merged = cost_expect_ns(view.cost, 1) - grown     # saved by not running the next one on its own
    cdef double each = grown - service
    cdef double behind = max(traffic_rate(view.traffic, view.now_ns) * service - 1.0, 0.0)   # others who wait for us
    cdef double missed = 1.0    # chance that the next one has not come yet
    cdef double gain = 0.0
    cdef double best = 0.05 * (service + merged)
    cdef double share, gap, value
    cdef int64_t best_ns = 0
    cdef int64_t gap_ns
    cdef int i
    if not gaps_known(gaps):
        return 0
    for i in range(BINS):
        gap_ns = bin_end_ns(i)
        if gap_ns > longest_ns:
            break
        if gaps.weights[i] == 0.0:
            continue
        gap = <double>max(gap_ns, <int64_t>SLEEP_NS)
        share = gaps.weights[i] / gaps.total
        gain += share * (
            max(service - gap, 0.0) + merged + each * behind - queued * (gap + each) - behind * gap)
        missed -= share
        value = gain - missed * (queued + behind) * gap
        if value > best:
            best = value
            best_ns = gap_ns
    return best_ns


cdef inline int64_t wait_for_turn(const View *view) noexcept nogil:
    """How long to wait so that workers start evenly spaced, where batches take much the same time whatever their size.

    Not where there are as many workers as requests during a batch.
    """
    cdef double workers = <double>view.capacity
    cdef double service = cost_expect_ns(view.cost, largest_size(view))
    cdef double rate = traffic_rate(view.traffic, view.now_ns)
    cdef double likely = max(<double>view.queued, rate * service / workers)
    if view.dispatched_at_ns == START_NS or rate * service <= workers:
        return 0
    if view.cost.intercept < 0.66 * cost_law_ns(
            view.cost, cost_load(view.cost, min(likely, <double>view.max_batch_size))):
        return 0
    return view.dispatched_at_ns + <int64_t>(service / workers) - view.now_ns


cdef inline Plan plan_adaptive(const View *view) noexcept nogil:
    cdef Plan plan = plan_immediate(view)
    cdef int64_t wait_ns = 0
    cdef int64_t size, turn_ns, longest_ns
    cdef Reason reason = GATHERED
    if plan.reason == IDLE_WORKER and view.waits_since_ns < view.now_ns:
        plan.reason = GATHERED
    if not cost_known(view.cost):
        return plan
    size = choose_size(view) if plan.size > 1 else 1
    if size < plan.size:
        return Plan(until_ns=view.now_ns, size=size, reason=SPLIT)
    if plan.reason == FULL or not view.alone:
        return plan
    longest_ns = <int64_t>(
        cost_expect_ns(view.cost, plan.size) + cost_expect_ns(view.cost, 1) - cost_expect_ns(view.cost, plan.size + 1)
    ) - (view.now_ns - view.waits_since_ns)
    if longest_ns > 0:
        if traffic_closed(view.traffic):
            # Where another worker is free it takes those that come later.
            if view.capacity - view.in_flight == 1:
                wait_ns = wait_for_returns(view, longest_ns)
        elif view.capacity == 1:
            wait_ns = wait_for_more(view, longest_ns)
    if view.capacity > 1:
        turn_ns = wait_for_turn(view)
        if turn_ns > wait_ns:
            wait_ns = turn_ns
            reason = SPACED
    if wait_ns <= 0:
        return plan
    return no_later(view, Plan(until_ns=view.now_ns + wait_ns, size=plan.size, reason=reason), view.queued + 1)
