"""What a batch must be, made the way that people make it by hand."""

from __future__ import annotations

import itertools
from collections import namedtuple
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def longest_of(lengths: Sequence[int], multiple_of: int, buckets: Sequence[int]) -> int:
    if buckets:
        return min(bucket for bucket in buckets if bucket >= max(lengths))
    return next(longest for longest in itertools.count(max(lengths)) if longest % multiple_of == 0)


def stack(arrays: Sequence[Array], size: int, filler: str) -> Array:
    batch = np.zeros((size, *arrays[0].shape), arrays[0].dtype)
    for i in range(size if filler == "repeat" else len(arrays)):
        batch[i] = arrays[min(i, len(arrays) - 1)]
    return batch


def pad(
    arrays: Sequence[Array], size: int, filler: str, *, axis: int, value: Any, left: bool, **rounding: Any
) -> Array:
    """Pad with slices into an array full of `value`; `value` 0 is the dtype's own zero."""
    shape = list(arrays[0].shape)
    shape[axis] = longest_of([array.shape[axis] for array in arrays], **rounding)
    batch = np.zeros((size, *shape), arrays[0].dtype)
    if value != 0:
        batch[...] = value
    for i in range(size):
        if i >= len(arrays) and filler == "zeros":
            continue
        array = arrays[min(i, len(arrays) - 1)]
        where: list[Any] = [slice(None)] * len(shape)
        length = array.shape[axis]
        where[axis] = slice(shape[axis] - length, None) if left else slice(length)
        batch[i][tuple(where)] = array
    return batch


def lengths_of(arrays: Sequence[Array], size: int, filler: str, axis: int, longest: int) -> Array:
    lengths = [array.shape[axis] for array in arrays]
    last = lengths[-1] if filler == "repeat" else min(1, longest)
    return np.array([*lengths, *[last] * (size - len(arrays))], np.int64)


def mask_of(lengths: Array, longest: int, left: bool) -> Array:
    steps = np.arange(longest)
    return (steps >= longest - lengths[:, None]) if left else (steps < lengths[:, None])


# --- structures: how fields become an item, and how they are found again in a batch

Pair = namedtuple("Pair", ["first", "second"])


@dataclass(frozen=True)
class Frozen:
    first: Any
    second: Any

    def __post_init__(self) -> None:
        if np.ndim(self.second) > 3:
            raise ValueError("one item alone is right here")


@dataclass(slots=True)
class Slotted:
    first: Any
    second: Any


STRUCTURES: dict[str, tuple[int, Callable[[Sequence[Any]], Any], Callable[[Any], list[Any]]]] = {
    "array": (1, lambda fields: fields[0], lambda batch: [batch]),
    "dict": (
        2,
        lambda fields: dict(zip(("first", "second"), fields, strict=True)),
        lambda b: [b["first"], b["second"]],
    ),
    "tuple": (2, tuple, list),
    "triple": (3, tuple, list),
    "named tuple": (2, Pair._make, lambda batch: [batch.first, batch.second]),
    "frozen dataclass": (2, lambda fields: Frozen(*fields), lambda batch: [batch.first, batch.second]),
    "slotted dataclass": (2, lambda fields: Slotted(*fields), lambda batch: [batch.first, batch.second]),
}


def same(ours: Any, theirs: Array) -> bool:
    """Whether two arrays are equal in dtype, shape and every element, and ours is a batch to work in."""
    return bool(
        type(ours) is np.ndarray
        and ours.dtype == theirs.dtype
        and ours.shape == theirs.shape
        and np.array_equal(ours, theirs)
        and ours.flags.c_contiguous
        and ours.flags.writeable
        and ours.ctypes.data % ours.dtype.alignment == 0
    )
