"""See `layout.pyx`."""

from libc.stdint cimport int64_t

from batchcore._ndarray cimport (
    PyArray_DESCR, PyArray_DIMS, PyArray_EquivTypes, PyArray_IS_C_CONTIGUOUS, PyArray_NDIM, PyArrayObject,
    PyArray_Descr, PyDataType_ELSIZE, npy_intp,
)

cdef enum:
    MOST_DIMENSIONS = 30    # of an item: the batch has one more, and NumPy 1 allows 32


cdef class Field:
    cdef object dtype
    cdef object torch_dtype     # of the tensor that a batch becomes; None where batches are arrays
    cdef bytes padding          # one element of what is written after (or before) the items; None: zeros, or stacked
    cdef int ndim
    cdef int axis               # the padded one; -1: none, the field is stacked
    cdef npy_intp shape[MOST_DIMENSIONS]    # -1 at the padded axis
    cdef int64_t itemsize
    cdef int64_t outer          # runs in an item: elements before the padded axis; 1 where none is padded
    cdef int64_t inner          # bytes of a run for each step of the padded axis; of the whole item where none is
    cdef int64_t elements       # of an item, for each step of the padded axis if there is one


cdef class Layout:
    cdef readonly object kind   # None: one array; dict, tuple, or the class of a named tuple or dataclass
    cdef readonly tuple names   # of the fields
    cdef tuple fields
    cdef object signature       # two layouts are equal if these are
    cdef Py_hash_t hash
    cdef object gather(self, list values)


cdef inline bint takes(Field field, PyArrayObject *array) noexcept:
    """Whether an array is what the field says, but for its length, and lies in memory row after row."""
    cdef PyArray_Descr *descr = PyArray_DESCR(array)
    cdef PyArray_Descr *own = <PyArray_Descr *><void *>field.dtype
    cdef npy_intp *shape = PyArray_DIMS(array)
    cdef int i
    if PyArray_NDIM(array) != field.ndim or not PyArray_IS_C_CONTIGUOUS(array):
        return False
    for i in range(field.ndim):
        if shape[i] != field.shape[i] and i != field.axis:
            return False
    return descr == own or (
        descr.kind == own.kind and PyDataType_ELSIZE(descr) == field.itemsize and PyArray_EquivTypes(descr, own))


cdef inline bint fits(Layout layout, list arrays) noexcept:
    """Whether arrays, one a field, are what the layout says."""
    cdef Py_ssize_t i
    for i in range(len(arrays)):
        if not takes(<Field>layout.fields[i], <PyArrayObject *><void *>arrays[i]):
            return False
    return True


cdef tuple take_apart(object item, list layouts)


cdef inline str where(tuple names, Py_ssize_t index):
    """Say which array of an item is meant."""
    return "an item" if names is None else f"field {names[index]!r} of an item"
