"""What came of a run: every request, every batch, and the figures over them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from batchcore.records import OUTCOMES
from pybatch.simulation.workloads import number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Instants = NDArray[np.int64]

__all__ = ["Batches", "Result", "Summary"]

COMPLETED = OUTCOMES.index("completed")


@dataclass(frozen=True, slots=True, eq=False)
class Batches:
    """What happened to each batch, in order of dispatch; arrays of shape ``(batches,)``.

    Attributes
    ----------
    at_ns : array of int64
        Instant of dispatch.
    size : array of int64
        Requests.
    service_ns : array of int64
        What it took.
    worker : array of int32
        Which worker ran it, 0 for the first.
    reason : array of int32
        Why it left, as an index of `batchcore.records.REASONS`.
    """

    at_ns: Instants
    size: Instants
    service_ns: Instants
    worker: NDArray[np.int32]
    reason: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a `Result`, as plain numbers; None where nothing completed.  ``asdict`` of it is ready for JSON.

    Attributes
    ----------
    count, completed, rejected, expired : int
        Requests that are counted, and how they ended.
    good : float or None
        Share of them answered within the SLO.
    mean_ms, p50_ms, p95_ms, p99_ms : float or None
        Latency of those that completed.
    per_second : float or None
        Completed requests per second of virtual time.
    mean_batch_size : float or None
        Requests a batch.
    """

    count: int
    completed: int
    rejected: int
    expired: int
    good: float | None
    mean_ms: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    per_second: float | None
    mean_batch_size: float | None


@dataclass(frozen=True, eq=False)
class Result:
    """What happened to each request, in order of arrival; arrays of shape ``(requests,)``.

    The figures are over what is counted: all but the first `warm_up` requests.  They are NaN where nothing completed.

    Attributes
    ----------
    arrival_ns : array of int64
        Instant of submit.
    dispatched_ns, finished_ns : array of int64
        Instants of its batch; -1 where it was in none.
    deadline_ns : array of int64
        What the engine was told; the greatest int64 is none.
    slo_ns : array of int64
        Instant until which an answer is good; the greatest int64 is any.
    outcome : array of uint8
        How it ended, as an index of `batchcore.records.OUTCOMES`.
    batch_of : array of int64
        Its batch, as an index of the arrays in `batches`; -1 where it was in none.
    source : array of int32
        Which part of the workload sent it, 0 for the first.
    batches : Batches
        What happened to each batch.
    warm_up : int
        How many of the first requests are not counted.
    """

    arrival_ns: Instants
    dispatched_ns: Instants
    finished_ns: Instants
    deadline_ns: Instants
    slo_ns: Instants
    outcome: NDArray[np.uint8]
    batch_of: Instants
    source: NDArray[np.int32]
    batches: Batches
    warm_up: int

    @property
    def count(self) -> int:
        """Requests that are counted."""
        return len(self.arrival_ns) - self.warm_up

    @cached_property
    def latencies_ms(self) -> NDArray[np.float64]:
        """Submit to result of the requests that completed, in order of arrival."""
        done = self._completed
        return (self.finished_ns[done] - self.arrival_ns[done]) / 1e6

    @property
    def mean_ms(self) -> float:
        """Mean latency."""
        if not len(self._completed):
            return np.nan
        ns = self.finished_ns[self._completed] - self.arrival_ns[self._completed]
        # In whole numbers, since NumPy adds floats up in an order that differs between releases; in halves, since all
        # latencies of a long run may be more than 64 bits.
        total_ns = (int((ns >> 32).sum()) << 32) + int((ns & 0xFFFF_FFFF).sum())
        return total_ns / (1_000_000 * len(ns))

    @property
    def p50_ms(self) -> float:
        """Median latency."""
        return self.percentile(50)

    @property
    def p95_ms(self) -> float:
        """Latency that 95 % keep within."""
        return self.percentile(95)

    @property
    def p99_ms(self) -> float:
        """Latency that 99 % keep within."""
        return self.percentile(99)

    def percentile(self, q: float) -> float:
        """Return the latency that `q` percent, 0 to 100, keep within."""
        number("q", q, 0, 100)
        return float(np.percentile(self.latencies_ms, q)) if len(self.latencies_ms) else np.nan

    @property
    def good(self) -> float:
        """Share answered within the SLO; what was rejected or expired was not."""
        if not self.count:
            return np.nan
        done = self._completed
        return float(np.count_nonzero(self.finished_ns[done] <= self.slo_ns[done]) / self.count)

    @property
    def per_second(self) -> float:
        """Completed requests per second of virtual time, from the first completion that is counted to the last."""
        finished_ns = self.finished_ns[self._completed]
        if not len(finished_ns) or finished_ns.min() == finished_ns.max():
            return np.nan
        first_ns = finished_ns.min()
        return float(np.count_nonzero(finished_ns > first_ns) * 1e9 / (finished_ns.max() - first_ns))

    @property
    def mean_batch_size(self) -> float:
        """Mean size of the batches that a completed request was in."""
        used = np.unique(self.batch_of[self._completed])
        return float(self.batches.size[used].mean()) if len(used) else np.nan

    def summary(self) -> Summary:
        """Return the figures as plain numbers.  O(n log n)."""
        ended = np.bincount(self.outcome[self.warm_up :], minlength=len(OUTCOMES))

        def figure(value: float) -> float | None:
            return None if np.isnan(value) else value

        return Summary(
            count=self.count,
            completed=int(ended[COMPLETED]),
            rejected=int(ended[OUTCOMES.index("rejected")]),
            expired=int(ended[OUTCOMES.index("expired")]),
            good=figure(self.good),
            mean_ms=figure(self.mean_ms),
            p50_ms=figure(self.p50_ms),
            p95_ms=figure(self.p95_ms),
            p99_ms=figure(self.p99_ms),
            per_second=figure(self.per_second),
            mean_batch_size=figure(self.mean_batch_size),
        )

    def digest(self) -> str:
        """Return the SHA-256 of all arrays, in hexadecimal: equal where every bit of a run is."""
        digest = hashlib.sha256()
        for record in (self, self.batches):
            for field in fields(record):
                column = getattr(record, field.name)
                if isinstance(column, np.ndarray):
                    digest.update(field.name.encode())
                    digest.update(column.astype(column.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    @cached_property
    def _completed(self) -> NDArray[np.intp]:
        return np.flatnonzero(self.outcome[self.warm_up :] == COMPLETED) + self.warm_up
