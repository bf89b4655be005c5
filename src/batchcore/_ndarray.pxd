"""The few parts of NumPy's C interface that batches need, on bare pointers: no reference is counted."""

from cpython.object cimport PyObject, PyTypeObject

cdef extern from "numpy/arrayobject.h":
    ctypedef Py_ssize_t npy_intp
    ctypedef struct PyArray_Descr:
        char kind
    ctypedef struct PyArrayObject:
        pass
    enum:
        NPY_ARRAY_CARRAY
        NPY_INT64
        NPY_BOOL
        NPY_UINT8
    PyTypeObject PyArray_Type
    bint PyArray_CheckExact(PyObject *thing) noexcept nogil
    void *PyArray_DATA(PyArrayObject *array) noexcept nogil
    int PyArray_NDIM(PyArrayObject *array) noexcept nogil
    npy_intp *PyArray_DIMS(PyArrayObject *array) noexcept nogil
    bint PyArray_IS_C_CONTIGUOUS(PyArrayObject *array) noexcept nogil
    PyArray_Descr *PyArray_DESCR(PyArrayObject *array) noexcept nogil
    npy_intp PyDataType_ELSIZE(PyArray_Descr *descr) noexcept nogil
    bint PyArray_EquivTypes(PyArray_Descr *a, PyArray_Descr *b) noexcept
    object PyArray_NewFromDescr(
        PyTypeObject *kind, PyArray_Descr *descr, int ndim, npy_intp *shape, npy_intp *strides, void *data, int flags,
        PyObject *like)
    int PyArray_SetBaseObject(PyArrayObject *array, PyObject *base) except -1
    void import_array "_import_array"() except *
