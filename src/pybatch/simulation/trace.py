"""Recorded traffic, from arrays or from a file."""

from __future__ import annotations

import csv
import zipfile
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcore.engine import MAX_PRIORITY
from pybatch.simulation.workloads import Workload, number

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from batchcore.simulator import Simulator

    Floats = NDArray[np.float64]

__all__ = ["Trace"]

MAX_TRACE_MS = 1e12  # 31 years
NEVER_NS = 2**63 - 1

FIELDS = {"arrival_ms": "arrivals_ms", "timeout_ms": "timeouts_ms", "slo_ms": "slos_ms", "priority": "priorities"}
"""The columns of a file, and the parameters of a trace that they are."""


@dataclass(frozen=True, init=False, slots=True, eq=False)
class Trace(Workload):
    """Recorded traffic, repeated.

    Rows are put in order of arrival.  A limit that a trace has of its own goes before that of `simulate`.

    Parameters
    ----------
    arrivals_ms : array_like
        Instants from the start of the recording, shape ``(n,)``, at least 0.
    timeouts_ms, slos_ms : array_like, optional
        What each request has for `timeout_ms` and `slo_ms` in `simulate`, shape ``(n,)``, at least 0; infinite: none.
        Without `slos_ms`, and without `slo_ms` in `simulate`, the timeouts are the SLO too.
    priorities : array_like, optional
        Integers, lower is sooner, shape ``(n,)``.

    Raises
    ------
    ValueError
        If the shapes differ, or something is negative, not a number or out of range.

    Examples
    --------
    >>> trace = Trace([0.0, 0.4, 7.5], timeouts_ms=[20, 20, float("inf")])
    >>> len(trace), trace.scaled(2).arrivals_ms.tolist()
    (3, [0.0, 0.2, 3.75])
    """

    arrivals_ms: Floats
    timeouts_ms: Floats | None = None
    slos_ms: Floats | None = None
    priorities: NDArray[np.int32] | None = None

    def __init__(
        self,
        arrivals_ms: ArrayLike,
        timeouts_ms: ArrayLike | None = None,
        slos_ms: ArrayLike | None = None,
        priorities: ArrayLike | None = None,
    ) -> None:
        columns: dict[str, Any] = {
            "arrivals_ms": arrivals_ms,
            "timeouts_ms": timeouts_ms,
            "slos_ms": slos_ms,
            "priorities": priorities,
        }
        checked = {name: _column(name, column) for name, column in columns.items() if column is not None}
        arrivals = checked["arrivals_ms"]
        order = np.argsort(arrivals, kind="stable")
        for name in columns:
            column = checked.get(name)
            if column is not None and column.shape != arrivals.shape:
                raise ValueError(f"{name} has shape {column.shape}; arrivals_ms has {arrivals.shape}")
            object.__setattr__(self, name, None if column is None else column[order])

    def __len__(self) -> int:
        return len(self.arrivals_ms)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trace:
        """Read a trace from a file; the name says which kind it is.

        ``.csv`` has columns ``arrival_ms``, ``timeout_ms``, ``slo_ms`` and ``priority``, named by its first line or
        else, without slo_ms, in this order; an empty field of a limit is none.  ``.npz`` has arrays of these names.
        ``.npy`` has the arrivals alone.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is none of these, or has something in it that a trace cannot have.
        """
        path = Path(path)
        try:
            if path.suffix == ".npy":
                return cls(np.load(path))
            if path.suffix == ".npz":
                with np.load(path) as file:
                    return cls(**_named(path, {name: file[name] for name in file.files}))
            if path.suffix == ".csv":
                with path.open(newline="", encoding="utf-8-sig") as lines:
                    return cls(**_named(path, _columns(path, [row for row in csv.reader(lines) if row])))
        except (EOFError, TypeError, zipfile.BadZipFile, zlib.error, csv.Error) as error:
            raise ValueError(f"{path} is damaged or no trace: {error}") from error
        raise ValueError(f"{path} is no trace: its name must end in .csv, .npy or .npz")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what `load` reads; a ``.npy`` file takes the arrivals alone.

        Raises
        ------
        OSError
            If the file cannot be written.
        ValueError
            If the name does not end in ``.csv``, ``.npy`` or ``.npz``, or the file could not hold all of the trace.
        """
        path = Path(path)
        columns = {name: getattr(self, field) for name, field in FIELDS.items() if getattr(self, field) is not None}
        if path.suffix == ".npz":
            np.savez_compressed(path, **columns)
        elif path.suffix == ".npy" and len(columns) == 1:
            np.save(path, self.arrivals_ms)
        elif path.suffix == ".csv":
            with path.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                for row in zip(*(column.tolist() for column in columns.values()), strict=True):
                    writer.writerow("" if value == np.inf else value for value in row)
        else:
            raise ValueError(f"{path} cannot hold {', '.join(columns)}: its name must end in .csv or .npz")

    def scaled(self, factor: float) -> Trace:
        """Return this traffic at `factor` times its rate, 1e-6 to 1e6; limits stay as they are."""
        arrivals = self.arrivals_ms / number("factor", factor, 1e-6, 1e6)
        return Trace(arrivals, self.timeouts_ms, self.slos_ms, self.priorities)

    def add_to(self, simulator: Simulator) -> None:
        priorities = None if self.priorities is None else array("i", self.priorities.tobytes())
        simulator.add_trace(
            _nanoseconds(self.arrivals_ms),
            None if self.timeouts_ms is None else _nanoseconds(self.timeouts_ms),
            None if self.slos_ms is None else _nanoseconds(self.slos_ms),
            priorities,
        )


def _column(name: str, values: ArrayLike) -> NDArray[Any]:
    """Return one column of a trace, checked."""
    column = np.array(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"{name} has shape {column.shape}; it must have one dimension")
    low, high = 0.0, MAX_TRACE_MS if name == "arrivals_ms" else np.inf
    wrong = ~((column >= low) & (column <= high))  # written so that NaN is refused too
    if name == "priorities":
        low, high = -MAX_PRIORITY, MAX_PRIORITY
        wrong = ~((column >= low) & (column <= high) & (column == np.rint(column)))
    if wrong.any():
        row = int(wrong.argmax())
        kind = "a whole number" if name == "priorities" else "a number"
        raise ValueError(f"{name}[{row}] is {column[row]:g}; it must be {kind} from {low:g} to {high:g}")
    return column.astype(np.int32) if name == "priorities" else column


def _nanoseconds(ms: Floats) -> array[int]:
    """Return whole nanoseconds; what is too long to count is never."""
    ns = np.full(ms.shape, NEVER_NS)
    countable = ms <= MAX_TRACE_MS
    ns[countable] = np.rint(ms[countable] * 1e6).astype(np.int64)
    return array("q", ns.tobytes())


def _named(path: Path, columns: dict[str, Any]) -> dict[str, Any]:
    """Return columns by the names of a trace's parameters."""
    if "arrival_ms" not in columns or not columns.keys() <= FIELDS.keys():
        raise ValueError(f"{path} has {', '.join(columns)}; it must have arrival_ms and may have {', '.join(FIELDS)}")
    return {FIELDS[name]: column for name, column in columns.items()}


def _columns(path: Path, rows: list[list[str]]) -> dict[str, list[float]]:
    """Return the columns of a CSV file by their names."""
    names = ["arrival_ms", "timeout_ms", "priority"]
    if rows and not _is_number(rows[0][0]):
        names = [name.strip() for name in rows.pop(0)]
    columns: dict[str, list[float]] = {name: [] for name in names[: len(rows[0]) if rows else None]}
    for number_of_row, row in enumerate(rows, 1):
        try:
            for column, text in zip(columns.values(), row, strict=True):
                column.append(float(text) if text.strip() else np.inf)
        except ValueError:
            raise ValueError(
                f"{path}: row {number_of_row} is {','.join(row)}; it must be {','.join(columns)}"
            ) from None
    return columns


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
