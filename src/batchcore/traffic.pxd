"""How requests come: how many a second, how soon the next one, and whether they come because others were answered.

Kept by a few adds a request, in no more memory than this struct:

- the rate, an exponential kernel of WINDOW_NS over arrivals, unbiased from the start;
- how long after an instant of decision the next request came, as a decayed histogram for each kind of instant
  (`Moment`).  Poisson traffic and bursts differ there and not in their rate;
- whether arrivals crowd into the first quarter of the cycle that follows a completion, as they do when callers
  wait for an answer before they ask again (`traffic_closed`), how long such a return takes, and how many callers there
  are: the most that are queued and running together between two completions, less the usual deviation.

All of it is observed, whatever the policy does: learning costs no experiment.
Source: the simulation study named in docs/policies.md.
"""

from libc.stdint cimport int64_t

from batchcore._numeric cimport decay, floor_log2

cdef enum:
    BINS = 90               # four an octave from 8 us to 32 s
    WINDOW_NS = 300_000_000

cdef enum Moment:
    AFTER_COMPLETION    # a worker became free
    INTO_IDLE           # the first request came while a worker was free
    FURTHER             # another one joined it
    MOMENTS
    NO_MOMENT

cdef struct Gaps:
    double weights[BINS]    # by bin, of the gaps seen; that each counts more than the one before is their decay
    double total            # sum of them
    double unit             # what the latest one counted; 0 before the first

cdef struct Traffic:
    double arrivals         # decayed count of them, as of rated_at_ns
    int64_t rated_at_ns     # latest arrival counted
    int64_t first_at_ns     # first one
    int64_t seen            # arrivals ever
    Moment moment           # the instant of decision that no arrival has followed yet
    int64_t moment_at_ns
    Gaps gaps[<int>MOMENTS]
    Gaps returns            # from the completion before to an arrival
    int64_t completed_at_ns     # latest completion; valid when cycle_ns > 0
    int64_t cycle_ns        # its service time over the workers, the usual time between two; 0 before the first
    int64_t awaited         # requests of that batch that no arrival has followed yet
    double early            # decayed count of arrivals in the first quarter of a cycle after a completion,
    double late             # and in the other three
    int64_t present         # most requests queued and running at once since the latest completion
    double callers          # moving average of that at each completion, and
    double callers_spread   # of how far it was off


cdef inline int bin_of(int64_t gap_ns) noexcept nogil:
    cdef int octave
    if gap_ns < 1 << 13:
        return 0
    octave = floor_log2(gap_ns) - 13
    return min(1 + 4 * octave + <int>((gap_ns >> (octave + 11)) & 3), BINS - 1)


cdef inline int64_t bin_end_ns(int i) noexcept nogil:
    """The upper end of a bin, which is not in it."""
    if i == 0:
        return 1 << 13
    return (<int64_t>(5 + (i - 1) % 4) << ((i - 1) // 4)) << 11


cdef inline void gaps_add(Gaps *gaps, int64_t gap_ns, double growth) noexcept nogil:
    """Count a gap, `growth` times as much as the one before."""
    cdef int i
    if gaps.unit > 1e100:
        for i in range(BINS):
            gaps.weights[i] /= gaps.unit
        gaps.total /= gaps.unit
        gaps.unit = 1.0
    gaps.unit = gaps.unit * growth if gaps.unit > 0.0 else 1.0
    gaps.weights[bin_of(gap_ns)] += gaps.unit
    gaps.total += gaps.unit


cdef inline bint gaps_known(const Gaps *gaps) noexcept nogil:
    """Whether eight or so were seen."""
    return gaps.total > 7.0 * gaps.unit and gaps.unit > 0.0


cdef inline void traffic_moment(Traffic *traffic, int64_t now_ns, Moment moment) noexcept nogil:
    """An instant of decision; the next arrival says what waiting would have brought."""
    traffic.moment = moment
    traffic.moment_at_ns = now_ns


cdef inline void traffic_arrive(Traffic *traffic, int64_t now_ns, int64_t present) noexcept nogil:
    """A request came; `present` are queued or running, itself included."""
    cdef int64_t lag_ns
    if traffic.seen == 0:
        traffic.first_at_ns = traffic.rated_at_ns = now_ns
        traffic.moment = NO_MOMENT
    traffic.seen += 1
    traffic.arrivals = traffic.arrivals * decay(<double>(now_ns - traffic.rated_at_ns) / WINDOW_NS) + 1.0
    traffic.rated_at_ns = now_ns
    if traffic.moment != NO_MOMENT:
        gaps_add(&traffic.gaps[<int>traffic.moment], now_ns - traffic.moment_at_ns, 1.0 / 0.97)
        traffic.moment = NO_MOMENT
    if traffic.awaited > 0:
        traffic.awaited -= 1
    if traffic.cycle_ns > 0:
        lag_ns = now_ns - traffic.completed_at_ns
        gaps_add(&traffic.returns, lag_ns, 1.0 / 0.998)
        if lag_ns <= traffic.cycle_ns:
            traffic.early *= 0.98
            traffic.late *= 0.98
            if lag_ns <= traffic.cycle_ns // 4:
                traffic.early += 1.0
            else:
                traffic.late += 1.0
    if present > traffic.present:
        traffic.present = present


cdef inline void traffic_complete(
    Traffic *traffic, int64_t now_ns, int64_t cycle_ns, int64_t size, int64_t present,
) noexcept nogil:
    """A batch of `size` ended; `present` are queued or running without it."""
    cdef double off = <double>traffic.present - traffic.callers
    if traffic.cycle_ns == 0:
        traffic.callers = <double>traffic.present
    else:
        traffic.callers += 0.1 * off
        traffic.callers_spread += 0.1 * ((off if off > 0.0 else -off) - traffic.callers_spread)
    traffic.present = present
    traffic.completed_at_ns = now_ns
    traffic.cycle_ns = cycle_ns
    traffic.awaited = size


cdef inline double traffic_rate(const Traffic *traffic, int64_t now_ns) noexcept nogil:
    """Arrivals a nanosecond since the first one, which is not counted itself."""
    cdef double first
    if traffic.seen < 2 or now_ns <= traffic.first_at_ns:
        return 0.0
    first = decay(<double>(now_ns - traffic.first_at_ns) / WINDOW_NS)
    return max(traffic.arrivals * decay(<double>(now_ns - traffic.rated_at_ns) / WINDOW_NS) - first, 0.0) / (
        WINDOW_NS * (1.0 - first))


cdef inline bint traffic_closed(const Traffic *traffic) noexcept nogil:
    """Whether callers seem to wait for answers before they ask again."""
    return traffic.early + traffic.late > 20.0 and traffic.early > 0.6 * (traffic.early + traffic.late)


cdef inline int64_t traffic_callers(const Traffic *traffic) noexcept nogil:
    """How many callers there are at least, if they wait for answers."""
    return <int64_t>(traffic.callers - traffic.callers_spread + 0.5)
