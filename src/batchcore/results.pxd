"""See `results.pyx`."""


cdef list results_of(object results, Py_ssize_t n, bint parts, bint copies)
