"""When a batch leaves: pure functions from a small view of the queue to a plan.

A policy is asked only while something is queued, fewer than `max_batch_size` requests are, and a worker is free; a full
batch, a flush and a drain are no matter of taste and the engine sees to them first.  A plan must depend on `now_ns`
only by comparison with its own `until_ns`: that is what makes the announced wake-up exact.
A new policy is a function here (or in a file of its own), a PolicyId and a line in `policy_plan`.
"""

from libc.stdint cimport int64_t

from batchcore._types cimport DEADLINE, FIXED, IDLE_WORKER, LATENCY, NEVER_NS, PolicyId, Reason, WINDOW
from batchcore.cost cimport Cost, cost_known, cost_predict_ns

cdef enum:
    WAKE_MARGIN_NS = 1_000_000  # what a sleeper may oversleep and a batch may need before fn runs

cdef struct View:
    int64_t now_ns
    int64_t queued                  # requests, 1 .. max_batch_size - 1
    int64_t oldest_arrival_ns
    int64_t earliest_deadline_ns    # NEVER_NS where no queued request has one
    int64_t free_workers            # at least 1
    int64_t max_batch_size
    int64_t max_wait_ns             # NEVER_NS: no limit
    int64_t max_latency_ns          # NEVER_NS: no limit
    const Cost *cost

cdef struct Plan:
    int64_t until_ns    # leave at this instant, or at once if it is not after now
    Reason reason       # why then


cdef inline Plan plan_immediate(const View *view) noexcept nogil:
    """Never wait while a worker is free."""
    return Plan(until_ns=view.now_ns, reason=IDLE_WORKER)


cdef inline Plan plan_fixed(const View *view) noexcept nogil:
    """Wait for a full batch, but no longer than `max_wait_ns` from the oldest arrival, and no longer than the predicted
    service time allows where there is a latency target or a deadline to keep.

    With nothing learned there is no safe wait beside a target, so the first batch goes at once and teaches.
    """
    cdef Plan plan = Plan(until_ns=view.oldest_arrival_ns + view.max_wait_ns, reason=WINDOW)
    cdef bint known = cost_known(view.cost)
    cdef int64_t margin_ns, limit_ns
    if view.max_latency_ns == NEVER_NS and view.earliest_deadline_ns == NEVER_NS:
        return plan
    margin_ns = cost_predict_ns(view.cost, view.queued) * 5 // 4 + WAKE_MARGIN_NS
    if view.max_latency_ns != NEVER_NS:
        limit_ns = view.oldest_arrival_ns
        if known:
            limit_ns += view.max_latency_ns - margin_ns
        if limit_ns < plan.until_ns:
            plan = Plan(until_ns=limit_ns, reason=LATENCY)
    if view.earliest_deadline_ns != NEVER_NS:
        limit_ns = view.earliest_deadline_ns - margin_ns if known else view.oldest_arrival_ns
        if limit_ns < plan.until_ns:
            plan = Plan(until_ns=limit_ns, reason=DEADLINE)
    return plan


cdef inline Plan policy_plan(PolicyId policy, const View *view) noexcept nogil:
    if policy == FIXED:
        return plan_fixed(view)
    return plan_immediate(view)
