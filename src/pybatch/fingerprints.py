"""What makes two items identical, for ``dedupe=True``."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping
from typing import Any

__all__ = ["fingerprint"]


def fingerprint(item: Any) -> Hashable:
    """Return what is equal for items of the same types and contents, and for no others.

    Numbers, strings, bytes, arrays and tensors, and lists, tuples, dicts and dataclasses of those; anything else by its
    own equality.

    Raises
    ------
    TypeError
        If some part can be neither read nor hashed.

    Notes
    -----
    Time and memory are those of a copy of the item: a function of your own that returns an id is cheaper.

    Examples
    --------
    >>> fingerprint([1, "a"]) == fingerprint([1, "a"]), fingerprint(1) == fingerprint(1.0)
    (True, False)
    """
    kind = type(item)
    if kind is float or kind is complex:
        return kind, repr(item)  # 0.0 is not -0.0, and a NaN is like itself
    if isinstance(item, str | bytes | int):
        return kind, item
    if isinstance(item, list | tuple):
        return kind, tuple(map(fingerprint, item))
    if isinstance(item, Mapping):
        return kind, tuple((fingerprint(name), fingerprint(value)) for name, value in item.items())
    if dataclasses.is_dataclass(item) and not isinstance(item, type):
        return kind, tuple(fingerprint(getattr(item, field.name)) for field in dataclasses.fields(item))
    if hasattr(item, "__array__"):
        import numpy as np

        array = np.asarray(item)
        if not array.dtype.hasobject:
            return kind, array.dtype, array.shape, array.tobytes()
    try:
        hash(item)
    except TypeError:
        raise TypeError(
            f"dedupe=True cannot compare items of type {kind.__name__}; give dedupe a function that returns something "
            "hashable, such as an id, for an item"
        ) from None
    return kind, item
