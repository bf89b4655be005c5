"""Memory of batches, used again exactly when nobody can see the batch any more.

Every array of a batch has the batch's `Lease` for its base, and so has every view of it, directly or not: a slice, a
memoryview, a DLPack capsule, a tensor.  When the last of them goes the lease goes, and gives its block back.

A block that no batch has needed for UNNEEDED_AFTER batches is let go, so that one giant does not stay for ever.
"""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uintptr_t

import numpy

from batchcore._ndarray cimport (
    NPY_ARRAY_CARRAY, PyArray_Descr, PyArray_NewFromDescr, PyArray_SetBaseObject, PyArray_Type, PyArrayObject,
    import_array, npy_intp,
)

import_array()

cdef enum:
    ALIGNMENT = 64          # a cache line, and the widest vector register
    UNNEEDED_AFTER = 256    # batches


cdef class Block:
    """Bytes."""


@cython.no_gc   # it must hold its block until __dealloc__, and a block refers to nothing that refers to a lease
cdef class Lease:
    """The right to use a block; ends with its last reference."""

    def __dealloc__(self):
        if self.pool is not None:
            self.pool.give(self.block)


cdef class Pool:
    """Free blocks, at most `limit` of them."""

    def __cinit__(self, int64_t limit):
        self.free = []
        self.limit = limit

    def __len__(self):
        return len(self.free)

    cdef Lease take(self, int64_t size):
        """Return a lease of `size` bytes or more: of the block that came back last, for it is still in the cache."""
        cdef Lease lease = Lease.__new__(Lease)
        cdef Block block
        cdef int64_t takes
        cdef Py_ssize_t i
        size = max(size, <int64_t>ALIGNMENT)
        with cython.critical_section(self):
            self.takes += 1
            takes = self.takes
            for i in range(len(self.free) - 1, -1, -1):
                block = <Block>self.free[i]
                if block.capacity >= size:
                    del self.free[i]
                    break
            else:
                block = None
        if block is None:
            block = new_block(size)
        if 4 * size >= block.capacity:
            block.needed_at = takes
        lease.block = block
        lease.pool = self
        return lease

    cdef int give(self, Block block) except -1:
        """Take a block back, and let go what has not been needed for long."""
        cdef Block oldest   # let go after the section
        with cython.critical_section(self):
            self.free.append(block)
            oldest = <Block>self.free[0]
            if len(self.free) > self.limit or self.takes - oldest.needed_at > UNNEEDED_AFTER:
                del self.free[0]
        return 0


cdef Block new_block(int64_t size):
    # NumPy allocates: it asks for huge pages and tells tracemalloc.
    cdef Block block = Block.__new__(Block)
    cdef uintptr_t start
    block.owner = numpy.empty(size + ALIGNMENT, numpy.uint8)
    start = <uintptr_t>block.owner.ctypes.data
    block.data = <char *>((start + ALIGNMENT - 1) & ~<uintptr_t>(ALIGNMENT - 1))
    block.capacity = size
    return block


cdef Lease pinned_lease(object torch, int64_t size):
    """Return memory from torch's allocator of pinned memory.

    No pool of ours: a copy to a device may be under way when the last reference goes, and only that allocator knows.
    """
    cdef Lease lease = Lease.__new__(Lease)
    lease.block = Block.__new__(Block)
    lease.block.capacity = size
    lease.block.owner = torch.empty(size, dtype=torch.uint8, pin_memory=True)
    lease.block.data = <char *><uintptr_t>lease.block.owner.data_ptr()
    return lease


cdef object array_over(Lease lease, int64_t offset, object dtype, int ndim, npy_intp *shape):
    """Return an array over leased memory, which lives as long as that array and its views."""
    Py_INCREF(dtype)    # both are stolen
    array = PyArray_NewFromDescr(
        &PyArray_Type, <PyArray_Descr *><PyObject *>dtype, ndim, shape, NULL, lease.block.data + offset,
        NPY_ARRAY_CARRAY, NULL)
    Py_INCREF(lease)
    PyArray_SetBaseObject(<PyArrayObject *><PyObject *>array, <PyObject *>lease)
    return array


cdef object tensor_over(object memory, int64_t offset, object dtype, int ndim, npy_intp *shape):
    """Return a tensor over part of a tensor of bytes."""
    cdef int64_t size = dtype.itemsize
    cdef int i
    for i in range(ndim):
        size *= shape[i]
    return memory[offset:offset + size].view(dtype).view([shape[i] for i in range(ndim)])
