"""Find the setting that keeps a latency goal at the largest load, with the fewest workers, by simulating it.

Every candidate sees the same arrivals.  What decides, in this order: the goal is kept at the load asked about; with the
fewest workers; clients that wait for their answers get the most of them; the load may grow most, up to four times; the
99th percentile, then the mean of latency is lowest; least has to be written.  Each step keeps all that are within a few
percent of its best, so that a setting nobody needs is not recommended for a gain that nobody would see.  Knows no words
and no plots: `pybatch.simulation.verdict` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from batchcore.engine import integer
from pybatch.options import MAX_CONCURRENT_BATCHES, engine_options, nanoseconds
from pybatch.simulation import (
    MMPP,
    Bursts,
    ClosedLoop,
    Gamma,
    Mixed,
    Poisson,
    Result,
    Service,
    Summary,
    Trace,
    Workload,
    simulate,
)
from pybatch.simulation.references import saturated_per_second

__all__ = ["DEFAULTS", "ENOUGH", "Goal", "Load", "Setting", "Task", "Trial", "Tuned", "scaled", "tune"]

SAME_LOAD, SAME_LATENCY = 0.03, 0.05
"""Differences that do not decide, as shares: of the largest load, of the 99th percentile."""

ENOUGH = 4.0
"""Multiple of the present load beyond which more does not decide."""

WINDOWS = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Windows that are tried, as shares of the goal."""

PRECISION = 1.02
"""Ratio to which the largest load is found."""


@dataclass(frozen=True, slots=True)
class Goal:
    """`share` of all requests answered within `ms`; 0.99 asks for a 99th percentile of at most `ms`."""

    ms: float
    share: float = 0.99


@dataclass(frozen=True, slots=True)
class Setting:
    """What can be written in ``Scheduler(fn, ...)``; as it stands, the defaults."""

    max_batch_size: int = 32
    policy: str = "adaptive"
    max_wait_ms: float | None = None
    max_latency_ms: float | None = None
    max_concurrent_batches: int = 1
    timeout_ms: float | None = None

    def check(self) -> None:
        """Raise what making such a scheduler would raise, ValueError or TypeError."""
        options: dict[str, Any] = {
            "max_batch_size": self.max_batch_size,
            "max_latency_ms": self.max_latency_ms,
            "policy": self.policy,
        }
        if self.max_wait_ms is not None:
            options["max_wait_ms"] = self.max_wait_ms
        engine_options(**options)
        nanoseconds("timeout_ms", self.timeout_ms)
        integer("max_concurrent_batches", self.max_concurrent_batches, 1, MAX_CONCURRENT_BATCHES)

    @property
    def arguments(self) -> dict[str, Any]:
        """Those that are not the default."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.max_batch_size == 1 and self.policy == "immediate":
            del values["policy"]  # batches of one leave at once with any policy
        return {name: value for name, value in values.items() if value != getattr(DEFAULTS, name)}

    def code(self, fn: str = "fn") -> str:
        """Return the call that makes such a scheduler."""
        return f"Scheduler({', '.join([fn, *(f'{name}={value!r}' for name, value in self.arguments.items())])})"

    @property
    def label(self) -> str:
        """A short name."""
        if self.max_batch_size == 1:
            return "no batching"
        window = f" {self.max_wait_ms:g} ms" if self.max_wait_ms is not None else ""
        return f"{self.policy}{window}, max {self.max_batch_size}"


DEFAULTS = Setting()


@dataclass(frozen=True, slots=True)
class Load:
    """What load counts in: requests/s if open, clients of a closed loop, else multiples; now it is `present`."""

    unit: str
    present: float

    @classmethod
    def of(cls, workload: Workload) -> Load:
        """Return what a workload offers."""
        if not workload.closed:
            return cls("requests/s", _per_second(workload))
        if isinstance(workload, ClosedLoop):
            return cls("clients", float(workload.clients))
        return cls("times your load", 1.0)


def _per_second(workload: Workload) -> float:
    match workload:
        case Poisson(per_second=rate) | Gamma(per_second=rate):
            return rate
        case MMPP(per_second=rates, mean_ms=means):
            return sum(rate * mean for rate, mean in zip(rates, means, strict=True)) / sum(means)
        case Bursts(every_ms=every_ms, size=(low, high)):
            return 500.0 * (low + high) / every_ms
        case Trace():
            span_ms = float(workload.arrivals_ms[-1] - workload.arrivals_ms[0])
            return 1e3 * (len(workload) - 1) / max(1e-6, span_ms)
        case Mixed(parts=parts):
            return sum(map(_per_second, parts))
    raise TypeError(f"{workload!r} has no rate of its own")


def scaled(workload: Workload, factor: float) -> Workload:
    """Return the same kind of traffic with `factor` times the load; clients come in whole numbers, at least one.

    Examples
    --------
    >>> scaled(Poisson(100.0), 1.5)
    Poisson(per_second=150.0)
    """
    match workload:
        case Poisson() | Gamma():
            return replace(workload, per_second=workload.per_second * factor)
        case MMPP(per_second=(high, low)):
            return replace(workload, per_second=(high * factor, low * factor))
        case Bursts():
            return replace(workload, every_ms=workload.every_ms / factor)
        case ClosedLoop():
            return replace(workload, clients=max(1, round(workload.clients * factor)))
        case Trace():
            return workload.scaled(factor)
        case Mixed(parts=parts):
            return Mixed(*(scaled(part, factor) for part in parts))
    raise TypeError(f"{workload!r} is no workload that can be scaled")


@dataclass(frozen=True, slots=True)
class Trial:
    """What a setting makes of the load asked about, and the largest multiple of it that keeps the goal (0: none)."""

    setting: Setting
    summary: Summary
    largest: float


@dataclass(frozen=True)
class Task:
    """What is to be tuned, and how thoroughly."""

    workload: Workload
    service: Service
    goal: Goal
    max_batch_size: int = 64
    max_workers: int = 1
    drop_late: bool = False
    requests: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "workload", _judged(self.workload, self.goal.ms, self.drop_late))

    @cached_property
    def load(self) -> Load:
        """The load asked about."""
        return Load.of(self.workload)

    @property
    def service_ms(self) -> list[float]:
        """What batches of 1, 2, ..., `max_batch_size` take, milliseconds."""
        return [self.service.ms(size) for size in range(1, self.max_batch_size + 1)]

    def simulate(self, setting: Setting, factor: float = 1.0, seed: int | None = None) -> Result:
        """Run a setting at a multiple of the load."""
        # Long enough that a closed loop has as many requests behind it as an open one.
        return simulate(
            scaled(self.workload, factor),
            self.service,
            policy=setting.policy,
            max_batch_size=setting.max_batch_size,
            max_wait_ms=setting.max_wait_ms,
            max_latency_ms=setting.max_latency_ms,
            workers=setting.max_concurrent_batches,
            timeout_ms=setting.timeout_ms,
            slo_ms=self.goal.ms,
            requests=self.requests,
            seed=self.seed if seed is None else seed,
        )

    def keeps(self, setting: Setting, factor: float) -> bool:
        """Return whether a setting keeps the goal at a multiple of the load."""
        return self.simulate(setting, factor).good >= self.goal.share

    def most(self, workers: int) -> float:
        """Return the multiple of the load that no setting can pass, from the function's speed alone."""
        if self.load.unit != "requests/s":
            return 64.0
        return saturated_per_second(self.service_ms, self.goal.ms, workers) / self.load.present

    def largest(self, setting: Setting) -> float:
        """Return the largest multiple of the load at which a setting keeps the goal, to 2 %; 0.0 if there is none."""
        high = self.most(setting.max_concurrent_batches)
        low = high / 1024.0
        if not low or not self.keeps(setting, low):
            return 0.0
        # From the load that is known to be possible, in steps that double, so that a closed loop is not tried with
        # thousands of clients to find that it holds ten.
        step = min(1.0, high)
        if self.keeps(setting, step):
            low = step
            while low < high:
                step = min(2.0 * low, high)
                if not self.keeps(setting, step):
                    break
                low = step
        while step > low * PRECISION:
            middle = (low * step) ** 0.5
            low, step = (middle, step) if self.keeps(setting, middle) else (low, middle)
        return low

    def trial(self, setting: Setting) -> Trial:
        """Try a setting."""
        return Trial(setting, self.simulate(setting).summary(), self.largest(setting))


def _judged(workload: Workload, goal_ms: float, drop_late: bool) -> Workload:
    """Return traffic whose recorded limits, which would count for more than the goal, have given way to it."""
    if isinstance(workload, Mixed):
        return Mixed(*(_judged(part, goal_ms, drop_late) for part in workload.parts))
    if isinstance(workload, Trace):
        timeouts_ms = None if drop_late else workload.timeouts_ms
        slos_ms = None if drop_late else [goal_ms] * len(workload)
        return Trace(workload.arrivals_ms, timeouts_ms, slos_ms, workload.priorities)
    return workload


@dataclass(frozen=True)
class Tuned:
    """What came out: the setting to use, all that were tried, and those that people want to compare it with."""

    task: Task
    best: Trial
    tried: tuple[Trial, ...]
    compared: dict[str, Trial]

    @property
    def kept(self) -> bool:
        """Whether the best setting keeps the goal at the load asked about."""
        return (self.best.summary.good or 0.0) >= self.task.goal.share


def tune(task: Task, *, present: Setting | None = None, progress: Callable[[str], None] | None = None) -> Tuned:
    """Search the settings of a scheduler.

    Parameters
    ----------
    task : Task
        Traffic, cost and goal.
    present : Setting, optional
        What is in use now, to compare with.
    progress : callable, optional
        Told the name of each setting before it is tried.

    Returns
    -------
    Tuned

    Notes
    -----
    Some 30 settings for each number of workers that does not suffice, about ten runs each.
    """
    timeout_ms = task.goal.ms if task.drop_late else None
    tried: dict[Setting, Trial] = {}

    def attempt(setting: Setting) -> Trial:
        if setting not in tried:
            if progress:
                progress(setting.label)
            tried[setting] = task.trial(setting)
        return tried[setting]

    for workers in range(1, task.max_workers + 1):
        bare = Setting(max_concurrent_batches=workers, timeout_ms=timeout_ms)
        group = [
            attempt(replace(bare, max_batch_size=size, policy=policy))
            for size in _batch_sizes(task)
            for policy in ("adaptive", "immediate")
        ]
        size = choose(task, group).setting.max_batch_size
        group += [
            attempt(
                replace(bare, max_batch_size=size, policy="fixed", max_wait_ms=float(f"{share * task.goal.ms:.2g}"))
            )
            for share in WINDOWS
            if size > 1
        ]
        group.append(attempt(replace(bare, max_batch_size=size, max_latency_ms=task.goal.ms)))
        best = choose(task, group)
        if (best.summary.good or 0.0) >= task.goal.share:
            break
    else:
        best = choose(task, tried.values())

    workers = best.setting.max_concurrent_batches
    windows = [
        trial
        for trial in tried.values()
        if trial.setting.policy == "fixed" and trial.setting.max_concurrent_batches == workers
    ]
    bare = Setting(max_concurrent_batches=workers, timeout_ms=timeout_ms)
    compared = {"recommended": best}
    if present:
        compared["present"] = attempt(present)
    compared["defaults"] = attempt(replace(bare, max_batch_size=DEFAULTS.max_batch_size))
    compared["immediate"] = attempt(replace(bare, max_batch_size=best.setting.max_batch_size, policy="immediate"))
    if windows:
        compared["window"] = choose(task, windows)
    compared["no batching"] = attempt(replace(bare, max_batch_size=1, policy="immediate"))
    return Tuned(task, best, tuple(tried.values()), compared)


def _batch_sizes(task: Task) -> Sequence[int]:
    """Return powers of two, the largest, and the sizes that are most efficient, at all and within the goal."""
    most, times = task.max_batch_size, task.service_ms
    sizes = {1 << power for power in range(most.bit_length())} | {most, min(most, DEFAULTS.max_batch_size)}
    efficient = sorted(range(1, most + 1), key=lambda size: times[size - 1] / size)
    sizes |= {efficient[0], next((size for size in efficient if times[size - 1] <= task.goal.ms), 1)}
    return sorted(sizes)


def choose(task: Task, trials: Iterable[Trial]) -> Trial:
    """Return the best of some trials; see the head of this file."""
    pool = list(trials)

    def keep(value: Callable[[Trial], float], tolerance: float) -> None:
        nonlocal pool
        values = [value(trial) for trial in pool]
        limit = max(values) - tolerance * abs(max(values))
        pool = [trial for trial, each in zip(pool, values, strict=True) if each >= limit]

    keep(lambda trial: min(trial.summary.good or 0.0, task.goal.share), 0.002 * (task.goal.share < 1))
    keep(lambda trial: -trial.setting.max_concurrent_batches, 0.0)
    if task.load.unit != "requests/s":
        keep(lambda trial: trial.summary.per_second or 0.0, SAME_LOAD)
    keep(lambda trial: min(trial.largest, ENOUGH), SAME_LOAD)
    keep(lambda trial: -1e18 if trial.summary.p99_ms is None else -trial.summary.p99_ms, SAME_LATENCY)
    keep(lambda trial: -1e18 if trial.summary.mean_ms is None else -trial.summary.mean_ms, SAME_LATENCY)
    return min(pool, key=lambda trial: (len(trial.setting.arguments), -trial.largest, trial.setting.max_batch_size))
