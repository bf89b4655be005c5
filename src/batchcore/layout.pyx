"""What has to be equal for two items to share a batch: their structure, and each field's dtype and shape.

A structure is a dict (or another mapping), a tuple or a dataclass instance of arrays, one level deep; a single array
is a layout of one field.  How long the padded axis is has no part in it.
"""

import dataclasses
from collections.abc import Mapping

from batchcore._ndarray cimport npy_intp

cdef frozenset PLAIN = frozenset([bool, int, float, complex, str, bytes, list])


cdef class Field:
    """One array of every item.  `axis` is the padded one, or -1."""

    def __cinit__(self, object dtype, tuple shape, int axis, bytes padding, object torch_dtype):
        cdef int i
        cdef npy_intp step
        self.dtype = dtype
        self.torch_dtype = torch_dtype
        self.padding = padding
        self.ndim = len(shape)
        self.axis = axis
        self.itemsize = dtype.itemsize
        self.outer = self.elements = 1
        self.inner = self.itemsize
        for i, step in enumerate(shape):
            self.shape[i] = step
            if i == axis:
                self.shape[i] = -1
                continue
            self.elements *= step
            if i < axis:
                self.outer *= step
            else:
                self.inner *= step


cdef class Layout:
    """The structure of an item; hashable, and equal to those that may share a batch with it."""

    def __cinit__(self, object kind, tuple names, tuple fields):
        cdef Field field
        self.kind = kind
        self.names = names
        self.fields = fields
        shapes = [(field.dtype, tuple([field.shape[i] for i in range(field.ndim)])) for field in fields]
        self.signature = (kind, names, tuple(shapes))
        self.hash = hash(self.signature)

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return self is other or (isinstance(other, Layout) and self.signature == (<Layout>other).signature)

    def __repr__(self):
        cdef Field field
        parts = []
        for i, field in enumerate(self.fields):
            shape = ", ".join(["n" if j == field.axis else str(field.shape[j]) for j in range(field.ndim)])
            parts.append(f"{'' if self.names is None else f'{self.names[i]}: '}{field.dtype}[{shape}]")
        return f"<{'' if self.kind is None else self.kind.__name__ + ' of '}{', '.join(parts)}>"

    cdef object gather(self, list values):
        """Return one value a field as the structure that items have; in a dict, those that are None are left out."""
        if self.kind is None:
            return values[0]
        if self.kind is dict:
            return {name: value for name, value in zip(self.names, values) if value is not None}
        if self.kind is tuple:
            return tuple(values)
        if issubclass(self.kind, tuple):
            return self.kind._make(values)
        # What __init__ and __post_init__ know of one item need not hold for a batch.
        gathered = object.__new__(self.kind)
        for name, value in zip(self.names, values):
            object.__setattr__(gathered, name, value)
        return gathered


cdef tuple take_apart(object item, list layouts):
    """Return the kind of an item, the names of its fields and their values.

    A dict that differs from one of `layouts` in its order alone is given in the order of that.
    """
    cdef Layout layout
    if type(item) in PLAIN or hasattr(item, "__array__"):
        return None, None, (item,)
    if not isinstance(item, (dict, tuple)):
        if dataclasses.is_dataclass(item) and not isinstance(item, type):
            for layout in layouts:
                if layout.kind is type(item):
                    names = layout.names
                    break
            else:
                names = some(tuple([field.name for field in dataclasses.fields(item)]), item)
            return type(item), names, tuple([getattr(item, name) for name in names])
        if not isinstance(item, Mapping):
            return None, None, (item,)
        item = dict(item)
    if isinstance(item, dict):
        for layout in layouts:
            if layout.kind is dict and len(layout.names) == len(item) and all([name in item for name in layout.names]):
                names = layout.names
                break
        else:
            names = some(tuple(item), item)
        return dict, names, tuple([item[name] for name in names])
    kind = type(item) if hasattr(type(item), "_make") else tuple
    return kind, some(getattr(kind, "_fields", tuple(range(len(item)))), item), tuple(item)


cdef tuple some(tuple names, object item):
    if not names:
        raise ValueError(f"a {type(item).__name__} without fields cannot be an item: it has no array to make a row of")
    return names
