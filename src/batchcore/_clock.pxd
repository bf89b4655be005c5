"""CPython's own monotonic clock, the one behind time.monotonic_ns(), without the Python call; and a thread's pause.

The pause is all that is written per operating system here: CPython has no portable call for it.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifdef _WIN32
    #include <windows.h>
    #define batchcore_yield_core() ((void)SwitchToThread())
    #else
    #include <sched.h>
    #define batchcore_yield_core() ((void)sched_yield())
    #endif
    static inline int64_t batchcore_monotonic_ns(void) {
    #if PY_VERSION_HEX >= 0x030D0000
        PyTime_t now;
        (void)PyTime_MonotonicRaw(&now);
        return now;
    #else
        return _PyTime_GetMonotonicClock();
    #endif
    }
    """
    int64_t monotonic_ns "batchcore_monotonic_ns"() noexcept nogil
    void yield_core "batchcore_yield_core"() noexcept nogil
