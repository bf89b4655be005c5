"""The results of rows that were submitted as one array, as one array again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["merging"]

_NUMBERS: Final = (bool, int, float, complex)


def merging(items: object) -> Callable[[list[Any]], Any]:
    """Return what makes one result of a list of them: for a list, that list; for an array, an array if it can be."""
    return merge if hasattr(items, "__array__") or hasattr(items, "__dlpack__") else list


def merge(results: list[Any]) -> Any:
    """Return results as one array of shape (n, ...), or a dict or tuple of those; as they are if they cannot be one."""
    first: Any = results[0] if results else None
    if isinstance(first, Mapping) and all(
        isinstance(result, Mapping) and result.keys() == first.keys() for result in results
    ):
        return {name: merge([result[name] for result in results]) for name in first}
    if isinstance(first, tuple) and all(
        type(result) is type(first) and len(result) == len(first) for result in results
    ):
        parts = [merge([result[i] for result in results]) for i in range(len(first))]
        make: Callable[[list[Any]], Any] = getattr(type(first), "_make", tuple)
        return make(parts)
    if hasattr(first, "__dlpack__") and hasattr(first, "new_empty"):
        torch = sys.modules["torch"]
        alike = {(result.shape, result.dtype) if isinstance(result, torch.Tensor) else None for result in results}
        return torch.stack(results) if len(alike) == 1 else results
    if type(first) in _NUMBERS or hasattr(first, "__array_interface__"):
        import numpy as np

        if all(type(result) in (*_NUMBERS, np.ndarray) or isinstance(result, np.generic) for result in results):
            rows = [np.asarray(result) for result in results]
            return np.stack(rows) if len({(row.shape, row.dtype) for row in rows}) == 1 else results
    return results
