"""See `assembly.pyx`."""

from libc.stdint cimport int64_t

from batchcore.form cimport Form, Piece
from batchcore.layout cimport Layout
from batchcore.memory cimport Lease, Pool
from batchcore.rows cimport Part


cdef class Assembler(Form):
    cdef public int64_t max_batch_size  # rows of a stage
    cdef readonly Pool pool
    cdef object dtype           # that every field must have; None: any
    cdef object value
    cdef object torch           # the module, or None
    cdef bint pinned            # batches are pinned tensors
    cdef bint pinned_known      # CUDA has been asked for
    cdef int axis               # -1: stack
    cdef bint left
    cdef bint repeats           # filler rows repeat the last item
    cdef int give               # Give
    cdef int64_t multiple_of
    cdef tuple buckets
    cdef int64_t limit          # longest that fits a bucket
    cdef list recent            # layouts
    cdef Py_ssize_t next_recent
    cdef object prepare_other(self, object item)
    cdef Layout new_layout(self, object kind, tuple names, list arrays)
    cdef Lease copy(self, list pieces, Layout layout, Part *parts, int64_t size)
    cdef int collect(self, list pieces, Layout layout, Py_ssize_t index, Part *part, int64_t size) except -1
    cdef Lease in_place(self, list pieces, Layout layout, Part *parts, int64_t size)
    cdef tuple arguments(self, Layout layout, Part *parts, Lease lease, int64_t size)
    cdef int64_t rounded(self, int64_t longest) except -1
    cdef Lease lease(self, int64_t size)
