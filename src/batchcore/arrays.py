"""Items that are no NumPy arrays yet, and dtypes: the slow way, where everything unusual ends.

Whatever cannot be converted without changing its values is a ``TypeError`` or ``ValueError`` that names the remedy.
torch is used only if the process has imported it already, or asked for it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = [
    "BFLOAT16",
    "as_array",
    "check_dtype",
    "dtype_of",
    "exactly",
    "padding_of",
    "torch_dtype_of",
    "value_of_field",
]

BFLOAT16 = np.dtype("V2")
"""What stands for torch's bfloat16, which NumPy has not."""

_KINDS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}  # each holds the numbers of those before it
_PLAIN = frozenset({bool, int, float, complex, str, list})
_ELSEWHERE = "use batch_as='list', or a collate function of your own"


def as_array(value: Any, where: str, dtype: Any = None, *, bfloat16: bool = False) -> np.ndarray[Any, Any]:
    """Return a value as an array whose rows lie one after the other, over the same memory if that is possible.

    Parameters
    ----------
    value : object
        An array or tensor, a scalar, a (nested) list, or anything with ``__array__``, ``__dlpack__`` or a buffer.
    where : str
        What it is, for messages.
    dtype : numpy.dtype, optional
        What Python numbers and lists become: those have none of their own.
    bfloat16 : bool, default: False
        Take torch's bfloat16, as `BFLOAT16`.

    Raises
    ------
    TypeError
        If it cannot be one.
    """
    if type(value) in _PLAIN:
        return _of_plain(value, where, dtype)
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{where} is a masked array, whose mask would be lost: pass .filled(value), or {_ELSEWHERE}")
    if isinstance(value, (dict, tuple)):
        raise TypeError(
            f"{where} is a {type(value).__name__}: structures are one level deep; make it an array or a list, "
            f"or {_ELSEWHERE}"
        )
    torch = sys.modules.get("torch")
    if isinstance(value, getattr(torch, "Tensor", ())):
        return _of_tensor(value, where, torch, bfloat16)
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            array: np.ndarray[Any, Any] = np.from_dlpack(value)
        elif isinstance(value, (bytes, bytearray)) and not isinstance(value, np.generic):
            array = np.asarray(memoryview(value))
        else:
            array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{where}, a {type(value).__name__}, cannot be made an array: {error}") from error
    return array if array.flags.c_contiguous else array.copy(order="C")


def _of_plain(value: Any, where: str, dtype: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.asarray(value)
        return array if dtype is None else exactly(array, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"{where}, a {type(value).__name__}, cannot be made an array: {error}") from error


def _of_tensor(tensor: Any, where: str, torch: Any, bfloat16: bool) -> np.ndarray[Any, Any]:
    if tensor.requires_grad:
        raise TypeError(f"{where} is a tensor that requires grad, which a batch would not carry on: pass .detach()")
    if tensor.device.type != "cpu":
        raise TypeError(f"{where} is a tensor on {tensor.device}: batches are made in main memory; pass .cpu()")
    if tensor.dtype == torch.bfloat16:
        if not bfloat16:
            raise TypeError(f"{where} is a tensor of bfloat16, which NumPy has not: use array_module='torch'")
        array: np.ndarray[Any, Any] = tensor.contiguous().view(torch.int16).numpy().view(BFLOAT16)
        return array
    try:
        array = tensor.contiguous().numpy()
    except (TypeError, RuntimeError) as error:
        raise TypeError(f"{where}, a tensor of {tensor.dtype}, cannot be made an array: {error}") from error
    return array


def exactly(natural: np.ndarray[Any, Any], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return what NumPy made of a value without a dtype as an array of `dtype`.

    Numbers become the nearest float or complex that the dtype has, but stay what they are in every other one.

    Raises
    ------
    TypeError, ValueError
        If it has none for the value.
    """
    wide, narrow = _KINDS.get(dtype.kind, -1), _KINDS.get(natural.dtype.kind, -1)
    if natural.size and not (wide >= narrow >= 0 or np.can_cast(natural.dtype, dtype, "same_kind")):
        raise TypeError(f"{natural.dtype} does not become {dtype} without a cast")
    with np.errstate(over="ignore"):
        array = natural.astype(dtype)
    if dtype.kind in "biuSUmM":
        held = np.array_equal(array, natural)
    else:
        held = dtype.kind not in "fc" or np.array_equal(np.isfinite(array), np.isfinite(natural))
    if not held:
        raise ValueError(f"{natural.tolist()!r} has no place in {dtype}")
    return array


def check_dtype(dtype: np.dtype[Any], where: str) -> None:
    """Raise TypeError for elements that are more than their bytes."""
    if dtype.hasobject:
        raise TypeError(f"{where} has dtype {dtype}, whose elements refer to memory of their own: {_ELSEWHERE}")
    if dtype.itemsize == 0:
        raise TypeError(f"{where} has dtype {dtype!r}, whose elements have no bytes: {_ELSEWHERE}")


def dtype_of(dtype: Any) -> np.dtype[Any] | None:
    """Return what a user names as a dtype, torch's included; None stays None.

    Raises
    ------
    TypeError
        If it is none, or one whose elements are Python objects.
    """
    if dtype is None:
        return None
    torch = sys.modules.get("torch")
    found: np.dtype[Any]
    if torch is None or not isinstance(dtype, getattr(torch, "dtype", ())):
        found = np.dtype(dtype)
    elif dtype == torch.bfloat16:
        found = BFLOAT16
    else:
        found = torch.empty(0, dtype=dtype).numpy().dtype
    check_dtype(found, "an item")
    return found


def torch_dtype_of(dtype: np.dtype[Any], where: str, torch: Any) -> Any:
    """Return torch's dtype of the same elements.

    Raises
    ------
    TypeError
        If there is none.
    """
    if dtype == BFLOAT16 or dtype.name == "bfloat16":
        return torch.bfloat16
    try:
        return torch.from_numpy(np.empty(0, dtype)).dtype
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{where} has dtype {dtype}, which torch has not: convert it, or use array_module='numpy'"
        ) from error


def value_of_field(value: Any, index: int, names: tuple[Any, ...] | None) -> Any:
    """Return what pads one field of a structure (`names` is None for a single array): 0 where a mapping names it not.

    Raises
    ------
    ValueError
        If the mapping names a field that is none, or a sequence is not as long as the structure.
    """
    if isinstance(value, Mapping):
        unknown = [name for name in value if name not in (names or ())]
        if unknown:
            raise ValueError(
                f"Pad(value={value!r}) names {unknown[0]!r}, but the fields of an item are {names or 'none'}"
            )
        return value.get(names[index] if names else None, 0)
    if isinstance(value, (list, tuple)):
        if len(value) != len(names or ()):
            raise ValueError(f"Pad(value={value!r}) has {len(value)} values for an item of {len(names or ())} fields")
        return value[index]
    return value


def padding_of(value: Any, dtype: np.dtype[Any], where: str, torch_dtype: Any = None) -> bytes | None:
    """Return the bytes of one element that pads; None for zeros, or empty strings.

    Raises
    ------
    ValueError
        If the dtype cannot hold the value.
    """
    if isinstance(value, int | float | complex | np.number) and value == 0:
        return None
    try:
        if dtype == BFLOAT16 and torch_dtype is not None:
            torch = sys.modules["torch"]
            padding: bytes = torch.tensor(value, dtype=torch_dtype).view(torch.int16).numpy().tobytes()
            return padding
        return exactly(np.asarray(value), dtype).tobytes()
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"Pad(value={value!r}) does not fit {where}, which has dtype {dtype}: {error}") from error
