"""When requests come: random processes, clients that wait for their answers, recorded traffic, and mixtures of them.

Open workloads send whatever happens to what they sent before.  A closed loop is a population of clients, each of which
sends its next request some time after the answer to the one before, so it slows down with the server.
"""

from __future__ import annotations

import csv
import numbers
from abc import ABC, abstractmethod
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcore.engine import MAX_PRIORITY, integer

if TYPE_CHECKING:
    import os

    from numpy.typing import ArrayLike, NDArray

    from batchcore.simulator import Simulator

    Floats = NDArray[np.float64]

__all__ = ["MMPP", "Bursts", "ClosedLoop", "Gamma", "Mixed", "Poisson", "Trace", "Workload", "number"]

MAX_CLIENTS = 1_000_000
MAX_MS = 1e10
MAX_TRACE_MS = 1e12  # 31 years
NEVER_NS = 2**63 - 1
SILENCE_NS = 1e17  # the mean gap of a phase in which nothing comes

FIELDS = {"arrival_ms": "arrivals_ms", "timeout_ms": "timeouts_ms", "slo_ms": "slos_ms", "priority": "priorities"}


def number(name: str, value: Any, low: float, high: float) -> float:
    """Return `value` as a float of `low` to `high`.

    Raises
    ------
    TypeError
        If it is not a real number; a bool is not.
    ValueError
        If it is out of range or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {value!r}")
    result: Any = value
    if not low <= result <= high:  # written so that NaN is refused too
        raise ValueError(f"{name} is {value!r}; it must be from {low:g} to {high:g}")
    return float(result)


def rate(name: str, value: Any) -> float:
    """Return `value` as a rate per second, 1e-6 to 1e9."""
    return number(name, value, 1e-6, 1e9)


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return `value` as a tuple of two."""
    if not isinstance(value, tuple) or len(value) != 2:
        raise TypeError(f"{name} must be a tuple of two, not {value!r}")
    return value


class Workload(ABC):
    """A stream of requests; what `simulate` takes first.  Immutable, safe to share and to pickle."""

    __slots__ = ()

    @property
    def closed(self) -> bool:
        """Whether any request waits for the answer to another."""
        return False

    @abstractmethod
    def add_to(self, simulator: Simulator) -> None:
        """Add this as a source, or several, to the compiled simulator."""


@dataclass(frozen=True, slots=True)
class Poisson(Workload):
    """Independent callers: gaps are exponential.

    Parameters
    ----------
    per_second : float
        Mean rate, 1e-6 to 1e9.

    Examples
    --------
    >>> Poisson(per_second=250)
    Poisson(per_second=250)
    """

    per_second: float

    def __post_init__(self) -> None:
        rate("per_second", self.per_second)

    def add_to(self, simulator: Simulator) -> None:
        simulator.add("poisson", 1e9 / self.per_second)


@dataclass(frozen=True, slots=True)
class Gamma(Workload):
    """Independent gaps of any burstiness, from a gamma distribution.

    Parameters
    ----------
    per_second : float
        Mean rate, 1e-6 to 1e9.
    cv : float
        Coefficient of variation of the gaps, 0.01 to 100: 1 is Poisson, more is burstier, less is more regular.
    """

    per_second: float
    cv: float

    def __post_init__(self) -> None:
        rate("per_second", self.per_second)
        number("cv", self.cv, 0.01, 100)

    def add_to(self, simulator: Simulator) -> None:
        square = float(self.cv) * float(self.cv)
        simulator.add("gamma", 1e9 / self.per_second * square, 1.0 / square)


@dataclass(frozen=True, slots=True)
class MMPP(Workload):
    """A Markov-modulated Poisson process: two rates that take turns, for exponential times.

    Parameters
    ----------
    per_second : (float, float)
        Mean rate in each phase, 0 or 1e-6 to 1e9, not both 0; it begins with the first.
    mean_ms : (float, float), default (200, 200)
        Mean length of each phase, 1e-3 to 1e10.
    """

    per_second: tuple[float, float]
    mean_ms: tuple[float, float] = (200.0, 200.0)

    def __post_init__(self) -> None:
        for i, value in enumerate(pair("per_second", self.per_second)):
            if value != 0:
                rate(f"per_second[{i}]", value)
        for i, value in enumerate(pair("mean_ms", self.mean_ms)):
            number(f"mean_ms[{i}]", value, 1e-3, MAX_MS)
        if self.per_second == (0, 0):
            raise ValueError("per_second is (0, 0); in one phase at least something must come")

    def add_to(self, simulator: Simulator) -> None:
        gaps = [1e9 / value if value else SILENCE_NS for value in self.per_second]
        simulator.add("mmpp", *gaps, *(1e6 * value for value in self.mean_ms))


@dataclass(frozen=True, slots=True)
class Bursts(Workload):
    """Fan-outs: bursts start independently of each other, and each is a handful of requests in quick succession.

    Parameters
    ----------
    every_ms : float
        Mean of the exponential time between the starts of bursts, 1e-6 to 1e10.
    size : (int, int), default (8, 24)
        Least and most requests of a burst, 1 to 1,000,000, all equally likely.
    gap_ms : float, default 0.1
        Mean of the exponential gaps within a burst, 0 to 1e10.
    """

    every_ms: float
    size: tuple[int, int] = (8, 24)
    gap_ms: float = 0.1

    def __post_init__(self) -> None:
        number("every_ms", self.every_ms, 1e-6, MAX_MS)
        least, most = pair("size", self.size)
        integer("size[1]", most, integer("size[0]", least, 1, 1_000_000), 1_000_000)
        number("gap_ms", self.gap_ms, 0, MAX_MS)

    def add_to(self, simulator: Simulator) -> None:
        simulator.add("bursts", 1e6 * self.every_ms, *self.size, 1e6 * self.gap_ms)


@dataclass(frozen=True, slots=True)
class ClosedLoop(Workload):
    """Clients that have one request each: the next follows the answer, be it a result or an error.

    Parameters
    ----------
    clients : int
        1 to 1,000,000.
    return_ms : float, default 0.05
        The part of the time from answer to next request that is always there, 0 to 1e10.
    think_ms : float, default 0.3
        Mean of the exponential part, 0 to 1e10.
    """

    clients: int
    return_ms: float = 0.05
    think_ms: float = 0.3

    def __post_init__(self) -> None:
        integer("clients", self.clients, 1, MAX_CLIENTS)
        number("return_ms", self.return_ms, 0, MAX_MS)
        number("think_ms", self.think_ms, 0, MAX_MS)

    @property
    def closed(self) -> bool:
        return True

    def add_to(self, simulator: Simulator) -> None:
        simulator.add("closed", self.clients, 1e6 * self.return_ms, 1e6 * self.think_ms)


@dataclass(frozen=True, init=False, slots=True)
class Mixed(Workload):
    """Several workloads at once.

    Parameters
    ----------
    *parts : Workload
        At least one; at most 64 in the end, where a mixture in a mixture counts as its parts.

    Attributes
    ----------
    parts : tuple of Workload
        None of them mixed; `Result.source` counts them from 0.

    Examples
    --------
    >>> Mixed(Poisson(per_second=200), ClosedLoop(clients=8)).closed
    True
    """

    parts: tuple[Workload, ...]

    def __init__(self, *parts: Workload) -> None:
        flat: list[Workload] = []
        for part in parts:
            if not isinstance(part, Workload):
                raise TypeError(f"a part must be a Workload, not {part!r}")
            flat += part.parts if isinstance(part, Mixed) else (part,)
        if not 1 <= len(flat) <= 64:
            raise ValueError(f"there are {len(flat)} parts; there must be from 1 to 64")
        object.__setattr__(self, "parts", tuple(flat))

    @property
    def closed(self) -> bool:
        return any(part.closed for part in self.parts)

    def add_to(self, simulator: Simulator) -> None:
        for part in self.parts:
            part.add_to(simulator)


@dataclass(frozen=True, slots=True, eq=False)
class Trace(Workload):
    """Recorded traffic, repeated.

    Rows are put in order of arrival.  Where a trace has limits of its own, those of `simulate` do not count for it.

    Parameters
    ----------
    arrivals_ms : array_like
        Instants from the start of the recording, shape ``(n,)``, at least 0.
    timeouts_ms, slos_ms : array_like, optional
        What each request has for `timeout_ms` and `slo_ms` in `simulate`, shape ``(n,)``, at least 0; infinite: none.
        Without `slos_ms` the timeouts are the SLO too.
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
        arrivals = np.array(arrivals_ms, dtype=np.float64)
        if arrivals.ndim != 1:
            raise ValueError(f"arrivals_ms has shape {arrivals.shape}; it must have one dimension")
        columns: dict[str, NDArray[Any] | None] = {
            "arrivals_ms": arrivals,
            "timeouts_ms": None if timeouts_ms is None else np.array(timeouts_ms, dtype=np.float64),
            "slos_ms": None if slos_ms is None else np.array(slos_ms, dtype=np.float64),
            "priorities": None if priorities is None else np.array(priorities, dtype=np.int32),
        }
        order = np.argsort(arrivals, kind="stable")
        limits = {"arrivals_ms": (0, MAX_TRACE_MS), "priorities": (-MAX_PRIORITY, MAX_PRIORITY)}
        for name, column in columns.items():
            if column is None:
                continue
            if column.shape != arrivals.shape:
                raise ValueError(f"{name} has shape {column.shape}; arrivals_ms has {arrivals.shape}")
            low, high = limits.get(name, (0, np.inf))
            wrong = ~((column >= low) & (column <= high))
            if wrong.any():
                row = int(wrong.argmax())
                raise ValueError(f"{name}[{row}] is {column[row]}; it must be from {low:g} to {high:g}")
            columns[name] = column[order]
            columns[name].setflags(write=False)
        for name, column in columns.items():
            object.__setattr__(self, name, column)

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
        if path.suffix == ".npy":
            return cls(np.load(path))
        if path.suffix == ".npz":
            with np.load(path) as file:
                return cls(**_named(path, {name: file[name] for name in file.files}))
        if path.suffix == ".csv":
            with path.open(newline="") as lines:
                return cls(**_named(path, _columns(path, [row for row in csv.reader(lines) if row])))
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
        slos = self.timeouts_ms if self.slos_ms is None else self.slos_ms
        priorities = None if self.priorities is None else array("i", self.priorities.tobytes())
        simulator.add_trace(
            _nanoseconds(self.arrivals_ms),
            None if self.timeouts_ms is None else _nanoseconds(self.timeouts_ms),
            None if slos is None else _nanoseconds(slos),
            priorities,
        )


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
    if rows and not rows[0][0].strip().replace(".", "").isdigit():
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
