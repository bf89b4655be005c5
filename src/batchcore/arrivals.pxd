"""When requests come: the processes that a source of the simulator may follow, and the classes of their deadlines.

Each source and each client of a closed loop has a generator of its own, so that what one of them draws never depends on
another, on the policy or on how long anything took.
"""

from libc.stdint cimport int32_t, int64_t

from batchcore._types cimport NEVER_NS
from batchcore.random cimport Random, random_exponential, random_gamma, random_uniform

cdef enum:
    MAX_CLASSES = 16    # of deadlines

cdef extern from *:
    const int64_t MAX_INSTANT_NS "(((int64_t)1 << 62) - 1)"     # leaves room to add any duration
    const double MAX_DURATION_NS "1e17"

cdef enum Process:      # with its parameters, times in ns
    POISSON     # mean gap
    GAMMA       # mean gap times shape is the first; shape is the second
    MMPP        # mean gap in each of two phases, mean length of each
    BURSTS      # mean gap between starts, least and most requests of a burst, mean gap within
    CLOSED      # clients, fixed part of a return, mean of its exponential part
    TRACE       # none: the columns below

cdef struct Source:
    Process process
    double parameters[4]        # as listed above
    Random random
    int32_t id                  # 0 for the first
    int64_t at_ns               # the latest arrival that was drawn; BURSTS: the latest start
    int64_t phase_until_ns      # MMPP
    int phase                   # MMPP: 0 or 1
    int64_t position            # TRACE: the next row
    int64_t length              # TRACE: rows
    const int64_t *arrivals_ns  # TRACE: sorted
    const int64_t *timeouts_ns  # TRACE; NULL: as for every source
    const int64_t *slos_ns      # TRACE; NULL: as for every source
    const int32_t *priorities   # TRACE; NULL: all 0

cdef struct Mix:
    int count                   # classes; 0: nobody has a limit
    int64_t ns[MAX_CLASSES]     # NEVER_NS: no limit
    double upto[MAX_CLASSES]    # share of this class and those before


cdef inline int64_t nanoseconds(double ns) noexcept nogil:
    """The nearest whole number, at least 0 and at most MAX_DURATION_NS."""
    return <int64_t>(min(max(ns, 0.0), MAX_DURATION_NS) + 0.5)


cdef inline int64_t mix_pick(const Mix *mix, double share) noexcept nogil:
    """The limit of the class that `share`, drawn from [0, 1), falls into, ns."""
    cdef int i
    for i in range(mix.count):
        if share < mix.upto[i] or i == mix.count - 1:
            return mix.ns[i]
    return NEVER_NS


cdef inline int64_t source_next_ns(Source *source) noexcept nogil:
    """Draw the next arrival of an open source, or the next start of BURSTS; NEVER_NS: there is none.

    It is drawn from the one before, whatever else happens, so that times add up without a drift.
    """
    cdef double *parameters = source.parameters
    cdef int64_t gap_ns
    if source.process == TRACE:
        source.position += 1
        return source.arrivals_ns[source.position - 1] if source.position <= source.length else NEVER_NS
    if source.process == GAMMA:
        source.at_ns += nanoseconds(random_gamma(&source.random, parameters[1]) * parameters[0])
        return source.at_ns
    while source.process == MMPP and source.at_ns < MAX_INSTANT_NS:
        gap_ns = nanoseconds(random_exponential(&source.random) * parameters[source.phase])
        if source.at_ns + gap_ns < source.phase_until_ns:
            source.at_ns += gap_ns
            return source.at_ns
        # The gap is exponential, so what is left of it after the change of phase may be drawn anew.
        source.at_ns = source.phase_until_ns
        source.phase = 1 - source.phase
        source.phase_until_ns += nanoseconds(random_exponential(&source.random) * parameters[2 + source.phase]) + 1
    source.at_ns += nanoseconds(random_exponential(&source.random) * parameters[0])
    return source.at_ns


cdef inline int64_t burst_size(Source *source) noexcept nogil:
    """Draw how many requests the burst that starts now has."""
    cdef double least = source.parameters[1]
    cdef double most = source.parameters[2]
    return <int64_t>(least + random_uniform(&source.random) * (most - least + 1.0))


cdef inline int64_t return_lag_ns(const Source *source, Random *random) noexcept nogil:
    """Draw how long a client takes from an answer to its next request; at least 1 ns, so that time goes on."""
    return 1 + nanoseconds(source.parameters[1] + source.parameters[2] * random_exponential(random))
