"""A submitted item as a row: an array (or one a field) until its batch is assembled, or a place in a stage."""

cimport cython

from batchcore._ndarray cimport PyArray_DATA, PyArray_DIMS, PyArrayObject, import_array
from batchcore.layout cimport Field, Layout, takes, where

import_array()


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
