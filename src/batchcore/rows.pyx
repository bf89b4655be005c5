"""A submitted item as a row: an array (or one a field) until its batch is assembled, or a place in a stage."""

cimport cython
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from batchcore._ndarray cimport PyArray_DATA, PyArray_DIMS, PyArrayObject, import_array
from batchcore.layout cimport Field, Layout, takes, where

import_array()

cdef double MOST_BYTES = 2.0 ** 56  # of a field in a batch: more than there are, and no sum of them overflows


@cython.final
@cython.no_gc   # nor does the collector look into arrays
cdef class ArrayPiece(Piece):
    pass


@cython.no_gc
cdef class Stage:
    """Rows of batches to come, field after field: `used` of them have been given away."""

    cdef char *row(self, Py_ssize_t field, int64_t index) noexcept:
        cdef char *start = self.lease.block.data
        cdef Py_ssize_t i
        for i in range(field):
            start += aligned(self.capacity * (<Field>self.layout.fields[i]).inner)
        return start + index * (<Field>self.layout.fields[field]).inner

    cdef bint admits(self, ArrayPiece piece) except -1:
        """Copy a piece into the next row and let go of its item; False if it has no place here."""
        cdef Layout layout = piece.layout
        cdef Source source
        cdef int64_t index, size
        cdef char *target
        cdef Py_ssize_t i
        if self.layout is not layout and self.layout != layout:
            return False
        for i in range(len(layout.fields)):
            look(piece, layout, i, &source)     # what it raises it raises before a row is taken
        with cython.critical_section(self):
            if self.used >= self.capacity:
                return False
            index = self.used
            self.used += 1                      # at once, and before the GIL goes
        for i in range(len(layout.fields)):
            look(piece, layout, i, &source)
            target = self.row(i, index)
            size = (<Field>layout.fields[i]).inner
            if size >= WORTH_THE_GIL:
                with nogil:
                    memcpy(target, source.data, size)
            else:
                memcpy(target, source.data, size)
        piece.stage = self
        piece.index = index
        piece.source = None
        return True

    cdef int fill_up(self, int64_t start, int64_t end, bint repeats) except -1:
        """Write filler into the rows from `start` to `end`: the one before, or zeros."""
        cdef char *target
        cdef int64_t size, index
        cdef Py_ssize_t i
        for i in range(len(self.layout.fields)):
            size = (<Field>self.layout.fields[i]).inner
            for index in range(start, end):
                target = self.row(i, index)
                if repeats:
                    memcpy(target, target - size, size)
                else:
                    memset(target, 0, size)
        return 0


cdef Stage stage_of(list pieces, int64_t size):
    """Return the stage in which pieces lie one after the other, with room for `size` rows; None if there is none."""
    cdef ArrayPiece piece = <ArrayPiece>pieces[0]
    cdef Stage stage = piece.stage
    cdef int64_t first = piece.index
    cdef int64_t end = first + len(pieces)
    cdef Py_ssize_t i
    if stage is None:
        return None
    for i in range(len(pieces)):
        piece = <ArrayPiece>pieces[i]
        if piece.stage is not stage or piece.index != first + i:
            return None
    with cython.critical_section(stage):
        if end < first + size and (stage.used != end or first + size > stage.capacity):
            return None
        if stage.used == end:
            stage.used = stage.capacity     # nothing waits in it: the next batch had better begin a stage of its own
    return stage


cdef int64_t bytes_of(int64_t count, int64_t size) except -1:
    """Return what `count` rows of `size` bytes take in a block."""
    if <double>count * size > MOST_BYTES:
        raise MemoryError(f"no memory for {count} times {size} bytes")
    return aligned(count * size)


cdef inline int64_t aligned(int64_t size) noexcept:
    return (size + 63) & ~<int64_t>63


cdef int look(ArrayPiece row, Layout layout, Py_ssize_t index, Source *source) except -1:
    """Find a row's bytes; somebody may have changed the array in place since it was submitted."""
    cdef Field field = <Field>layout.fields[index]
    cdef PyArrayObject *array
    if row.layout is not layout and row.layout != layout:
        raise ValueError(f"{row.layout} and {layout} cannot share a batch")
    if row.stage is not None:
        source.data = row.stage.row(index, row.index)
        source.length = 1
        return 0
    array = array_of(row.source if layout.kind is None else (<tuple>row.source)[index])
    if not takes(field, array):
        raise ValueError(
            f"{where(layout.names, index)} was reshaped after it was submitted; leave items alone until they are "
            "answered, or use assemble='submit'")
    source.data = <const char *>PyArray_DATA(array)
    source.length = 1 if field.axis < 0 else PyArray_DIMS(array)[field.axis]
    return 0
