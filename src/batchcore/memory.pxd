"""See `memory.pyx`."""

from libc.stdint cimport int64_t

from batchcore._ndarray cimport npy_intp


cdef class Block:
    cdef object owner           # what the bytes belong to
    cdef char *data             # aligned to 64 bytes
    cdef int64_t capacity       # bytes
    cdef int64_t needed_at      # takes of the pool when a batch last needed a quarter of it or more


cdef class Lease:
    cdef Block block
    cdef Pool pool              # where the block goes; None: nowhere


cdef class Pool:
    cdef list free              # blocks, the last one returned at the end; critical section
    cdef int64_t takes          # critical section
    cdef public int64_t limit   # most free blocks that are kept
    cdef Lease take(self, int64_t size)
    cdef int give(self, Block block) except -1


cdef Lease pinned_lease(object torch, int64_t size)
cdef object array_over(Lease lease, int64_t offset, object dtype, int ndim, npy_intp *shape)
cdef object tensor_over(object memory, int64_t offset, object dtype, int ndim, npy_intp *shape)
