"""See `audit.pyx`."""

from batchcore.machine cimport Machine


cdef int audit(const Machine *machine) except -1
