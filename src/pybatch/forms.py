"""How a batch is an array: `Stack` and `Pad`, the forms behind ``batch_as="stack"`` and ``"pad"``, with their options.

NumPy is imported when an assembler is made, or a dtype named, and not before.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from batchcore.engine import integer
from pybatch.options import choice

if TYPE_CHECKING:
    from batchcore.assembly import Assembler

__all__ = ["Pad", "Stack"]

LONGEST: Final = 2**31 - 1
LAST_AXIS: Final = 29


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Equal-shaped items become one array of shape ``(n, *shape)``: ``fn(batch)``.

    Items of another shape or dtype go to batches of their own.

    Parameters
    ----------
    dtype : dtype, optional
        What every item must be; without it, every dtype gets its own batches. Python numbers and lists, which have
        none, are converted.

    Examples
    --------
    >>> Stack(dtype="float32").assembler(max_batch_size=8).assemble_items([[1, 2], [3, 4]])
    (array([[1., 2.],
           [3., 4.]], dtype=float32),)
    """

    dtype: Any = None

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)

    def assembler(self, **how: Any) -> Assembler:
        """Return what assembles such batches; `how` is for `batchcore.assembly.Assembler`."""
        from batchcore.assembly import Assembler

        return Assembler(dtype=self.dtype, **how)


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Items that differ in length along one axis become one array as long as the longest: ``fn(batch, lengths)``.

    Results are not cut: what `fn` returns for padding goes to the caller, too.

    Parameters
    ----------
    value : number, or mapping or sequence of numbers, default: 0
        What pads. Where items are structures, one number for all fields or one for each: by name (fields that are not
        named get 0), or in the order of a tuple.
    axis : int, default: 0
        The axis of the item. Fields of a structure that do not have it are stacked.
    side : {"right", "left"}, default: "right"
        Pad after the item or before it.
    multiple_of : int, optional
        Round the longest up to a multiple of this.
    buckets : sequence of int, optional
        Round it up to the next of these; an item longer than the last is refused.
    give : {"lengths", "mask"} or None, default: "lengths"
        What `fn` gets after the batch: int64 lengths of shape ``(n,)``, a mask of bool of shape ``(n, longest)`` that
        is True where the batch is real, or nothing. For structures, the same structure of these; fields that are
        stacked have None there, and dicts leave them out.
    dtype : dtype, optional
        As in `Stack`.

    Raises
    ------
    TypeError, ValueError
        If an option is of the wrong type or out of range, or they contradict each other.

    Examples
    --------
    >>> Pad(multiple_of=4, give="mask").assembler(max_batch_size=8).assemble_items([[1, 2, 3], [4]])
    (array([[1, 2, 3, 0],
           [4, 0, 0, 0]]), array([[ True,  True,  True, False],
           [ True, False, False, False]]))
    """

    value: Any = 0
    axis: int = 0
    side: Literal["right", "left"] = "right"
    multiple_of: int | None = None
    buckets: Sequence[int] | None = None
    give: Literal["lengths", "mask"] | None = "lengths"
    dtype: Any = None

    def __post_init__(self) -> None:
        _check_dtype(self.dtype)
        integer("axis", self.axis, 0, LAST_AXIS)
        choice("side", self.side, ("right", "left"))
        choice("give", self.give, ("lengths", "mask", None))
        if self.multiple_of is not None:
            if self.buckets is not None:
                raise ValueError(
                    f"multiple_of is {self.multiple_of} and buckets are {self.buckets}, but a length is rounded in one "
                    "way; leave out one of them"
                )
            integer("multiple_of", self.multiple_of, 1, LONGEST)
        if self.buckets is not None:
            object.__setattr__(self, "buckets", _ascending(self.buckets))
        values: Any = self.value.values() if isinstance(self.value, Mapping) else self.value
        for value in values if isinstance(self.value, Mapping | list | tuple) else [values]:
            if not isinstance(value, numbers.Number):
                raise TypeError(f"value must be a number, or a mapping, list or tuple of numbers, not {self.value!r}")

    def assembler(self, **how: Any) -> Assembler:
        """Return what assembles such batches; `how` is for `batchcore.assembly.Assembler`."""
        from batchcore.assembly import Assembler

        return Assembler(
            axis=self.axis,
            value=self.value,
            left=self.side == "left",
            multiple_of=self.multiple_of or 1,
            buckets=self.buckets or (),
            give=self.give,
            dtype=self.dtype,
            **how,
        )


def _check_dtype(dtype: Any) -> None:
    if dtype is not None:
        from batchcore.arrays import dtype_of

        dtype_of(dtype)


def _ascending(buckets: Any) -> tuple[int, ...]:
    """Return lengths as a tuple, if there are some and each is above the one before."""
    try:
        lengths = list(buckets)
    except TypeError:
        raise TypeError(f"buckets must be a list of lengths, not {buckets!r}") from None
    for i, length in enumerate(lengths):
        integer(f"buckets[{i}]", length, 1, LONGEST)
    if not lengths or any(lengths[i] >= lengths[i + 1] for i in range(len(lengths) - 1)):
        raise ValueError(f"buckets are {buckets!r}; they must be one length or more, each above the one before")
    return tuple(lengths)
