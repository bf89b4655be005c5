"""Batches as arrays: prepared items become the rows of one array a field, stacked or padded along one axis.

An item is looked at once, at submit, and then kept as it is: its bytes are copied once, into the batch (or, where rows
are staged, into their place in a batch to come).  Whoever is handed the batch owns its memory for as long as they look
at it (see `memory.pyx`).

Threads share what was learned (`recent`), the counters, the pool and the stages, each guarded by the critical section
of its object.  Rows worth it are copied without the GIL, and then nothing of Python is touched.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from libc.stdint cimport INT64_MAX, int64_t

import numpy

from batchcore.arrays import as_array, check_dtype, dtype_of, padding_of, torch_dtype_of, value_of_field

from batchcore._ndarray cimport (
    PyArray_CheckExact, PyArray_DIMS, PyArray_IS_C_CONTIGUOUS, import_array, npy_intp,
)
from batchcore.form cimport Form, Piece
from batchcore.layout cimport MOST_DIMENSIONS, Field, Layout, fits, take_apart, takes, where
from batchcore.memory cimport Lease, Pool, array_over, pinned_lease, tensor_over
from batchcore.rows cimport (
    LENGTHS, MASK, NOTHING, WORTH_THE_GIL, ArrayPiece, Part, Source, Stage, array_of, bytes_of, look, see, stage_of,
    write,
)

cdef extern from "Python.h":
    PyObject *PyList_GET_ITEM(PyObject *things, Py_ssize_t i) noexcept

import_array()

cdef enum:
    MOST_ROWS = 1 << 20
    LONGEST = 0x7fffffff        # that a length may be rounded to
    RECENT = 8                  # layouts that are recognised without being made anew

cdef object INT64 = numpy.dtype(numpy.int64)
cdef object BOOL = numpy.dtype(numpy.bool_)
cdef object UINT8 = numpy.dtype(numpy.uint8)


cdef inline ArrayPiece new_piece(Layout layout, object source, int64_t length):
    cdef ArrayPiece row = ArrayPiece.__new__(ArrayPiece)
    row.layout = layout
    row.length = length
    row.source = source
    return row


cdef class Assembler(Form):
    """Items as rows of one array, or of a structure of arrays.

    Parameters
    ----------
    axis : int, optional
        The axis of an item along which items differ and are padded; without it they are stacked, and must be equal in
        shape to share a batch.
    value : number, mapping or sequence, default: 0
        What pads: one number, or one for each field by its name or in the order of a tuple's fields.
    left : bool, default: False
        Pad before the item instead of after it.
    multiple_of : int, default: 1
        The longest of a batch is rounded up to a multiple of this,
    buckets : sequence of int, optional
        or to the next of these; an item longer than the last is refused.
    give : {"lengths", "mask"}, optional
        What `fn` is given beside a padded batch.
    dtype : dtype, optional
        What every field must have.
    staged : bool, default: False
        Copy rows at submit.
    filler : {"repeat", "zeros"}, default: "repeat"
        What the rows are that a batch has more than items: the last item again, or zeros (padding of length 1).
    array_module : {"numpy", "torch"}, default: "numpy"
        What batches are arrays of.
    max_batch_size : int, default: 64
        Rows of a stage.
    max_concurrent_batches : int, default: 1
        Batches that exist at a time; the memory of one more is kept.

    Raises
    ------
    TypeError, ValueError
        If a choice is unknown, or they contradict each other.

    Examples
    --------
    >>> import numpy as np
    >>> batch, lengths = Assembler(axis=0, give="lengths").assemble_items([[1, 2, 3], [4]])
    >>> batch
    array([[1, 2, 3],
           [4, 0, 0]])
    >>> lengths
    array([3, 1])
    """

    def __init__(self, *, axis=None, value=0, bint left=False, int64_t multiple_of=1, buckets=(), give=None, dtype=None,
                 bint staged=False, filler="repeat", array_module="numpy", int64_t max_batch_size=64,
                 int64_t max_concurrent_batches=1):
        for name, given, choices in (
            ("give", give, (None, "lengths", "mask")),
            ("filler", filler, ("repeat", "zeros")),
            ("array_module", array_module, ("numpy", "torch")),
        ):
            if given not in choices:
                raise ValueError(f"{name} is {given!r}; it must be one of {', '.join(map(repr, choices))}")
        for name, number, low, high in (
            ("axis", 0 if axis is None else axis, 0, MOST_DIMENSIONS - 1),
            ("multiple_of", multiple_of, 1, LONGEST),
            ("the last of buckets", max(buckets, default=1), 1, LONGEST),
        ):
            if not low <= number <= high:
                raise ValueError(f"{name} is {number}; it must be from {low} to {high}")
        if staged and axis is not None:
            raise ValueError("assemble='submit' copies rows before the longest item of their batch is known; "
                             "use it with batch_as='stack', or pad with assemble='dispatch'")
        if array_module == "torch":
            import torch
            self.torch = torch
        self.axis = -1 if axis is None else axis
        self.value = value
        self.left = left
        self.multiple_of = multiple_of
        self.buckets = tuple(sorted(buckets))
        self.limit = max(self.buckets, default=INT64_MAX)
        self.give = NOTHING if give is None or axis is None else LENGTHS if give == "lengths" else MASK
        self.dtype = dtype_of(dtype)
        self.staged = staged
        self.repeats = filler == "repeat"
        self.max_batch_size = max_batch_size
        self.pool = Pool(max_concurrent_batches + 1)
        self.recent = []

    # --- at submit

    cdef Piece prepare(self, object item):
        cdef Layout layout
        cdef Field field
        cdef int64_t length
        cdef Py_ssize_t i
        if PyArray_CheckExact(<PyObject *>item):
            for i in range(len(self.recent)):
                layout = <Layout>self.recent[i]
                field = <Field>layout.fields[0]
                if layout.kind is None and takes(field, array_of(item)):
                    if field.axis < 0:
                        return new_piece(layout, item, 1)
                    length = PyArray_DIMS(array_of(item))[field.axis]
                    if length > self.limit:
                        break
                    return new_piece(layout, item, self.rounded(length))
        return self.prepare_other(item)

    cdef object prepare_other(self, object item):
        """Return the piece of an item that is no array, or not like those before."""
        cdef Layout layout = None
        cdef Field field
        cdef Py_ssize_t i
        cdef int64_t length, longest = -1
        kind, names, values = take_apart(item, self.recent)
        arrays = []
        for i, value in enumerate(values):
            if not PyArray_CheckExact(<PyObject *>value) or not PyArray_IS_C_CONTIGUOUS(array_of(value)):
                value = as_array(value, where(names, i), self.dtype, bfloat16=self.torch is not None)
            arrays.append(value)
        for layout in self.recent:
            if layout.kind is kind and layout.names == names and fits(layout, arrays):
                break
        else:
            layout = self.new_layout(kind, names, arrays)
        for i, field in enumerate(layout.fields):
            if field.axis >= 0:
                length = PyArray_DIMS(array_of(arrays[i]))[field.axis]
                longest = max(longest, length)
                if length > self.limit:
                    raise ValueError(
                        f"{where(names, i)} is {length} long, but the last of buckets is {self.limit}: "
                        "cut it, or add a bucket")
        longest = 1 if longest < 0 else self.rounded(longest)
        return new_piece(layout, arrays[0] if kind is None else tuple(arrays), longest)

    cdef Layout new_layout(self, object kind, tuple names, list arrays):
        cdef Layout layout
        fields = []
        for i, array in enumerate(arrays):
            what = where(names, i)
            dtype = array.dtype
            check_dtype(dtype, what)
            if self.dtype is not None and dtype != self.dtype:
                raise TypeError(
                    f"{what} has dtype {dtype}, not {self.dtype}: convert it with .astype({str(self.dtype)!r}), or "
                    "leave out dtype=, and items of each dtype get batches of their own")
            if array.ndim > MOST_DIMENSIONS:
                raise ValueError(f"{what} has {array.ndim} dimensions; an item may have {MOST_DIMENSIONS}: reshape it")
            torch_dtype = None if self.torch is None else torch_dtype_of(dtype, what, self.torch)
            axis = self.axis if array.ndim > self.axis else -1
            value = value_of_field(self.value, i, names)
            padding = None if axis < 0 else padding_of(value, dtype, what, torch_dtype)
            fields.append(Field(dtype, array.shape, axis, padding, torch_dtype))
        if self.axis >= 0 and all([(<Field>field).axis < 0 for field in fields]):
            raise ValueError(
                f"{where(names, 0)} has {arrays[0].ndim} dimensions, and so no axis {self.axis} to pad: "
                "use batch_as='stack', or another axis")
        layout = Layout(kind, names, tuple(fields))
        with cython.critical_section(self):
            if len(self.recent) < RECENT:
                self.recent.append(layout)
            else:
                self.recent[self.next_recent] = layout
                self.next_recent = (self.next_recent + 1) % RECENT
        return layout

    cdef object stage(self, Piece piece, object stage):
        cdef Stage place = stage
        cdef Layout layout = piece.layout
        cdef Field field
        cdef int64_t size = 0
        if (<ArrayPiece>piece).stage is not None:   # its submit waited for room: it has its place
            return stage
        if place is not None and place.admits(<ArrayPiece>piece):
            return place
        place = Stage.__new__(Stage)
        place.layout = layout
        place.capacity = max(self.max_batch_size, <int64_t>1)
        for field in layout.fields:
            size += bytes_of(place.capacity, field.inner)
        place.lease = self.lease(size)
        place.admits(<ArrayPiece>piece)
        return place

    # --- at dispatch

    cdef tuple assemble(self, list pieces, int64_t size):
        cdef Layout layout = (<ArrayPiece>pieces[0]).layout
        cdef Py_ssize_t count = len(layout.fields)
        cdef Lease lease
        size = max(size, <int64_t>len(pieces))
        cdef Part *parts = <Part *>PyMem_Malloc(count * (sizeof(Part) + size * sizeof(Source)))
        if parts == NULL:
            raise MemoryError(f"no memory for a list of {size} rows")
        try:
            lease = self.in_place(pieces, layout, parts, size)
            if lease is None:
                lease = self.copy(pieces, layout, parts, size)
            return self.arguments(layout, parts, lease, size)
        finally:
            PyMem_Free(parts)

    cdef int check(self, Piece piece) except -1:
        cdef Source source
        cdef Py_ssize_t i
        for i in range(len((<Layout>piece.layout).fields)):
            look(<ArrayPiece>piece, piece.layout, i, &source)
            self.rounded(source.length)
        return 0

    cdef Lease copy(self, list pieces, Layout layout, Part *parts, int64_t size):
        """Copy the rows into memory of their own, and say in `parts` where they are."""
        cdef Py_ssize_t count = len(layout.fields)
        cdef Source *sources = <Source *>(parts + count)
        cdef Lease lease
        cdef Part *part
        cdef int64_t total = 0
        cdef Py_ssize_t i
        for i in range(count):
            part = &parts[i]
            part.sources = sources + i * size
            self.collect(pieces, layout, i, part, size)
            part.offset = total
            total += bytes_of(size * part.longest, part.outer * part.inner)
            part.marks = total
            if part.padded and self.give != NOTHING:
                total += bytes_of(size, part.longest if self.give == MASK else <int64_t>sizeof(int64_t))
        lease = self.lease(total)
        if total < WORTH_THE_GIL:
            write(parts, count, size, lease.block.data, self.give, self.left)
        else:
            with nogil:
                write(parts, count, size, lease.block.data, self.give, self.left)
        return lease

    cdef int collect(self, list pieces, Layout layout, Py_ssize_t index, Part *part, int64_t size) except -1:
        """Find the sources of a field's rows, filler included, and the length that all get."""
        cdef Field field = <Field>layout.fields[index]
        cdef Source *sources = part.sources
        cdef int64_t longest = 0
        cdef int64_t real = 0
        cdef Py_ssize_t i
        for i in range(len(pieces)):
            if layout.kind is not None or not see(PyList_GET_ITEM(<PyObject *>pieces, i), layout, field, &sources[i]):
                look(<ArrayPiece>pieces[i], layout, index, &sources[i])
            real += sources[i].length
            longest = max(longest, sources[i].length)
        if field.axis >= 0:
            longest = self.rounded(longest)
        for i in range(len(pieces), size):
            if self.repeats:
                sources[i] = sources[len(pieces) - 1]
            else:   # length 0 would be true, but many models refuse it, or divide by it
                sources[i] = Source(data=NULL, length=min(longest, <int64_t>1))
        part.padded = field.axis >= 0
        part.outer = field.outer
        part.inner = field.inner
        part.itemsize = field.itemsize
        part.padding = NULL if field.padding is None else PyBytes_AS_STRING(field.padding)
        part.longest = longest
        with cython.critical_section(self):
            self.item_elements += real * field.elements
            self.batch_elements += size * longest * field.elements
        return 0

    cdef Lease in_place(self, list pieces, Layout layout, Part *parts, int64_t size):
        """Take rows that were staged one after the other for a batch as they lie; None if they were not."""
        cdef Stage stage = stage_of(pieces, size)
        cdef int64_t first = (<ArrayPiece>pieces[0]).index
        cdef Field field
        cdef Py_ssize_t i
        if stage is None:
            return None
        stage.fill_up(first + len(pieces), first + size, self.repeats)
        for i in range(len(layout.fields)):
            field = <Field>layout.fields[i]
            parts[i].longest = 1
            parts[i].offset = stage.row(i, first) - stage.lease.block.data
            with cython.critical_section(self):
                self.item_elements += len(pieces) * field.elements
                self.batch_elements += size * field.elements
        return stage.lease

    cdef tuple arguments(self, Layout layout, Part *parts, Lease lease, int64_t size):
        """Return the arrays over a batch's memory as `fn` gets them."""
        cdef npy_intp shape[MOST_DIMENSIONS + 1]
        cdef Field field
        cdef Py_ssize_t i, j
        cdef int ndim
        memory = None
        rows = []
        marks = []
        if self.pinned:
            memory = lease.block.owner
        elif self.torch is not None:
            shape[0] = lease.block.capacity
            memory = self.torch.from_numpy(array_over(lease, 0, UINT8, 1, shape))
        for i in range(len(layout.fields)):
            field = <Field>layout.fields[i]
            shape[0] = size
            for j in range(field.ndim):
                shape[j + 1] = parts[i].longest if j == field.axis else field.shape[j]
            if memory is None:
                rows.append(array_over(lease, parts[i].offset, field.dtype, field.ndim + 1, shape))
            else:
                rows.append(tensor_over(memory, parts[i].offset, field.torch_dtype, field.ndim + 1, shape))
            if self.give == NOTHING:
                continue
            ndim = 1 if self.give == LENGTHS else 2
            shape[1] = parts[i].longest
            if field.axis < 0:
                marks.append(None)
            elif memory is None:
                marks.append(array_over(lease, parts[i].marks, INT64 if ndim == 1 else BOOL, ndim, shape))
            else:
                dtype = self.torch.int64 if ndim == 1 else self.torch.bool
                marks.append(tensor_over(memory, parts[i].marks, dtype, ndim, shape))
        if self.give == NOTHING:
            return (layout.gather(rows),)
        return layout.gather(rows), layout.gather(marks)

    cdef int64_t rounded(self, int64_t longest) except -1:
        if longest > self.limit:
            raise ValueError(f"an item is {longest} long, but the last of buckets is {self.limit}")
        for bucket in self.buckets:
            if bucket >= longest:
                return bucket
        return (longest + self.multiple_of - 1) // self.multiple_of * self.multiple_of

    cdef Lease lease(self, int64_t size):
        if self.torch is not None and not self.pinned_known:
            pinned = self.torch.cuda.is_available()
            with cython.critical_section(self):
                self.pinned = pinned
                self.pinned_known = True
        return pinned_lease(self.torch, size) if self.pinned else self.pool.take(size)

    # --- for whoever has no dispatcher

    def prepare_item(self, item):
        """Return an item as a piece of a batch to come.

        Raises
        ------
        TypeError, ValueError
            If it cannot be in any batch.
        """
        return self.prepare(item)

    def stage_piece(self, ArrayPiece piece not None, stage=None):
        """Copy a piece into a stage, the one that the last call returned if there is room; return that."""
        if not self.staged or not (stage is None or isinstance(stage, Stage)):
            raise ValueError("stages are for Assembler(staged=True), and are made by it")
        return self.stage(piece, stage)

    def assemble_pieces(self, pieces, size=None):
        """Return the arguments for `fn`: pieces of one layout as rows, then filler rows up to `size`.

        Raises
        ------
        TypeError, ValueError
            If there is no piece, one is none, they differ in layout, or an array was changed since.
        """
        pieces = list(pieces)   # whoever changes the list meanwhile takes no source away
        if not pieces:
            raise ValueError("a batch needs at least one piece")
        for piece in pieces:
            if type(piece) is not ArrayPiece:
                raise TypeError(f"a piece is what prepare_item returns, not {piece!r}")
        if size is not None and not len(pieces) <= size <= MOST_ROWS:
            raise ValueError(f"size is {size}; it must be from {len(pieces)}, the number of pieces, to {MOST_ROWS}")
        return self.assemble(pieces, 0 if size is None else size)

    def assemble_items(self, items, size=None):
        """Return the arguments for `fn`: items as rows, then filler rows up to `size`."""
        pieces = [self.prepare(item) for item in items]
        if self.staged:
            stage = None
            for piece in pieces:
                stage = self.stage(piece, stage)
        return self.assemble_pieces(pieces, size)
