"""What a batch of n is expected to take, learned from the batches that completed.

Two estimates in one.  An affine law, least squares over (n, service time) with weights that decay by 0.985 a batch,
kept as five sums; its slope is drawn to a tenth of the mean for want of better evidence, the more the noisier the
figures are.
And a moving average for each size (each eighth of an octave above 64), which the law fills in where batches are few:
real models have steps, cliffs and sizes at which batching hurts.

A batch is judged only by its own size's past.  An odd one is clipped.  Three slow or three fast ones in a row, or a
single very fast one, say that the machine or the model has changed, and rescale what was known before, which keeps its
shape: so a drift is followed within three.  But where only one size is odd, and that was hardly known, or long ago,
what has been confirmed since still holds: a slow first batch (compilation, cold caches) is forgotten with the next of
its size, and takes no other along.  Slow and fast are judged alike, or a machine that goes to and fro would leave the
sizes that it does not run behind, a step at a time; and none is led away far from all that was ever measured.

What n counts is the load: the size of the batch that the model is given or, where requests are weighed, its weight.
The load of a batch that is not made yet comes from its size and the usual weight of a request.

O(1) to learn and to predict but for a rescaling; plain doubles in a fixed order, so every machine learns the same.
Source: the rules and figures of the simulation study in docs/policies.md; Clockwork (OSDI 2020) for tables by size.
"""

from libc.stdint cimport int32_t, int64_t

from batchcore._numeric cimport floor_log2

cdef extern from *:
    const double MOST_NS "1e16"     # 116 days: the sum of some hundred and an instant fits a 64-bit integer
    const double MEMORY "66.0"      # batches that the law goes by: the sum of its weights in the long run

cdef enum:
    EXACT_SIZES = 64    # each has a slot of its own; above, eight slots an octave
    LATELY = 64         # batches
    SLOTS = 265         # up to MAX_LOAD
    MAX_SIZE = 1 << 20  # requests
    MAX_LOAD = 0x7FFF_FFFF

cdef struct Slot:
    double seen         # batches, at most 1000; 0: none
    double n            # moving average of their load
    double ns           # moving average of their service time
    int64_t set_at      # Cost.learned when that was last confirmed, or rescaled

cdef struct Cost:
    double weight       # sum of weights; 0 before the first batch
    double n            # weighted sums of: load,
    double ns           # service time, ns,
    double n_n          # load squared,
    double n_ns         # load times service time
    double slope        # the affine law, ns a unit of load,
    double intercept    # and ns a batch
    double deviation    # moving average of |service time / expected - 1|, at most 1
    double fastest_ns   # the fastest batch lately; 0 before the first
    double least_ns     # service time of the fastest batch ever; 0 before the first
    double most_ns      # and of the slowest
    int64_t learned     # batches ever
    int64_t odd         # batches in a row that were slow, or that were fast
    const Slot *odd_slot    # theirs; NULL: they differ; valid when odd > 0
    double odd_ratio    # service time / expected of the least odd of them; valid when odd > 0
    double per_request  # mean weight of a request lately; 0: load is no weight, or none is known
    const int32_t *sizes    # the only batch sizes the model is given, ascending; belongs to the engine
    int64_t size_count  # 0: any
    Slot slots[SLOTS]


cdef inline int slot_of(int64_t n) noexcept nogil:
    cdef int octave
    if n < EXACT_SIZES:
        return <int>n
    octave = floor_log2(n)
    return EXACT_SIZES + (octave - 6) * 8 + <int>((n >> (octave - 3)) & 7)


cdef inline int64_t cost_sizes_below(const Cost *cost, int64_t n) noexcept nogil:
    """How many of the sizes accepted are less than n."""
    cdef int64_t low = 0
    cdef int64_t high = cost.size_count
    cdef int64_t middle
    while low < high:
        middle = (low + high) // 2
        if cost.sizes[middle] < n:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline int64_t cost_size_up(const Cost *cost, int64_t n) noexcept nogil:
    """The size of the batch that the model is given for n requests: the next one accepted."""
    cdef int64_t i = cost_sizes_below(cost, n)
    return cost.sizes[i] if i < cost.size_count else n


cdef inline int64_t cost_size_down(const Cost *cost, int64_t n) noexcept nogil:
    """The largest size accepted up to n; 0: there is none."""
    cdef int64_t i = cost_sizes_below(cost, n + 1)
    return cost.sizes[i - 1] if i > 0 else 0


cdef inline double cost_load(const Cost *cost, double n) noexcept nogil:
    """What n requests are likely to load the model with."""
    if cost.per_request > 0.0:
        return n * cost.per_request
    if cost.size_count > 0:
        return <double>cost_size_up(cost, <int64_t>n)
    return n


cdef inline bint cost_known(const Cost *cost) noexcept nogil:
    return cost.weight > 0.0


cdef inline double cost_law_ns(const Cost *cost, double n) noexcept nogil:
    return cost.slope * n + cost.intercept


cdef inline double cost_slot_ns(const Cost *cost, const Slot *slot, int64_t n) noexcept nogil:
    """What the slot of size n says; the law carries it from the slot's mean size to n."""
    if slot.n == <double>n:
        return slot.ns
    return slot.ns * cost_law_ns(cost, <double>n) / cost_law_ns(cost, slot.n)


cdef inline double cost_load_ns(const Cost *cost, int64_t n) noexcept nogil:
    """Expected service time of a load of n, 1 to MAX_LOAD: ns, at most MOST_NS; 0 while nothing is known."""
    cdef double law = cost_law_ns(cost, <double>n)
    cdef const Slot *slot = &cost.slots[slot_of(n)]
    cdef double trust
    if slot.seen == 0.0:
        return min(law, MOST_NS)
    trust = 1.0 if slot.seen < 3.0 else 0.2     # in the law, in batches
    return min((slot.seen * cost_slot_ns(cost, slot, n) + trust * law) / (slot.seen + trust), MOST_NS)


cdef inline double cost_expect_ns(const Cost *cost, int64_t n) noexcept nogil:
    """The same for a batch of n requests, 1 to MAX_SIZE."""
    if cost.per_request == 0.0 and cost.size_count == 0:
        return cost_load_ns(cost, n)
    return cost_load_ns(cost, <int64_t>max(min(cost_load(cost, <double>n), <double>MAX_LOAD), 1.0))


cdef inline int64_t cost_predict_ns(const Cost *cost, int64_t n) noexcept nogil:
    """The same in whole nanoseconds."""
    return <int64_t>cost_expect_ns(cost, n)


cdef inline void cost_fit(Cost *cost) noexcept nogil:
    """Draw the law through the sums; neither slope nor intercept is ever negative."""
    cdef double mean_n = cost.n / cost.weight
    cdef double mean_ns = cost.ns / cost.weight
    cdef double spread = cost.n_n - cost.n * mean_n
    cdef double doubt = cost.deviation * mean_n / 0.3
    doubt = doubt * doubt + 1e-9 * cost.n_n
    cost.slope = max((cost.n_ns - cost.n * mean_ns + doubt * 0.1 * mean_ns / mean_n) / (spread + doubt), 0.0)
    cost.intercept = mean_ns - cost.slope * mean_n
    if cost.intercept < 0.0:
        cost.intercept = 0.0
        cost.slope = cost.n_ns / cost.n_n


cdef inline double cost_credible_ns(const Cost *cost, double ns) noexcept nogil:
    """A time that was worked out, not measured: nothing far beyond all that was ever measured."""
    return min(max(ns, 0.125 * cost.least_ns), 8.0 * cost.most_ns)


cdef inline bint cost_agrees(const Slot *slot, double n, double ns) noexcept nogil:
    """Whether a size may well take what it is believed to if a batch of n takes ns: within four, and any slope."""
    return ns * min(1.0, slot.n / n) <= 4.0 * slot.ns and slot.ns <= 4.0 * ns * max(1.0, slot.n / n)


cdef inline void cost_rescale(Cost *cost, double ratio, int64_t until, double n, double ns) noexcept nogil:
    """Multiply what was learned up to `until`, since a batch of n took ns; what was confirmed later and agrees holds.

    The law keeps its own weights if all is rescaled; else it is drawn anew through the sizes, MEMORY batches in all.
    """
    cdef Slot *slot
    cdef double seen = 0.0
    cdef double weight
    cdef bint whole = True
    cdef int i
    cost.odd = 0
    for i in range(SLOTS):
        slot = &cost.slots[i]
        if slot.seen == 0.0:
            continue
        seen += slot.seen
        if slot.set_at <= until or not cost_agrees(slot, n, ns):
            slot.ns = cost_credible_ns(cost, slot.ns * ratio)
            slot.set_at = cost.learned
        else:
            whole = False
    if whole:
        ratio = cost_credible_ns(cost, ratio * (cost.ns / cost.weight)) / (cost.ns / cost.weight)
        cost.ns *= ratio
        cost.n_ns *= ratio
        cost.fastest_ns *= ratio
        return
    cost.weight = cost.n = cost.ns = cost.n_n = cost.n_ns = 0.0
    for i in range(SLOTS):
        slot = &cost.slots[i]
        if slot.seen > 0.0:
            weight = slot.seen * min(1.0, MEMORY / seen)
            cost.weight += weight
            cost.n += weight * slot.n
            cost.ns += weight * slot.ns
            cost.n_n += weight * slot.n * slot.n
            cost.n_ns += weight * slot.n * slot.ns


cdef inline int64_t cost_until(const Cost *cost, const Slot *slot) noexcept nogil:
    """Until when what was learned is in doubt since a size is odd: whenever, if it was well known until lately."""
    if slot.seen >= 3.0 and cost.learned - slot.set_at <= LATELY:
        return cost.learned
    return slot.set_at


cdef inline double cost_judge(Cost *cost, Slot *slot, int64_t n, double ns) noexcept nogil:
    """What to learn of a batch: its time, or less of it if it is odd."""
    cdef double expected = cost_slot_ns(cost, slot, n)
    cdef double ratio, most
    if expected <= 0.0:
        return ns
    ratio = ns / expected
    most = 1.0 + max(4.0 * cost.deviation, 0.25)
    if ratio < 0.6 and ratio * (1.0 + 4.0 * cost.deviation) < 1.0:
        cost_rescale(cost, max(ratio, 1e-6), cost_until(cost, slot), <double>n, ns)
        return ns
    if ratio <= most and ratio * most >= 1.0:
        cost.odd = 0
        slot.set_at = cost.learned
        cost.deviation = min(
            cost.deviation + 0.1 * ((ratio - 1.0 if ratio > 1.0 else 1.0 - ratio) - cost.deviation), 1.0)
        return ns
    if cost.odd == 0 or (ratio > 1.0) != (cost.odd_ratio > 1.0):
        cost.odd = 1
        cost.odd_ratio = ratio
        cost.odd_slot = slot
    else:
        cost.odd += 1
        if cost.odd_slot != slot:
            cost.odd_slot = NULL
        cost.odd_ratio = min(ratio, cost.odd_ratio) if ratio > 1.0 else max(ratio, cost.odd_ratio)
    if cost.odd < 3:
        return expected * most if ratio > 1.0 else expected / most
    ratio = cost.odd_ratio
    cost_rescale(
        cost, ratio, cost.learned if cost.odd_slot == NULL else cost_until(cost, slot), <double>n, ratio * expected)
    return ratio * expected


cdef inline void cost_learn(Cost *cost, int64_t n, int64_t service_ns) noexcept nogil:
    cdef Slot *slot = &cost.slots[slot_of(n)]
    cdef double size = <double>n
    cdef double ns = min(<double>max(service_ns, <int64_t>1), MOST_NS)
    cdef double gain
    cost.least_ns = ns if cost.learned == 0 else min(ns, cost.least_ns)
    cost.most_ns = max(ns, cost.most_ns)
    cost.learned += 1
    if slot.seen > 0.0:
        ns = cost_judge(cost, slot, n, ns)
    else:
        slot.set_at = cost.learned
    gain = max(0.1, 1.0 / (slot.seen + 1.0))
    slot.n += gain * (size - slot.n)
    slot.ns += gain * (ns - slot.ns)
    slot.seen = min(slot.seen + 1.0, 1000.0)
    cost.fastest_ns = ns if cost.fastest_ns == 0.0 else min(ns, cost.fastest_ns * 1.02)
    cost.weight = cost.weight * 0.985 + 1.0
    cost.n = cost.n * 0.985 + size
    cost.ns = cost.ns * 0.985 + ns
    cost.n_n = cost.n_n * 0.985 + size * size
    cost.n_ns = cost.n_ns * 0.985 + size * ns
    cost_fit(cost)
