"""What ``batch_as`` means: lists, arrays, or what a function of the user's own makes of a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from pybatch.forms import Pad, Stack

if TYPE_CHECKING:
    from batchcore.assembly import Assembler

__all__ = ["BatchAs", "form_of", "pads"]


BatchAs = Literal["list", "stack", "pad"] | Stack | Pad | Callable[[list[Any]], Any]
_NAMED: Final[dict[Any, Stack | Pad | None]] = {"list": None, "stack": Stack(), "pad": Pad()}


def form_of(
    batch_as: Any,
    *,
    array_module: Literal["numpy", "torch"],
    staged: bool,
    filler: Literal["repeat", "zeros"],
    max_batch_size: int,
    capacity: int,
) -> tuple[Assembler | None, Callable[[list[Any]], Any] | None]:
    """Return what assembles arrays, and the user's own function that makes a batch of a list; at most one of them.

    Raises
    ------
    TypeError, ValueError
        If `batch_as` is something else, or an option does not go with it.
    """
    form = _NAMED.get(batch_as, batch_as) if isinstance(batch_as, str) else batch_as
    if isinstance(form, Stack | Pad):
        return form.assembler(
            array_module=array_module,
            staged=staged,
            filler=filler,
            max_batch_size=max_batch_size,
            max_concurrent_batches=capacity,
        ), None
    if batch_as is None or (form is not None and not callable(form)) or isinstance(form, type):
        raise ValueError(
            f"batch_as is {batch_as!r}; it must be 'list', 'stack', 'pad', a Stack(...) or Pad(...), or a function "
            "of a list of items"
        )
    for name, value, default in (
        ("array_module", array_module, "numpy"),
        ("assemble", "submit" if staged else "dispatch", "dispatch"),
        ("filler", filler, "repeat"),
    ):
        if value != default:
            raise ValueError(f"{name} is {value!r}, which is for arrays; use it with batch_as='stack' or 'pad'")
    return None, form


def pads(batch_as: Any) -> bool:
    """Return whether batches are padded to their longest item."""
    return batch_as == "pad" if isinstance(batch_as, str) else isinstance(batch_as, Pad)
