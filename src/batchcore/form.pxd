"""See `form.pyx`."""

from libc.stdint cimport int64_t


cdef class Piece:
    cdef readonly object layout     # hashable, comparable; pieces of equal layout may share a batch
    cdef readonly int64_t length    # that the longest field is padded to on its own; 1 where nothing is padded


cdef class Form:
    cdef readonly bint staged               # rows are copied at submit: `stage` is called for every piece
    cdef readonly int64_t item_elements     # array elements that came from items, in all batches so far
    cdef readonly int64_t batch_elements    # array elements of all batches so far, padding and filler included
    cdef Piece prepare(self, object item)
    cdef object stage(self, Piece piece, object stage)
    cdef int check(self, Piece piece) except -1
    cdef tuple assemble(self, list pieces, int64_t size)
