"""What a batch of n is expected to take: an affine law, learned from the batches that completed.

Least squares over (n, service time) with weights that decay by 0.985 a batch, kept as five sums, so that learning and
predicting are O(1) and drift is forgotten.  While all batches had one size there is no slope to see and the mean is the
answer.  Neither slope nor intercept is ever negative, and no prediction is above MOST_NS.  Plain doubles in a fixed
order, so every machine learns the same figures.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    const double MOST_NS "1e18"     # 31 years; what goes beyond would not fit its type

cdef struct Cost:
    double weight       # sum of weights; 0 before the first batch
    double n            # weighted sums of: batch size,
    double ns           # service time, ns,
    double n_n          # size squared,
    double n_ns         # size times service time


cdef inline void cost_learn(Cost *cost, int64_t n, int64_t service_ns) noexcept nogil:
    cdef double decay = 0.985
    cost.weight = cost.weight * decay + 1.0
    cost.n = cost.n * decay + <double>n
    cost.ns = cost.ns * decay + <double>service_ns
    cost.n_n = cost.n_n * decay + <double>n * <double>n
    cost.n_ns = cost.n_ns * decay + <double>n * <double>service_ns


cdef inline bint cost_known(const Cost *cost) noexcept nogil:
    return cost.weight > 0.0


cdef inline int64_t cost_predict_ns(const Cost *cost, int64_t n) noexcept nogil:
    """Expected service time of a batch of n, ns; 0 while nothing is known."""
    cdef double spread, slope, intercept
    if not cost_known(cost):
        return 0
    slope = 0.0
    spread = cost.weight * cost.n_n - cost.n * cost.n
    if spread > 1e-9 * (cost.weight * cost.n_n):
        slope = max((cost.weight * cost.n_ns - cost.n * cost.ns) / spread, 0.0)
    intercept = (cost.ns - slope * cost.n) / cost.weight
    if intercept < 0.0:
        intercept = 0.0
        slope = cost.n_ns / cost.n_n
    return <int64_t>min(slope * <double>n + intercept, MOST_NS)
