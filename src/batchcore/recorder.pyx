"""Arrivals as they come, kept for a file: 24 bytes and a few nanoseconds a request."""

from libc.stdint cimport int32_t, int64_t
from libc.stdlib cimport free, realloc

from batchcore._types cimport NEVER_NS


cdef class Recorder:
    """Remember when requests come from `start_ns` on, with what timeout and priority; at most `limit` of them.

    A dispatcher fills it under its lock, so `add` runs no Python code.
    """

    def __init__(self, int64_t limit, int64_t start_ns):
        self.limit = limit
        self.start_ns = start_ns

    def __dealloc__(self):
        free(self.rows)

    cdef void add(self, int64_t arrival_ns, int64_t deadline_ns, int32_t priority) noexcept:
        cdef int64_t room
        cdef Row *rows
        if self.count == self.room:
            room = min(max(2 * self.room, <int64_t>1024), self.limit)
            rows = <Row *>realloc(self.rows, room * sizeof(Row)) if room > self.room else NULL
            if rows == NULL:
                self.missed += 1
                return
            self.rows = rows
            self.room = room
        self.rows[self.count] = Row(arrival_ns=arrival_ns, deadline_ns=deadline_ns, priority=priority)
        self.count += 1

    def columns(self):
        """Return arrivals, ms since the start, timeouts, ms or None, and priorities: three lists of equal length."""
        cdef int64_t i
        cdef list arrivals = []
        cdef list timeouts = []
        cdef list priorities = []
        for i in range(self.count):
            row = self.rows[i]
            arrivals.append(max(row.arrival_ns - self.start_ns, <int64_t>0) / 1e6)
            timeouts.append(
                None if row.deadline_ns == NEVER_NS else max(row.deadline_ns - row.arrival_ns, <int64_t>0) / 1e6)
            priorities.append(row.priority)
        return arrivals, timeouts, priorities
