"""What tuning has found, as plain numbers and words: what `pybatch.simulation.report` makes a page of."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BatchSizes", "Cost", "Fact", "Findings", "Latencies", "LoadCurve", "Optimum", "Queue"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure that matters, large, with its name above and what to compare it with below."""

    name: str
    value: str
    detail: str


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """What one setting makes of growing load; all tuples have a value for each load."""

    label: str
    load: tuple[float, ...]
    p50_ms: tuple[float, ...]
    p95_ms: tuple[float, ...]
    p99_ms: tuple[float, ...]
    good: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Optimum:
    """The largest share of requests that any schedule could answer in time, for each load."""

    label: str
    load: tuple[float, ...]
    good: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Latencies:
    """A distribution: `share` of the requests took at most `ms`; both rise."""

    label: str
    ms: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """How many of the batches had each size; the shares add up to 1."""

    label: str
    size: tuple[int, ...]
    share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Queue:
    """Requests that wait, at instants in seconds."""

    label: str
    at_s: tuple[float, ...]
    queued: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """Latency per batch size, its spread where it was measured, and the line through it."""

    size: tuple[int, ...]
    ms: tuple[float, ...]
    per_item_ms: float
    per_batch_ms: float
    low_ms: tuple[float, ...] | None = None
    high_ms: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """All that is to be said.  In every sequence of curves the recommended setting comes first.

    `goal_ms` and `share` are the goal: that share of the requests answered within so many milliseconds.  Load counts in
    `unit`; the reader asked about `present`, and no schedule can hold more than `limit` (None: unknown).
    """

    title: str
    verdict: str
    code: str
    facts: tuple[Fact, ...]
    explanation: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    goal_ms: float
    share: float
    unit: str
    present: float
    limit: float | None
    load: tuple[LoadCurve, ...]
    optimum: Optimum | None
    latencies: tuple[Latencies, ...]
    batch_sizes: tuple[BatchSizes, ...]
    queues: tuple[Queue, ...]
    cost: Cost
    method: tuple[str, ...]
