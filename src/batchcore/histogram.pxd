"""Counts by size with fixed bounds: one binary search and two adds an observation."""

from libc.stdint cimport int64_t

cdef enum:
    MAX_BOUNDS = 32

cdef extern from *:
    const int64_t CARRY "((int64_t)1 << 62)"

cdef struct Histogram:
    int64_t bounds[MAX_BOUNDS]      # inclusive upper bounds, strictly increasing; bounds[0 .. size) count
    int64_t counts[MAX_BOUNDS + 1]  # observations in each interval; counts[size] is what is above the last bound
    int64_t sum                     # of all observations, less carried * CARRY
    int64_t carried                 # a million requests a second, a second late each, fill 63 bits in three hours
    int size


cdef inline void histogram_add(Histogram *histogram, int64_t value) noexcept nogil:
    cdef int low = 0
    cdef int high = histogram.size
    cdef int middle
    while low < high:
        middle = (low + high) // 2
        if histogram.bounds[middle] < value:
            low = middle + 1
        else:
            high = middle
    histogram.counts[low] += 1
    histogram.sum += value
    if histogram.sum >= CARRY:
        histogram.sum -= CARRY
        histogram.carried += 1


cdef inline void histogram_extend(Histogram *histogram, int64_t bound) noexcept nogil:
    """Add a bound at the end, if it is one, there is room for it, and nothing was counted above the last one yet."""
    cdef int size = histogram.size
    if size < MAX_BOUNDS and bound > histogram.bounds[size - 1] and histogram.counts[size] == 0:
        histogram.bounds[size] = bound
        histogram.size = size + 1
