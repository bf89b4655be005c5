"""What batches take in the simulator: a table by size, and what makes a batch longer or shorter than that."""

from libc.stdint cimport int64_t

from batchcore.arrivals cimport nanoseconds
from batchcore.random cimport Random, natural_exp, random_normal, random_uniform

cdef struct Service:
    const double *ns            # of a batch of n at n - 1; NULL: not set yet
    double noise                # sigma of a lognormal factor of mean 1
    double spike_probability
    double spike_ns             # what a spike adds
    int64_t warm_up_batches     # the first ones, which take
    double warm_up_factor       # so many times as long
    int64_t drift_count
    const int64_t *drift_at_ns  # sorted: from each instant on batches take
    const double *drift_factors     # so many times as long as at first
    int64_t drift_position      # steps that have come
    double drift_factor         # in force
    int64_t batches             # drawn
    Random random


cdef inline int64_t service_draw_ns(Service *service, int64_t now_ns, int64_t size) noexcept nogil:
    """Draw what the next batch takes, at least 1 ns.  The n-th draw has the same luck whatever the size and time."""
    cdef double ns = service.ns[size - 1]
    while service.drift_position < service.drift_count and service.drift_at_ns[service.drift_position] <= now_ns:
        service.drift_factor = service.drift_factors[service.drift_position]
        service.drift_position += 1
    ns *= service.drift_factor
    if service.batches < service.warm_up_batches:
        ns *= service.warm_up_factor
    service.batches += 1
    if service.noise > 0.0:
        ns *= natural_exp(service.noise * (random_normal(&service.random) - 0.5 * service.noise))
    if service.spike_probability > 0.0 and random_uniform(&service.random) < service.spike_probability:
        ns += service.spike_ns
    return max(nanoseconds(ns), 1)
