"""Run a workload against a service model, and what came of it."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from batchcore.engine import MAX_CAPACITY, Engine, integer
from batchcore.records import OUTCOMES
from batchcore.simulator import BATCH_FIELDS, REQUEST_FIELDS, Simulator
from pybatch.options import UNCHANGED, engine_options, nanoseconds
from pybatch.simulation.service import Service
from pybatch.simulation.trace import Trace
from pybatch.simulation.workloads import Mixed, Workload, number, pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Instants = NDArray[np.int64]

__all__ = ["Batches", "Limit", "Result", "Summary", "simulate"]

Limit = float | Sequence[tuple[float | None, float]] | None
"""Milliseconds; or a mix of classes, (milliseconds or None, share of the requests); or None, no limit."""

DEFAULT_REQUESTS = 20_000
FOREVER = 2**62
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
        return float(self.latencies_ms.mean()) if len(self.latencies_ms) else np.nan

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


def simulate(
    workload: Workload,
    service: Service,
    *,
    policy: Any = "adaptive",
    max_batch_size: int = 32,
    max_wait_ms: float | None = None,
    max_latency_ms: float | None = None,
    max_queue_size: int = 2**31 - 1,
    workers: int = 1,
    timeout_ms: Limit = None,
    slo_ms: Limit = None,
    requests: int | None = None,
    duration_s: float | None = None,
    seed: int = 0,
    warm_up: int | None = None,
    cost_model: Any = None,
    progress: Callable[[float], None] | None = None,
) -> Result:
    """Serve a workload in virtual time, with the engine that would serve it for real.

    Policies are compared on the same input: what a workload sends, the limits of its requests and the luck of the n-th
    batch come from `seed` alone.

    Parameters
    ----------
    workload : Workload
        When requests come.
    service : Service
        What batches take.
    policy, max_batch_size, max_wait_ms, max_latency_ms
        As in `pybatch.Scheduler`.
    max_queue_size : int, default 2**31 - 1
        Most requests that may be queued; what comes then is rejected.
    workers : int, default 1
        Batches that may run at once, each as fast as if it were alone; 1 to 4096.
    timeout_ms : float or sequence of (float or None, float), optional
        The timeout that each request is submitted with; or several and the share of requests that has each.
    slo_ms : float or sequence of (float or None, float), optional
        Latency until which an answer is good, only measured; `timeout_ms` where it is not given.  A request falls into
        the same place of both mixes, so equal ones give it the same class.
    requests : int, optional
        Stop sending after so many; 1 or more.
    duration_s : float, optional
        Stop sending at this instant; what has come by then is served.  Without both, a trace is sent to its end and
        anything else stops after 20,000 requests.
    seed : int, default 0
        0 to 2**63 - 1.
    warm_up : int, optional
        How many of the first requests the figures leave out; the first tenth where it is not given, or the first 200
        of a workload with a closed loop.
    cost_model : optional
        As in `pybatch.Scheduler`.
    progress : callable, optional
        Called now and then with the share of the run that is done, 0 to 1.

    Returns
    -------
    Result

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong type or out of range, or options contradict each other.
    OverflowError
        If the run would take more than 146 years of virtual time.

    Notes
    -----
    Some 100 ns a request besides what the policy costs, most of it without the GIL; 60 bytes a request.  Calls do not
    share anything, so they may run in several threads.

    Examples
    --------
    >>> from pybatch.simulation import PROFILES, ClosedLoop, simulate
    >>> result = simulate(ClosedLoop(clients=16), PROFILES["bert"], policy="immediate", duration_s=5)
    >>> round(result.per_second), round(result.mean_ms, 1), round(result.p99_ms, 1)
    (753, 20.8, 21.1)
    """
    if not isinstance(workload, Workload):
        raise TypeError(f"workload must be a pybatch.simulation.Workload, not {workload!r}")
    if not isinstance(service, Service):
        raise TypeError(f"service must be a pybatch.simulation.Service, not {service!r}")
    timeouts = _classes("timeout_ms", timeout_ms)
    slos = timeouts if slo_ms is None else _classes("slo_ms", slo_ms)
    integer("seed", seed, 0, 2**63 - 1)
    until_ns = FOREVER if duration_s is None else int(number("duration_s", duration_s, 1e-9, 4e9) * 1e9)
    most = FOREVER if requests is None else integer("requests", requests, 1, 2**40)
    if requests is None and duration_s is None:
        most = _length(workload) or DEFAULT_REQUESTS
    if warm_up is not None:
        integer("warm_up", warm_up, 0, 2**40)

    simulator = Simulator(
        _engine(
            capacity=integer("workers", workers, 1, MAX_CAPACITY),
            cost_model=cost_model,
            policy=policy,
            max_batch_size=max_batch_size,
            max_wait_ms=max_wait_ms,
            max_latency_ms=max_latency_ms,
            max_queue_size=max_queue_size,
        ),
        seed,
        most,
        until_ns,
    )
    simulator.set_limits(timeouts, slos)
    simulator.set_service(
        array("d", [1e6 * service.ms(n) for n in range(1, max_batch_size + 1)]),
        noise=service.noise,
        spike_probability=service.spikes[0],
        spike_ns=1e6 * service.spikes[1],
        warm_up_batches=service.warm_up[0],
        warm_up_factor=service.warm_up[1],
        drift_at_ns=array("q", [int(1e9 * at_s) for at_s, _ in service.drift]),
        drift_factors=array("d", [factor for _, factor in service.drift]),
    )
    workload.add_to(simulator)
    if progress is None:
        simulator.run()
    else:
        simulator.run(lambda count, now_ns: progress(min(max(count / most, now_ns / until_ns), 1.0)))
    return _result(simulator, workload, warm_up)


def _engine(*, capacity: int, policy: Any, max_wait_ms: float | None, cost_model: Any, **options: Any) -> Engine:
    """Return a fresh engine for options as `pybatch.Scheduler` takes them."""
    own = not isinstance(policy, str)
    checked = engine_options(
        policy=UNCHANGED if own else policy,
        max_wait_ms=UNCHANGED if max_wait_ms is None else max_wait_ms,
        **options,
    )
    if own:
        checked["policy"] = policy
    return Engine(capacity=capacity, cost_model=cost_model, **checked)


def _classes(name: str, limit: Limit) -> list[tuple[int | None, float]]:
    """Return a limit as classes of (ns or None, share of the requests)."""
    if limit is None:
        return []
    if not isinstance(limit, Sequence) or isinstance(limit, str):
        return [(nanoseconds(name, limit), 1.0)]
    classes = []
    for i, limited in enumerate(limit):
        ms, share = pair(f"{name}[{i}]", limited)
        classes.append((nanoseconds(f"{name}[{i}]", ms), number(f"the share of {name}[{i}]", share, 0, 1)))
    total = sum(share for _, share in classes)
    if not abs(total - 1) < 1e-6:
        raise ValueError(f"the shares of {name} add up to {total:g}; they must add up to 1")
    return classes


def _length(workload: Workload) -> int | None:
    """Return how many requests a workload of traces alone has; None where it goes on for ever."""
    parts = workload.parts if isinstance(workload, Mixed) else (workload,)
    lengths = [len(part) for part in parts if isinstance(part, Trace)]
    return sum(lengths) if len(lengths) == len(parts) else None


def _result(simulator: Simulator, workload: Workload, warm_up: int | None) -> Result:
    requests = np.frombuffer(simulator.requests, np.dtype(REQUEST_FIELDS, align=True))
    batches = np.frombuffer(simulator.batches, np.dtype(BATCH_FIELDS, align=True))
    if warm_up is None:
        warm_up = min(200, len(requests) // 2) if workload.closed else len(requests) // 10
    return Result(
        **{name: requests[name].copy() for name, _ in REQUEST_FIELDS},
        batches=Batches(**{name: batches[name].copy() for name, _ in BATCH_FIELDS}),
        warm_up=min(warm_up, len(requests)),
    )
