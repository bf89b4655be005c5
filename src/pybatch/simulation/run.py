"""Run a workload against a service model."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from batchcore.engine import MAX_CAPACITY, Engine, integer
from batchcore.simulator import BATCH_FIELDS, REQUEST_FIELDS, Simulator
from pybatch.options import UNCHANGED, engine_options, nanoseconds
from pybatch.simulation.result import Batches, Result
from pybatch.simulation.service import Service
from pybatch.simulation.trace import Trace
from pybatch.simulation.workloads import Mixed, Workload, number, pair

__all__ = ["Limit", "simulate"]

Limit = float | Sequence[tuple[float | None, float]] | None
"""Milliseconds; or a mix of classes, (milliseconds or None, share of the requests); or None, no limit."""

DEFAULT_REQUESTS = 20_000
FOREVER = 2**62


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
    cost_model: Sequence[tuple[int, float]] | None = None,
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
    cost_model : sequence of (int, float), optional
        What is known of the service beforehand: batch sizes and ms.  Without it the engine knows nothing but what it
        sees.
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
    Exception
        What a policy of your own raises.

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
    slos = None if slo_ms is None else _classes("slo_ms", slo_ms)
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


def _engine(
    *,
    capacity: int,
    policy: Any,
    max_wait_ms: float | None,
    cost_model: Sequence[tuple[int, float]] | None,
    **options: Any,
) -> Engine:
    """Return a fresh engine for options as `pybatch.Scheduler` takes them."""
    checked = engine_options(
        policy=policy,
        max_wait_ms=UNCHANGED if max_wait_ms is None else max_wait_ms,
        cost_model=cost_model,
        **options,
    )
    return Engine(capacity=capacity, **checked)


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
