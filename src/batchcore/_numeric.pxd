"""Arithmetic that gives the same bits on every machine: only + - * / on doubles, and integers."""

from libc.stdint cimport int64_t
from libc.string cimport memcpy


cdef extern from *:
    """
    #if defined(_MSC_VER)
    #include <intrin.h>
    static int batchcore_log2(unsigned long long x) { unsigned long i; _BitScanReverse64(&i, x); return (int)i; }
    #else
    #define batchcore_log2(x) (63 - __builtin_clzll((unsigned long long)(x)))
    #endif
    """
    int floor_log2 "batchcore_log2"(int64_t x) noexcept nogil     # x > 0


cdef inline int64_t rank_of(double x) noexcept nogil:
    """An integer that orders as x does, x >= 0: its bits."""
    cdef int64_t bits
    memcpy(&bits, &x, sizeof(bits))
    return bits


cdef inline double decay(double x) noexcept nogil:
    """exp(-x) for x >= 0, to nine digits: halved until it is small, a short series, squared back."""
    cdef int halvings = 0
    cdef double y
    if x > 60.0:
        return 0.0
    while x > 0.0625:
        x *= 0.5
        halvings += 1
    y = 1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0 - x * (1.0 / 120.0)))))
    for _ in range(halvings):
        y *= y
    return y


cdef inline double power(double x, int64_t n) noexcept nogil:
    """x to the n, n >= 0, in O(log n)."""
    cdef double result = 1.0
    while n > 0:
        if n & 1:
            result *= x
        x *= x
        n >>= 1
    return result
