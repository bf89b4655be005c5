"""Say what tuning found: what to write, what it gains, what the limit is, and the figures for the plots.

Honest by rule: a difference below what the search calls the same is called none, what is simulated is called so, and
where the defaults are as good it says that nothing needs to be set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import inf, isfinite

import numpy as np

from pybatch.simulation import Result
from pybatch.simulation.findings import BatchSizes, Cost, Fact, Findings, Latencies, LoadCurve, Optimum, Queue
from pybatch.simulation.measure import Measured
from pybatch.simulation.references import offline_goodput
from pybatch.simulation.tune import ENOUGH, SAME_LATENCY, SAME_LOAD, Task, Trial, Tuned

__all__ = ["findings"]

LOADS = 12
QUANTILES = np.concatenate([np.linspace(0.01, 0.98, 98), np.linspace(0.981, 0.999, 19), [0.9999, 1.0]])
QUEUE_REQUESTS = 400
"""Requests whose arrivals the plot of the queue spans: more would be a carpet."""


def findings(
    tuned: Tuned,
    *,
    fn: str = "fn",
    measured: Measured | None = None,
    progress: Callable[[str], None] | None = None,
) -> Findings:
    """Return words and figures for a report; simulates what the plots need.

    Parameters
    ----------
    tuned : Tuned
        What `tune` returned.
    fn : str
        Name of the function, for the code.
    measured : Measured, optional
        What its cost was measured to be.
    progress : callable, optional
        Told what is simulated next.
    """
    task, best = tuned.task, tuned.best
    trials = _distinct(tuned)
    results = {}
    for name, trial in trials.items():
        if progress:
            progress(f"{name}: distributions")
        results[name] = task.simulate(trial.setting)
    load, optimum = _curves(task, trials, progress)
    limit, limited_by = _limit(task, best, optimum)
    unit = task.load.unit
    # More than two would hide each other in a plot of bars, or of steps.
    other = tuned.compared.get("present", tuned.compared["immediate"])
    pair = [name for name, trial in trials.items() if trial.setting in (best.setting, other.setting)]
    return Findings(
        title=f"How to batch {fn}",
        verdict=_verdict(tuned),
        code=best.setting.code(fn.rpartition(":")[2].rpartition(".")[2]),
        facts=tuple(_facts(tuned, limit, limited_by)),
        explanation=tuple(_explanation(tuned)),
        columns=("setting", "p50", "p95", "p99", "in time", "answers/s", "mean batch", "largest load"),
        rows=tuple(_row(task, name, trial) for name, trial in trials.items()),
        goal_ms=task.goal.ms,
        share=task.goal.share,
        unit=unit,
        present=task.load.present,
        limit=limit * task.load.present if limit else None,
        load=load,
        optimum=optimum,
        latencies=tuple(_latencies(name, result) for name, result in results.items()),
        batch_sizes=tuple(_batch_sizes(name, results[name]) for name in pair),
        queues=tuple(_queue(name, results[name]) for name in pair),
        cost=_cost(task, measured),
        method=tuple(_method(tuned, measured)),
    )


def _distinct(tuned: Tuned) -> dict[str, Trial]:
    """Return what is compared, recommended first, each setting once, under names that say what it is."""
    named: dict[str, Trial] = {}
    seen = []
    for role, trial in tuned.compared.items():
        if trial.setting in seen:
            continue
        seen.append(trial.setting)
        prefix = {"recommended": "", "present": "present: ", "defaults": "defaults: "}.get(role, "")
        named[f"{prefix}{trial.setting.label}"] = trial
    return named


def _verdict(tuned: Tuned) -> str:
    task, best = tuned.task, tuned.best
    goal = f"{100 * task.goal.share:g} % of the requests within {_ms(task.goal.ms)}"
    if tuned.kept:
        more = (
            f", and would up to {_load(task, best.largest)}"
            if best.largest > 1.0 + SAME_LOAD
            else ", but hardly of more"
        )
        return f"This answers {goal} at {_now(task)}{more}."
    if best.largest > 0.0:
        return (
            f"Nothing that was tried answers {goal} at {_now(task)}: at most {_percent(best.summary.good)}. "
            f"The goal can be kept up to {_load(task, best.largest)}."
        )
    return (
        f"Nothing that was tried answers {goal}, at any load: a single item alone takes {_ms(task.service.ms(1))}. "
        "Choose a longer goal, or make the function faster."
    )


def _facts(tuned: Tuned, limit: float, limited_by: str) -> Iterator[Fact]:
    task, best = tuned.task, tuned.best
    summary = best.summary
    yield Fact(
        f"in time at {_now(task)}",
        _percent(summary.good),
        f"half within {_ms(summary.p50_ms)}, 99 % within {_ms(summary.p99_ms)}",
    )
    if not best.largest:
        return
    yield Fact("largest load within the goal", _load(task, best.largest), f"{best.largest:.2g} times your load")
    alone = tuned.compared["no batching"]
    if task.load.unit == "requests/s":
        gain = best.largest / alone.largest if alone.largest else inf
        yield Fact(
            "against no batching",
            f"{gain:.2g} times the load" if isfinite(gain) else "possible at all",
            f"one at a time: {_load(task, alone.largest)}" if alone.largest else "one at a time never keeps the goal",
        )
    else:
        gain = _number(summary.per_second) / _number(alone.summary.per_second)
        yield Fact("against no batching", f"{gain:.2g} times the answers", f"{summary.per_second:,.0f}/s at your load")
    if limit:
        yield Fact("of what is possible", _percent(min(1.0, best.largest / limit)), limited_by)


def _explanation(tuned: Tuned) -> Iterator[str]:
    task, best = tuned.task, tuned.best
    defaults = tuned.compared["defaults"]
    needed = best.setting.arguments.keys() - {"timeout_ms", "max_concurrent_batches"}
    if not needed:
        yield "At your load the defaults are as good as anything that was tried: there is nothing to tune."
    else:
        enough = (defaults.summary.good or 0.0) >= task.goal.share
        also = " They too keep the goal at your load." if enough else ""
        yield f"Against the defaults: {_comparison(task, best, defaults)}.{also}"
    workers = best.setting.max_concurrent_batches
    same = [trial for trial in tuned.tried if trial.setting.max_concurrent_batches == workers]
    most = max(same, key=lambda trial: trial.largest)
    if most.largest > best.largest * (1.0 + SAME_LOAD):
        yield f"Should your load ever need it: {most.setting.code()} would hold {_load(task, most.largest)}."
    for role, words in (
        ("present", "Against the present setting"),
        ("immediate", "Against leaving whenever a worker is free (immediate)"),
        ("window", "Against the best fixed window"),
    ):
        trial = tuned.compared.get(role)
        if trial and trial.setting not in (best.setting, defaults.setting):
            yield f"{words}: {_comparison(task, best, trial)}."
    if best.setting.timeout_ms is not None:
        late = best.summary.expired / max(1, best.summary.count)
        yield (
            "timeout_ms fails a request once it cannot be answered in time, so that others can be: "
            f"{_percent(late)} of them at your load."
        )
    if best.setting.max_concurrent_batches > 1:
        yield (
            f"{best.setting.max_concurrent_batches} workers are taken to be as fast together as each is alone: true of "
            "devices of their own, not of threads that share one. Measure before you rely on it."
        )
    if not tuned.kept and task.max_workers == best.setting.max_concurrent_batches:
        yield "What would help: more workers (--max-workers), a faster function, or a longer goal."


def _comparison(task: Task, best: Trial, other: Trial) -> str:
    """Return how `best` differs from `other`, in as few words as are true: first what is better, then what is worse."""
    better: list[str] = []
    worse: list[str] = []

    def compare(ratio: float, same: float, words: str) -> None:
        if abs(ratio - 1.0) > same:
            (better if ratio > 1.0 else worse).append(words)

    mine, theirs = best.summary, other.summary
    if task.workload.closed and mine.per_second and theirs.per_second:
        ratio = mine.per_second / theirs.per_second
        compare(ratio, SAME_LOAD, f"{_change(ratio)} answers a second")
    if other.largest:
        ratio = best.largest / other.largest
        compare(ratio, SAME_LOAD, f"{_change(ratio)} load within the goal")
    elif best.largest:
        better.append("the goal, which that one keeps at no load")
    for share, quick, slow in (("99 %", mine.p99_ms, theirs.p99_ms), ("half", mine.p50_ms, theirs.p50_ms)):
        if quick and slow:
            compare(
                slow / quick, SAME_LATENCY, f"{share} within {_ms(quick)}, not {_capped(slow, 20.0 * task.goal.ms)}"
            )
    return "; but ".join(filter(None, ("; ".join(better), "; ".join(worse)))) or "no difference that matters here"


def _change(ratio: float) -> str:
    if ratio >= 2.0:
        return f"{ratio:.2g} times the"
    return f"{100 * abs(ratio - 1.0):.0f} % {'more' if ratio > 1.0 else 'less'}"


def _limit(task: Task, best: Trial, optimum: Optimum | None) -> tuple[float, str]:
    """Return the largest multiple of the load that any schedule could hold, and why; 0.0 if unknown."""
    workers = best.setting.max_concurrent_batches
    if task.load.unit != "requests/s":
        return 0.0, ""
    most = task.most(workers)
    if not most:
        return 0.0, ""
    if optimum:
        below = [at for at, good in zip(optimum.load, optimum.good, strict=True) if good >= task.goal.share]
        above = [at for at, good in zip(optimum.load, optimum.good, strict=True) if good < task.goal.share]
        if below and above and max(below) < min(above):
            low, high = max(below), min(above)
            goods = dict(zip(optimum.load, optimum.good, strict=True))
            share = (goods[low] - task.goal.share) / (goods[low] - goods[high])
            limit = (low + share * (high - low)) / task.load.present
            return limit, f"knowing the future, any schedule ends at {_load(task, limit)}"
    return most, f"the function itself ends at {_load(task, most)}"


def _curves(
    task: Task, trials: dict[str, Trial], progress: Callable[[str], None] | None
) -> tuple[tuple[LoadCurve, ...], Optimum | None]:
    best = next(iter(trials.values()))
    factors = _factors(task, best)
    curves = []
    for name, trial in trials.items():
        if progress:
            progress(f"{name}: growing load")
        results = [task.simulate(trial.setting, factor) for factor in factors]
        curves.append(
            LoadCurve(
                name,
                tuple(factor * task.load.present for factor in factors),
                tuple(result.p50_ms for result in results),
                tuple(result.p95_ms for result in results),
                tuple(result.p99_ms for result in results),
                tuple(result.good for result in results),
            )
        )
    if task.workload.closed or best.setting.max_concurrent_batches > 1:
        return tuple(curves), None
    good = []
    for factor in factors:
        if progress:
            progress("offline optimum")
        result = task.simulate(best.setting, factor)
        good.append(offline_goodput(result.arrival_ns[result.warm_up :], task.service_ms, task.goal.ms))
    return tuple(curves), Optimum("offline optimum", curves[0].load, tuple(good))


def _factors(task: Task, best: Trial) -> list[float]:
    """Return the multiples of the load that the plots show: past what can be held, and the present one among them."""
    if task.load.unit == "clients":
        most = 2.0 * max(best.largest, 1.0) * task.load.present
        clients = sorted({max(1, round(float(number))) for number in np.geomspace(1.0, most, LOADS)})
        return [number / task.load.present for number in sorted({*clients, round(task.load.present)})]
    most = 1.15 * task.most(best.setting.max_concurrent_batches) if not task.workload.closed else 2.0 * best.largest
    most = max(most, 1.15)
    return sorted({*(most * (step + 1) / LOADS for step in range(LOADS)), 1.0})


def _latencies(name: str, result: Result) -> Latencies:
    if not len(result.latencies_ms):
        return Latencies(name, (), ())
    # A share of all requests, so that those that were dropped are missing at the top.
    answered = len(result.latencies_ms) / result.count
    ms = np.quantile(result.latencies_ms, QUANTILES)
    return Latencies(name, tuple(ms.tolist()), tuple((QUANTILES * answered).tolist()))


def _batch_sizes(name: str, result: Result) -> BatchSizes:
    used = np.unique(result.batch_of[result.warm_up :])
    sizes, counts = np.unique(result.batches.size[used[used >= 0]], return_counts=True)
    return BatchSizes(name, tuple(sizes.tolist()), tuple((counts / max(1, counts.sum())).tolist()))


def _queue(name: str, result: Result) -> Queue:
    """Return the queue's length while some hundred requests arrive, from the end of the warm-up on."""
    first, last = result.warm_up, min(result.warm_up + QUEUE_REQUESTS, result.count + result.warm_up) - 1
    began_ns, ended_ns = result.arrival_ns[first], result.arrival_ns[last]
    left_ns = np.where(result.dispatched_ns >= 0, result.dispatched_ns, result.finished_ns)
    left_ns = np.where(left_ns >= 0, left_ns, result.arrival_ns)  # rejected: never queued
    at_ns = np.concatenate([result.arrival_ns, left_ns])
    step = np.repeat([1, -1], len(left_ns))
    order = np.lexsort((step, at_ns))
    at_ns, queued = at_ns[order], np.cumsum(step[order])
    final = np.append(at_ns[1:] != at_ns[:-1], True)  # what an instant ends with
    shown = final & (at_ns >= began_ns) & (at_ns <= ended_ns)
    return Queue(name, tuple(((at_ns[shown] - began_ns) / 1e9).tolist()), tuple(queued[shown].tolist()))


def _cost(task: Task, measured: Measured | None) -> Cost:
    points = (
        measured.cost_model if measured else [point for point in task.service.points if point[0] <= task.max_batch_size]
    )
    sizes, ms = zip(*(points or [(1, task.service.ms(1))]), strict=True)
    if not measured and len(sizes) < 3:  # a straight line: shown where it is used
        sizes = tuple(sorted({1 << power for power in range(task.max_batch_size.bit_length())} | {task.max_batch_size}))
        ms = tuple(task.service.ms(size) for size in sizes)
    slope, intercept = np.polyfit(sizes, ms, 1) if len(sizes) > 1 else (0.0, ms[0])
    low, high = (
        (tuple(row.low_ms for row in measured.measurements), tuple(row.high_ms for row in measured.measurements))
        if measured
        else (None, None)
    )
    return Cost(tuple(sizes), tuple(ms), float(slope), float(intercept), low, high)


def _method(tuned: Tuned, measured: Measured | None) -> Iterator[str]:
    task = tuned.task
    yield (
        f"{len(tuned.tried)} settings were tried by simulation, each with the same arrivals at many loads: the engine "
        f"that serves, run in virtual time, {task.requests:,} requests a run, seed {task.seed}."
    )
    yield (
        "The largest load is found to 2 %. What does not decide: differences below 3 % of load or 5 % of latency, "
        f"and load beyond {ENOUGH:g} times yours. Of what is left, the setting with least to write is recommended."
    )
    others = [task.simulate(tuned.best.setting, seed=task.seed + more) for more in (1, 2)]
    yield (
        f"Chance: with two other seeds the recommended setting answers {_percent(others[0].good)} and "
        f"{_percent(others[1].good)} in time at your load, and 99 % within {_ms(others[0].p99_ms)} and "
        f"{_ms(others[1].p99_ms)}."
    )
    if measured:
        runs = sum(row.runs for row in measured.measurements)
        yield f"Latency per batch size is the median of {runs:,} measured runs in all; bars show the middle half."
        if measured.stopped:
            yield f"Measuring stopped early: {measured.stopped}."
    yield (
        "Not simulated: the time that Python needs for each request, pauses of the machine, and a function that slows "
        "down when several batches run at once."
    )


def _row(task: Task, name: str, trial: Trial) -> tuple[str, ...]:
    summary = trial.summary
    return (
        name,
        *(_capped(ms, 20.0 * task.goal.ms) for ms in (summary.p50_ms, summary.p95_ms, summary.p99_ms)),
        _percent(summary.good),
        f"{_number(summary.per_second):,.0f}",
        f"{_number(summary.mean_batch_size):.1f}",
        _load(task, trial.largest) if trial.largest else "none",
    )


def _now(task: Task) -> str:
    """Return the words for the load asked about."""
    return "your load" if task.load.unit == "times your load" else f"your {_load(task, 1.0)}"


def _load(task: Task, factor: float) -> str:
    """Return a multiple of the load in words; clients are whole."""
    match task.load.unit:
        case "requests/s":
            return f"{_figure(factor * task.load.present)}/s"
        case "clients":
            return f"{int(factor * task.load.present + 1e-9):,} clients"
    return f"{factor:.2g} times your load"


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.3g}"


def _ms(ms: float | None) -> str:
    if ms is None:
        return "-"
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"


def _capped(ms: float | None, most_ms: float) -> str:
    """Return a latency; of a setting that has collapsed it only depends on how long one simulates."""
    return _ms(ms) if ms is None or ms <= most_ms else f"> {_ms(most_ms)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.4g} %"


def _number(value: float | None) -> float:
    return 0.0 if value is None else value
