"""How items become the arguments of `fn`, as a dispatcher sees it.

A submitted item is prepared once, on its caller's thread, and is a `Piece` until its batch is assembled, on the thread
that runs the batch.  Two pieces may share a batch if their layouts are equal.

Knows no array library.
"""

cimport cython
from libc.stdint cimport int64_t


@cython.no_gc   # a piece refers to nothing that could refer back to it
cdef class Piece:
    """A submitted item as its form keeps it until its batch is assembled."""


cdef class Form:
    """How items become a batch."""

    cdef Piece prepare(self, object item):
        """Return the item as a piece; TypeError or ValueError for one that cannot be in any batch."""
        raise NotImplementedError

    cdef object stage(self, Piece piece, object stage):
        """Copy a piece into its place in a batch to come.

        `stage` is what the last call for pieces of this layout returned, or None; returns the stage to keep for the
        next call.  Forms that are `staged` alone have it.
        """
        raise NotImplementedError

    cdef int check(self, Piece piece) except -1:
        """Raise what `assemble` would for this piece."""
        raise NotImplementedError

    cdef tuple assemble(self, list pieces, int64_t size):
        """Return the arguments for `fn`: rows in the order of `pieces`, all of one layout, then filler up to `size`."""
        raise NotImplementedError
