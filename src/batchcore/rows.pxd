"""Rows on their way into a batch; how they are written is here, and knows nothing of Python."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t
from libc.string cimport memcpy, memset

from batchcore._ndarray cimport PyArray_DATA, PyArray_DIMS, PyArrayObject
from batchcore.form cimport Piece
from batchcore.layout cimport Field, Layout, takes
from batchcore.memory cimport Lease

cdef enum:
    WORTH_THE_GIL = 1 << 20     # bytes that take as long to copy as a hand-over of the GIL

cdef enum Give:     # what `fn` is given beside the batch
    NOTHING
    LENGTHS
    MASK


cdef class ArrayPiece


cdef class Stage:
    cdef Lease lease
    cdef Layout layout
    cdef int64_t capacity       # rows
    cdef int64_t used           # rows that are taken, or closed; critical section
    cdef char *row(self, Py_ssize_t field, int64_t index) noexcept
    cdef bint admits(self, ArrayPiece piece) except -1
    cdef int fill_up(self, int64_t start, int64_t end, bint repeats) except -1


cdef class ArrayPiece(Piece):
    cdef readonly object source     # the array, or a tuple of one a field; None once staged
    cdef Stage stage            # None until staged
    cdef int64_t index          # in the stage


cdef struct Source:
    const char *data
    int64_t length              # along the padded axis; 1 in a stacked field


cdef struct Part:               # a field of a batch that is being made
    Source *sources             # one a piece
    int64_t offset              # of the rows in the block
    int64_t marks               # offset of the lengths or of the mask, where they are given
    int64_t outer               # as in Field
    int64_t inner
    int64_t itemsize
    bint padded
    int64_t longest             # length of every row in the batch
    const char *padding         # one element; NULL: zeros


cdef Stage stage_of(list pieces, int64_t size)
cdef int64_t bytes_of(int64_t count, int64_t size) except -1
cdef int look(ArrayPiece row, Layout layout, Py_ssize_t index, Source *source) except -1


cdef inline PyArrayObject *array_of(object array) noexcept:
    return <PyArrayObject *><PyObject *>array


cdef inline bint see(PyObject *piece, Layout layout, Field field, Source *source) noexcept:
    """Find a row's bytes the short way, if it is one array of this very layout; counts no references."""
    cdef PyArrayObject *array = <PyArrayObject *><PyObject *>(<ArrayPiece>piece).source
    if <PyObject *>(<ArrayPiece>piece).layout != <PyObject *>layout or (<ArrayPiece>piece).stage is not None:
        return False
    if not takes(field, array):
        return False
    source.data = <const char *>PyArray_DATA(array)
    source.length = 1 if field.axis < 0 else PyArray_DIMS(array)[field.axis]
    return True


cdef inline void fill(char *target, int64_t size, const char *element, int64_t itemsize) noexcept nogil:
    """Write an element over and over; each copy doubles what is there."""
    cdef int64_t done = min(itemsize, size)
    if element == NULL:
        memset(target, 0, size)
        return
    memcpy(target, element, done)
    while done < size:
        memcpy(target + done, target, min(done, size - done))
        done += min(done, size - done)


cdef inline void write(
        const Part *parts, Py_ssize_t count, int64_t size, char *block, int give, bint left) noexcept nogil:
    """Copy the sources into the rows, and pad what is shorter than the longest; say how much of each is real."""
    cdef const Part *part
    cdef Py_ssize_t i
    for i in range(count):
        part = &parts[i]
        write_rows(part, size, block + part.offset, left)
        if part.padded and give != NOTHING:
            write_marks(part, size, block + part.marks, give, left)


cdef inline void write_rows(const Part *part, int64_t size, char *target, bint left) noexcept nogil:
    cdef int64_t row = part.outer * part.longest * part.inner
    cdef const Source *source
    cdef int64_t i, j, run, rest
    for i in range(size):
        source = &part.sources[i]
        if source.data == NULL:
            fill(target, row, part.padding, part.itemsize)
        elif source.length == part.longest:
            memcpy(target, source.data, row)
        else:
            run = source.length * part.inner
            rest = part.longest * part.inner - run
            for j in range(part.outer):
                memcpy(target + j * (run + rest) + (rest if left else 0), source.data + j * run, run)
                fill(target + j * (run + rest) + (0 if left else run), rest, part.padding, part.itemsize)
        target += row


cdef inline void write_marks(const Part *part, int64_t size, char *marks, int give, bint left) noexcept nogil:
    cdef int64_t i, length, rest
    for i in range(size):
        length = part.sources[i].length
        if give == LENGTHS:
            (<int64_t *>marks)[i] = length
        else:
            rest = part.longest - length
            memset(marks + (0 if left else length), 0, rest)
            memset(marks + (rest if left else 0), 1, length)
            marks += part.longest
