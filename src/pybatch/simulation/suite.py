"""The scenarios that policies are compared on, as data, and what runs them.

Each scenario is a situation in which some rule is known to go wrong; all policies see the same arrivals, deadlines and
noise, drawn from the seed.  Tests and ``pybatch simulate --suite`` share the list.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pybatch.simulation import (
    MMPP,
    PROFILES,
    Bursts,
    ClosedLoop,
    Gamma,
    Mixed,
    Poisson,
    Result,
    Service,
    Summary,
    Workload,
    simulate,
)
from pybatch.simulation.references import (
    gather_per_second,
    offline_goodput,
    smdp_optimum,
    stagger_latency_ms,
)
from pybatch.simulation.rivals import RIVALS

__all__ = ["CONTENDERS", "SCENARIOS", "Contender", "Outcome", "Scenario", "reference", "run"]

Measure = Literal["mean_ms", "good", "per_second"]
Durations = float | tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One situation: who asks for what, how fast the model is, and which figure tells good from bad.

    Attributes
    ----------
    name : str
        Short and unique.
    workload, service
        As in `simulate`.
    slo_ms : float or tuple of (float, float)
        A request is good when its answer comes within it; pairs are milliseconds and their probability.
    measure : {"mean_ms", "good", "per_second"}
        What the policies are judged by here.
    requests, duration_s
        When the run ends; one of them.
    max_batch_size, workers, warm_up
        As in `simulate`.
    """

    name: str
    workload: Workload
    service: Service
    slo_ms: Durations
    measure: Measure
    requests: int | None = None
    duration_s: float | None = None
    max_batch_size: int = 32
    workers: int = 1
    warm_up: int | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """A policy and how it is made for a scenario.

    `told` says when the engine is told the deadlines of requests, and so puts its own rules for them in front of the
    policy: a rule that brings its own is only told them where they differ, which it could not know otherwise.
    """

    name: str
    policy: str | Callable[[Scenario], Any]
    told: Literal["never", "mixed", "always"] = "never"
    max_wait_ms: float | None = None

    def simulate(self, scenario: Scenario, seed: int) -> Result:
        """Run this policy in a scenario."""
        told = self.told == "always" or (self.told == "mixed" and isinstance(scenario.slo_ms, tuple))
        options: dict[str, Any] = {} if scenario.warm_up is None else {"warm_up": scenario.warm_up}
        return simulate(
            scenario.workload,
            scenario.service,
            policy=self.policy if isinstance(self.policy, str) else self.policy(scenario),
            max_batch_size=scenario.max_batch_size,
            max_wait_ms=self.max_wait_ms,
            workers=scenario.workers,
            timeout_ms=scenario.slo_ms if told else None,
            slo_ms=scenario.slo_ms,
            requests=scenario.requests,
            duration_s=scenario.duration_s,
            seed=seed,
            **options,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy made of one scenario, a summary for each seed."""

    scenario: str
    contender: str
    measure: Measure
    summaries: tuple[Summary, ...]

    @property
    def values(self) -> tuple[float, ...]:
        """The figure that the scenario judges by, for each seed."""
        return tuple(float(getattr(summary, self.measure)) for summary in self.summaries)

    @property
    def mean(self) -> float:
        """Mean of `values`."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float:
        """Largest minus smallest of `values`."""
        return max(self.values) - min(self.values)


def _rival(name: str) -> Callable[[Scenario], Any]:
    def make(scenario: Scenario) -> Any:
        # A rule that knows one goal for all gets the longest: with a shorter one it would give up what can wait.
        slo_ms = max(ms for ms, _ in scenario.slo_ms) if isinstance(scenario.slo_ms, tuple) else scenario.slo_ms
        return RIVALS[name](slo_ms, service_ms(scenario.service, scenario.max_batch_size))

    return make


CONTENDERS: tuple[Contender, ...] = (
    Contender("immediate", "immediate"),
    *(Contender(f"fixed {wait_ms:g} ms", "fixed", max_wait_ms=wait_ms) for wait_ms in (2.0, 5.0, 10.0)),
    Contender("BentoML", _rival("bentoml")),
    Contender("Clipper", _rival("clipper")),
    Contender("Clockwork", _rival("clockwork"), told="mixed"),
    Contender("Symphony", _rival("symphony"), told="mixed"),
    Contender("Triton", _rival("triton")),
    Contender("adaptive", "adaptive"),
    Contender("adaptive + timeout", "adaptive", told="always"),
)
"""What the scenarios are run with: rules of others with what they need to know, and ours, told deadlines or not."""


def _scenarios() -> Iterator[Scenario]:
    resnet, bert, cpu, b7 = (PROFILES[name] for name in ("resnet", "bert", "cpu", "efficientnet-b7"))

    def poisson(service: Service, share: float, workers: int = 1) -> Poisson:
        return Poisson(share * workers * service.capacity_per_second(32))

    yield Scenario("Poisson 5 %", poisson(resnet, 0.05), resnet, 100.0, "mean_ms", 4_000)
    yield Scenario("Poisson 50 %", poisson(resnet, 0.5), resnet, 100.0, "mean_ms", 8_000)
    yield Scenario("Poisson 95 %", poisson(resnet, 0.95), resnet, 200.0, "mean_ms", 12_000)
    yield Scenario("16 clients, bert", ClosedLoop(16), bert, 100.0, "per_second", duration_s=5.0)
    yield Scenario("16 clients, resnet", ClosedLoop(16), resnet, 100.0, "per_second", duration_s=5.0)
    yield Scenario("48 clients, bert", ClosedLoop(48), bert, 100.0, "per_second", duration_s=4.0)
    yield Scenario("16 clients, think 5 ms", ClosedLoop(16, think_ms=5.0), bert, 100.0, "per_second", duration_s=5.0)
    crowd = Mixed(ClosedLoop(15), ClosedLoop(3, return_ms=50.0))
    yield Scenario("15 fast + 3 slow clients", crowd, resnet, 100.0, "per_second", duration_s=5.0)
    crowd = Mixed(poisson(resnet, 0.3), ClosedLoop(8))
    yield Scenario("30 % open + 8 clients", crowd, resnet, 100.0, "per_second", duration_s=10.0)
    yield Scenario("32 clients, 2 workers", ClosedLoop(32), resnet, 100.0, "per_second", duration_s=5.0, workers=2)
    yield Scenario("bursts of 8-24", Bursts(60.0), bert, 100.0, "mean_ms", 6_000)
    yield Scenario("bursts of 2-4", Bursts(60.0, size=(2, 4), gap_ms=0.3), bert, 100.0, "mean_ms", 6_000)
    gamma = Gamma(0.5 * resnet.capacity_per_second(32), cv=4.0)
    yield Scenario("gamma, CV 4, 50 %", gamma, resnet, 100.0, "mean_ms", 8_000)
    yield Scenario("overload 150 %, SLO 50", poisson(resnet, 1.5), resnet, 50.0, "good", 8_000)
    yield Scenario("overload 300 %, SLO 50", poisson(resnet, 3.0), resnet, 50.0, "good", 8_000)
    yield Scenario("80 %, SLO 25", Poisson(0.8 * 749.0), resnet, 25.0, "good", 8_000)
    yield Scenario("batching no gain, 70 %", poisson(cpu, 0.7), cpu, 50.0, "mean_ms", 8_000)
    hurt = Poisson(600.0 / 52.5)
    yield Scenario("batching hurts, 60 %", hurt, b7, 500.0, "good", 3_000, max_batch_size=8)
    rough = Service.affine(1.053, 5.072, noise=0.1, spikes=(0.01, 60.0), warm_up=(5, 20.0), drift=((12.0, 2.0),))
    yield Scenario("warm-up, drift, spikes", poisson(resnet, 0.4), rough, 50.0, "good", 8_000)
    high, low = (share * bert.capacity_per_second(32) for share in (1.3, 0.2))
    yield Scenario("MMPP 130 / 20 %, SLO 40", MMPP((high, low), mean_ms=(200.0, 200.0)), bert, 40.0, "good", 12_000)
    yield Scenario("4 workers, 50 %", poisson(bert, 0.5, 4), bert, 100.0, "mean_ms", 12_000, workers=4)
    yield Scenario("4 workers, 85 %, SLO 25", Poisson(0.85 * 4 * 749.0), resnet, 25.0, "good", 12_000, workers=4)
    yield Scenario("8 workers, 85 %, SLO 25", Poisson(0.85 * 8 * 749.0), resnet, 25.0, "good", 16_000, workers=8)
    two = ((15.0, 0.2), (200.0, 0.8))
    for share in (0.3, 0.5, 0.7, 0.9, 1.2):
        name = f"SLO 15 or 200, {100 * share:.0f} %"
        yield Scenario(name, poisson(resnet, share), resnet, two, "good", 4_000, warm_up=0)


SCENARIOS: tuple[Scenario, ...] = tuple(_scenarios())
"""Profiles and numbers are those of the published comparison in ``docs``; see `Scenario.measure` for the judgement."""


def service_ms(service: Service, max_batch_size: int) -> list[float]:
    """Return what batches of 1, 2, ..., `max_batch_size` take, milliseconds, as references and rivals want it."""
    return [service.ms(size) for size in range(1, max_batch_size + 1)]


def run(
    scenarios: Sequence[Scenario] = SCENARIOS,
    contenders: Sequence[Contender] = CONTENDERS,
    seeds: Sequence[int] = (0,),
    progress: Callable[[], None] | None = None,
) -> Iterator[list[Outcome]]:
    """Yield, for each scenario, what each contender makes of it.

    Parameters
    ----------
    scenarios, contenders : sequence
        What to run; default: all.
    seeds : sequence of int
        One run for each.
    progress : callable, optional
        Called after each run; there are ``len(scenarios) * len(contenders) * len(seeds)``.
    """
    for scenario in scenarios:
        outcomes = []
        for contender in contenders:
            summaries = []
            for seed in seeds:
                summaries.append(contender.simulate(scenario, seed).summary())
                if progress:
                    progress()
            outcomes.append(Outcome(scenario.name, contender.name, scenario.measure, tuple(summaries)))
        yield outcomes


def reference(scenario: Scenario, seeds: Sequence[int] = (0,)) -> tuple[str, float] | None:
    """Return the name and value of what no policy can pass, or what to aim at, in a scenario; None if unknown."""
    service, workload, workers = scenario.service, scenario.workload, scenario.workers
    times = service_ms(service, scenario.max_batch_size)
    if scenario.measure == "mean_ms" and isinstance(workload, Poisson):
        if workers == 1:
            return "optimum", smdp_optimum(times, workload.per_second).mean_ms
        return "stagger", stagger_latency_ms(times, workload.per_second, workers)
    if scenario.measure == "per_second" and isinstance(workload, ClosedLoop) and workers == 1:
        return "gather", gather_per_second(times, workload.clients, workload.return_ms, workload.think_ms)
    exact = service in PROFILES.values() and workers == 1
    if scenario.measure == "good" and isinstance(scenario.slo_ms, float) and exact:
        return "optimum", statistics.fmean(_offline(scenario, times, seed) for seed in seeds)
    return None


def _offline(scenario: Scenario, times: list[float], seed: int) -> float:
    result = CONTENDERS[0].simulate(scenario, seed)  # open arrivals are the same with every policy
    return offline_goodput(result.arrival_ns[-result.count :], times, float(np.max(scenario.slo_ms)))
