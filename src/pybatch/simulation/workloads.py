"""When requests come: random processes, clients that wait for their answers, and mixtures of them.

Open workloads send whatever happens to what they sent before.  A closed loop is a population of clients, each of which
sends its next request some time after the answer to the one before, so it slows down with the server.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchcore.engine import integer

if TYPE_CHECKING:
    from batchcore.simulator import Simulator

__all__ = ["MMPP", "Bursts", "ClosedLoop", "Gamma", "Mixed", "Poisson", "Workload", "number", "pair"]

MAX_CLIENTS = 1_000_000
MAX_MS = 1e10
SILENCE_NS = 1e17  # the mean gap of a phase in which nothing comes


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
