"""What makes two items identical, for ``dedupe=True``."""

from __future__ import annotations

import dataclasses
import sys
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
    content: Hashable = item
    if kind is float or kind is complex:
        content = repr(item)  # 0.0 is not -0.0, and a NaN is like itself
    elif isinstance(item, list | tuple):
        content = tuple(map(fingerprint, item))
    elif isinstance(item, Mapping):
        content = tuple((fingerprint(name), fingerprint(value)) for name, value in item.items())
    elif dataclasses.is_dataclass(item) and not isinstance(item, type):
        content = tuple(fingerprint(getattr(item, field.name)) for field in dataclasses.fields(item))
    elif _is_array(item):
        content = _content(item)
    try:
        hash(content)
    except TypeError:
        raise TypeError(
            f"dedupe=True cannot compare items of type {kind.__name__}; give dedupe a function that returns something "
            "hashable, such as an id, for an item"
        ) from None
    return kind, content


def _is_array(item: Any) -> bool:
    """Return whether an item is dtype, shape and elements, and no more; one of a subclass may have a mask, say."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    return (numpy is not None and (type(item) is numpy.ndarray or isinstance(item, numpy.generic))) or (
        torch is not None and type(item) is torch.Tensor
    )


def _content(item: Any) -> Hashable:
    import numpy as np

    array = np.asarray(item)
    return item if array.dtype.hasobject else (array.dtype, array.shape, array.tobytes())
