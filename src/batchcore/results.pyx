"""What `fn` returned, as one result for each item."""

import types
from collections.abc import Mapping, Set

from batchcore.errors import BatchSizeMismatch, InvalidBatchResult


cdef list results_of(object results, Py_ssize_t n, bint parts, bint copies):
    """Whatever `fn` returned for `n` items as a list, or raise what is wrong with it.

    A mapping, and with `parts` a tuple, holds parts, and so does each result.  With `copies` an array or tensor of its
    own stands in the place of each view of one.
    """
    cdef list columns
    if type(results) is list:
        return rows_of(results, n, copies)
    if isinstance(results, Mapping):
        columns = [results_of(part, n, parts, copies) for part in results.values()]
        names = list(results)
        if columns:
            return [dict(zip(names, row)) for row in zip(*columns)]
    elif parts and isinstance(results, tuple):
        columns = [results_of(part, n, parts, copies) for part in results]
        if columns:
            make = type(results)._make if hasattr(type(results), "_make") else tuple
            return [make(row) for row in zip(*columns)]
    elif type(results) is tuple or (
        hasattr(results, "__len__") and hasattr(results, "__getitem__")
        and not isinstance(results, (str, bytes, bytearray, Set))
    ):
        if hasattr(results, "columns") and type(results) is not tuple:
            raise InvalidBatchResult(
                f"fn returned a {type(results).__name__}, which is read by columns; return its rows, as an array or a "
                "list")
        return rows_of(results, n, copies)
    if isinstance(results, types.CoroutineType):
        results.close()
    hint = "; is it an async function behind a sync one?" if hasattr(results, "__await__") else ""
    raise InvalidBatchResult(
        "fn must return a sequence with one result an item, such as a list or an array, or a dict of those, not "
        f"{'an empty ' if isinstance(results, (Mapping, tuple)) else ''}{type(results).__name__}{hint}")


cdef list rows_of(object results, Py_ssize_t n, bint copies):
    cdef list values
    try:
        values = list(results)
    except Exception as error:
        raise InvalidBatchResult(f"fn returned {type(results).__name__}, which cannot be read: {error}") from error
    if len(values) != n:
        raise BatchSizeMismatch(f"fn was given {n} items and returned {len(values)} results")
    if copies:
        values = [copy_of(value) for value in values]
    return values


cdef object copy_of(object value):
    """An array or tensor of its own in the place of a view; anything else as it is."""
    if hasattr(value, "__array_interface__"):
        return value.copy()
    if hasattr(value, "__dlpack__") and hasattr(value, "clone"):
        return value.clone()
    return value
