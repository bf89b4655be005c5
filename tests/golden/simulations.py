"""Runs of the simulator: recorded traffic batch by batch, and the scenarios that policies are compared on.

Of the rivals only those take part that compute with + - * / alone: BentoML's rule fits by LAPACK, which rounds as it
likes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from batchcore.records import REASONS
from pybatch.metrics import DELAY_BOUNDS_NS
from pybatch.policies import Drop, View, Wait
from pybatch.simulation import (
    MMPP,
    Bursts,
    ClosedLoop,
    Gamma,
    Mixed,
    Poisson,
    Result,
    Service,
    Trace,
    Workload,
    simulate,
)
from pybatch.simulation.suite import CONTENDERS, SCENARIOS, Scenario

RECORDED = Path(__file__).parent / "recorded.csv"
"""Requests of 12 threads to a scheduler, as `Scheduler.record` wrote them: seven of them asked again at once."""

COMPILED = ("immediate", "adaptive", "adaptive + timeout")
IN_PYTHON = ("Clipper", "Clockwork", "Symphony", "Triton")


def figures_of(result: Result) -> Iterator[str]:
    summary = asdict(result.summary()) | {"p99.9_ms": result.percentile(99.9)}
    figures = (f"{name}={figure.hex() if isinstance(figure, float) else figure}" for name, figure in summary.items())
    yield f"{result.digest()[:16]} {' '.join(figures)}"
    places = np.searchsorted(DELAY_BOUNDS_NS, np.rint(result.latencies_ms * 1e6).astype(np.int64))
    yield f"latencies: {counts(places, [*(f'{bound // 1000}us' for bound in DELAY_BOUNDS_NS), 'inf'])}"
    yield f"sizes: {counts(result.batches.size, range(int(result.batches.size.max(initial=0)) + 1))}"
    yield f"reasons: {counts(result.batches.reason, REASONS)}"


def counts(places: np.ndarray, names: Any) -> str:
    return " ".join(f"{names[i]}:{count}" for i, count in enumerate(np.bincount(places).tolist()) if count)


def each_batch(result: Result) -> Iterator[str]:
    batches = result.batches
    rows = zip(batches.at_ns, batches.size, batches.service_ns, batches.worker, batches.reason, strict=True)
    for at_ns, size, service_ns, worker, reason in rows:
        yield f"{at_ns} {REASONS[reason]}: {size} on {worker} for {service_ns}"
    yield from figures_of(result)


def whims(view: View) -> int | Wait | Drop:
    """A policy of somebody's own that answers in every way it may."""
    kind = (view.queued * 7 + view.running + view.now_ns // 1000) % 11
    if kind == 0:
        return Drop(1)
    if kind < 6 and view.now_ns < view.oldest_arrival_ns + 3_000_000:
        return Wait(view.now_ns + 500_000 * (kind + 1))
    return (view.queued + 1) // 2 if kind < 9 else 1_000_000


QUICK, ROUGH = Service.affine(0.5, 4), Service.affine(0.7, 3, noise=0.3, spikes=(0.02, 30.0), warm_up=(3, 20.0))

REPLAYS: dict[str, dict[str, Any]] = {
    "immediate": {"service": QUICK, "policy": "immediate", "max_batch_size": 16},
    "fixed": {"service": QUICK, "policy": "fixed", "max_wait_ms": 7.5, "max_batch_size": 8},
    "adaptive": {"service": ROUGH, "policy": "adaptive"},
    "adaptive, two workers, half the time": {"service": ROUGH, "workers": 2, "slo_ms": 25, "speed": 2.0},
    "adaptive, overload": {"service": QUICK, "max_queue_size": 40, "timeout_ms": 20, "speed": 9.0},
    "a policy of one's own": {"service": ROUGH, "policy": whims, "speed": 3.0},
}


def replay(*, service: Service, speed: float = 1.0, **options: Any) -> Iterator[str]:
    yield from each_batch(simulate(Trace.load(RECORDED).scaled(speed), service, **options))


AGES = 1e9  # ms: ten days, and several years in all, so that a nanosecond is about the last bit that is drawn

CHANCES: dict[str, tuple[Workload, Service]] = {
    "poisson": (Poisson(1e-6), Service.affine(0, AGES, noise=0.01)),
    "gamma, regular": (Gamma(1e-6, cv=0.3), Service.affine(0, AGES, noise=0.1)),
    "gamma, bursty": (Gamma(1e-6, cv=5.0), Service.affine(0, AGES, noise=1.0)),
    "mmpp": (MMPP((2e-6, 0), mean_ms=(5 * AGES, 2 * AGES)), Service.affine(0, AGES, noise=3.0)),
    "bursts": (Bursts(9 * AGES, size=(2, 9), gap_ms=AGES), Service.affine(0, AGES, spikes=(0.3, AGES / 7))),
    "clients": (ClosedLoop(3, return_ms=0.3, think_ms=2 * AGES), Service.affine(0, AGES, drift=((2.0, 0.37),))),
    "mixed": (Mixed(Poisson(1e-6), ClosedLoop(2), Gamma(2e-6, cv=2)), Service.table({1: AGES, 3: 7 * AGES / 3})),
}


def chance(workload: Workload, service: Service) -> Iterator[str]:
    """What is drawn."""
    result = simulate(workload, service, policy="immediate", max_batch_size=4, requests=300, seed=2**63 - 1)
    yield f"come at: {' '.join(map(str, result.arrival_ns[:12]))}"
    yield f"take: {' '.join(map(str, result.batches.service_ns[:12]))}"
    yield from figures_of(result)


def compare(scenario: Scenario, names: tuple[str, ...]) -> Iterator[str]:
    """What policies make of a scenario."""
    for contender in CONTENDERS:
        if contender.name in names:
            yield f"{contender.name}"
            yield from figures_of(contender.simulate(scenario, seed=7))


def short(scenario: Scenario) -> Scenario:
    """The first 500 requests: for policies in Python."""
    return replace(scenario, requests=500, duration_s=None)


SIMULATIONS: dict[str, Callable[[], Iterator[str]]] = {
    **{f"recorded, {name}": partial(replay, **options) for name, options in REPLAYS.items()},
    **{f"chance, {name}": partial(chance, *both) for name, both in CHANCES.items()},
    **{scenario.name: partial(compare, scenario, COMPILED) for scenario in SCENARIOS},
    **{f"rivals, {scenario.name}": partial(compare, short(scenario), IN_PYTHON) for scenario in SCENARIOS[-12::3]},
}
