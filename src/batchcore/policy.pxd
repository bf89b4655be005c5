"""When a batch leaves: pure functions from a small view of the queue to a plan.

A policy is asked only while something is queued and a worker is free; what a flush or a drain lets go is no matter of
taste and the engine sees to it first.  The engine keeps a plan until an event changes what it was made of, so an
announced wake-up is exact.  Deadlines stand in front of any policy (`deadline.pxd`).
A new policy is a function here (or in a file of its own), a PolicyId and a line in `machine_plan`.
"""

from libc.stdint cimport int64_t

from batchcore._types cimport FULL, IDLE_WORKER, LATENCY, NEVER_NS, Reason, WINDOW
from batchcore.cost cimport Cost, cost_known, cost_predict_ns
from batchcore.traffic cimport Moment, Traffic

cdef enum:
    WAKE_MARGIN_NS = 1_000_000  # what a sleeper may oversleep and a batch may need before fn runs
    SLEEP_NS = 80_000           # what the shortest wait takes: to fall asleep, to wake up, to get hold of the GIL

cdef struct View:
    int64_t now_ns
    int64_t queued                  # requests under this key, at least 1
    int64_t running                 # requests
    bint heavy                      # what is queued weighs as much as a batch may
    bint alone                      # nothing is queued under another key
    int64_t oldest_arrival_ns
    int64_t in_flight               # batches
    int64_t capacity                # batches that may be, more than in_flight
    int64_t max_batch_size
    int64_t max_wait_ns             # NEVER_NS: no limit
    int64_t max_latency_ns          # NEVER_NS: no limit
    int64_t dispatched_at_ns        # latest dispatch; START_NS before the first
    Moment moment                   # what made this an instant of decision
    int64_t waits_since_ns          # when the batch that is forming was first let wait; now_ns: it was not yet
    const Cost *cost
    const Traffic *traffic

cdef struct Plan:
    int64_t until_ns    # leave at this instant, or at once if it is not after now
    int64_t size        # requests to take, at least 1 and at most those queued
    Reason reason       # why then


cdef inline int64_t largest_size(const View *view) noexcept nogil:
    return min(view.queued, view.max_batch_size)


cdef inline Plan plan_immediate(const View *view) noexcept nogil:
    """Never wait while a worker is free."""
    cdef int64_t size = largest_size(view)
    cdef bint full = size == view.max_batch_size or view.heavy
    return Plan(until_ns=view.now_ns, size=size, reason=FULL if full else IDLE_WORKER)


cdef inline int64_t safe_service_ns(const View *view, int64_t size) noexcept nogil:
    """How long before a target a batch must start: a quarter more than predicted, and what waking up takes."""
    return cost_predict_ns(view.cost, size) * 5 // 4 + WAKE_MARGIN_NS


cdef inline Plan no_later(const View *view, Plan plan, int64_t size) noexcept nogil:
    """Let a plan that waits end where `max_wait_ns` or `max_latency_ns` does, counting on a batch of `size`.

    With nothing learned there is no safe wait beside a latency target, so the first batch goes at once and teaches.
    """
    cdef int64_t limit_ns
    if view.max_wait_ns != NEVER_NS:
        limit_ns = view.oldest_arrival_ns + view.max_wait_ns
        if limit_ns < plan.until_ns:
            plan = Plan(until_ns=limit_ns, size=plan.size, reason=WINDOW)
    if view.max_latency_ns != NEVER_NS:
        limit_ns = view.oldest_arrival_ns
        if cost_known(view.cost):
            limit_ns += view.max_latency_ns - safe_service_ns(view, size)
        if limit_ns < plan.until_ns:
            plan = Plan(until_ns=limit_ns, size=plan.size, reason=LATENCY)
    return plan


cdef inline Plan plan_fixed(const View *view) noexcept nogil:
    """Wait for a full batch, but no longer than `max_wait_ns` from the oldest arrival, and no longer than the predicted
    service time allows where there is a latency target to keep."""
    cdef Plan plan = plan_immediate(view)
    if plan.reason == FULL:
        return plan
    plan.until_ns = NEVER_NS
    return no_later(view, plan, view.queued)
