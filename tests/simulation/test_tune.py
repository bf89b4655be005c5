"""Tuning finds what is known to be best, prefers what needs not be written, and says so honestly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pybatch.simulation import MMPP, PROFILES, Bursts, ClosedLoop, Gamma, Mixed, Poisson, Service, Trace, Workload
from pybatch.simulation.findings import Findings
from pybatch.simulation.measure import Measured, Measurement
from pybatch.simulation.tune import Goal, Load, Setting, Task, Trial, choose, scaled, tune
from pybatch.simulation.verdict import findings

RESNET, BERT, CPU = (PROFILES[name] for name in ("resnet", "bert", "cpu"))


def task(workload: Workload, service: Service, goal_ms: float, **options: Any) -> Task:
    return Task(workload, service, Goal(goal_ms), requests=3_000, **options)


def words(found: Findings) -> str:
    facts = " ".join(f"{fact.name}: {fact.value} {fact.detail}" for fact in found.facts)
    return " ".join((found.verdict, facts, *found.explanation, *found.method))


@pytest.mark.parametrize(
    ("workload", "load"),
    [
        (Poisson(100), Load("requests/s", 100)),
        (Gamma(100, cv=2), Load("requests/s", 100)),
        (MMPP((300, 100), mean_ms=(100, 300)), Load("requests/s", 150)),
        (Bursts(100, size=(8, 12)), Load("requests/s", 100)),
        (Trace(np.arange(11) * 10.0), Load("requests/s", 100)),
        (Mixed(Poisson(100), Gamma(50, cv=2)), Load("requests/s", 150)),
        (ClosedLoop(16), Load("clients", 16)),
        (Mixed(Poisson(100), ClosedLoop(16)), Load("times your load", 1)),
    ],
)
def test_load_counts_in_what_the_traffic_is_made_of_and_scales_with_it(workload: Workload, load: Load) -> None:
    assert Load.of(workload) == load
    doubled = Load.of(scaled(workload, 2))
    assert doubled.unit == load.unit
    if load.unit != "times your load":
        assert doubled.present == pytest.approx(2 * load.present)


def test_clients_come_in_whole_numbers_and_never_none() -> None:
    assert scaled(ClosedLoop(16), 0.51) == ClosedLoop(8)
    assert scaled(ClosedLoop(16), 0.001) == ClosedLoop(1)
    mixed = scaled(Mixed(Poisson(100), ClosedLoop(4)), 1.5)
    assert isinstance(mixed, Mixed)
    assert mixed.parts == (Poisson(150.0), ClosedLoop(6))


def test_the_code_has_nothing_but_what_differs_from_the_defaults() -> None:
    assert Setting().code() == "Scheduler(fn)"
    assert Setting(max_batch_size=64, timeout_ms=50.0).code("predict") == (
        "Scheduler(predict, max_batch_size=64, timeout_ms=50.0)"
    )
    assert Setting(max_batch_size=1, policy="immediate").code() == "Scheduler(fn, max_batch_size=1)"
    fixed = Setting(policy="fixed", max_wait_ms=5.0)
    assert fixed.code() == "Scheduler(fn, policy='fixed', max_wait_ms=5.0)"
    assert (fixed.label, Setting(max_batch_size=1).label) == ("fixed 5 ms, max 32", "no batching")


@pytest.mark.parametrize("setting", [Setting(policy="fixed"), Setting(policy="eager"), Setting(max_batch_size=0)])
def test_a_setting_that_no_scheduler_takes_is_refused(setting: Setting) -> None:
    with pytest.raises(ValueError, match=r"max_wait_ms|policy is|max_batch_size"):
        setting.check()


def test_the_largest_load_is_where_the_goal_just_holds() -> None:
    poisson = task(Poisson(420), RESNET, 50)
    largest = poisson.largest(Setting(policy="immediate"))
    assert poisson.keeps(Setting(policy="immediate"), largest)
    assert not poisson.keeps(Setting(policy="immediate"), largest * 1.05)
    assert 1.3 < largest < poisson.most(1)


def test_a_goal_below_what_one_item_takes_is_kept_at_no_load() -> None:
    assert task(Poisson(1), RESNET, 6).largest(Setting()) == 0


def test_the_defaults_are_recommended_where_nothing_is_better() -> None:
    tuned = tune(task(Poisson(420), RESNET, 50, max_batch_size=32))
    assert tuned.best.setting == Setting()
    assert tuned.kept
    assert "there is nothing to tune" in words(findings(tuned))


def test_a_larger_batch_is_found_where_it_carries_more() -> None:
    tuned = tune(task(Poisson(1000), BERT, 50, max_batch_size=128))
    assert tuned.best.setting.max_batch_size >= 64
    assert tuned.best.largest > 1.3 * tuned.compared["defaults"].largest


def test_what_holds_more_than_anybody_needs_now_is_told_of_and_not_recommended() -> None:
    tuned = tune(task(Poisson(100), BERT, 50, max_batch_size=128))
    assert tuned.best.setting == Setting()
    assert "Should your load ever need it: Scheduler(fn, max_batch_size=128) would hold" in words(findings(tuned))


def test_a_small_batch_is_found_where_batching_hurts() -> None:
    b7 = PROFILES["efficientnet-b7"]
    tuned = tune(task(Poisson(8), b7, 500, max_batch_size=8))
    assert tuned.kept
    assert tuned.best.largest > 2 * tuned.compared["immediate"].largest or tuned.best.setting.max_batch_size == 1


def test_no_more_workers_than_needed_are_asked_for() -> None:
    one = tune(task(Poisson(420), RESNET, 50, max_workers=4))
    assert one.best.setting.max_concurrent_batches == 1
    several = tune(task(Poisson(1500), RESNET, 50, max_workers=4))
    assert several.kept
    assert several.best.setting.max_concurrent_batches in (2, 3)
    assert "workers are taken to be as fast together" in words(findings(several))


def test_when_nothing_keeps_the_goal_the_nearest_is_given_and_said_to_be_no_solution() -> None:
    tuned = tune(task(Poisson(1500), RESNET, 50, drop_late=True))
    assert not tuned.kept
    assert tuned.best.setting.timeout_ms == 50
    assert tuned.best.summary.good is not None
    assert 0.4 < tuned.best.summary.good < 0.7
    said = words(findings(tuned))
    assert "Nothing that was tried answers 99 % of the requests within 50 ms at your 1,500/s" in said
    assert "What would help: more workers" in said
    assert "timeout_ms fails a request" in said


def test_an_impossible_goal_is_called_so() -> None:
    tuned = tune(task(Poisson(10), RESNET, 3))
    assert not tuned.kept
    assert "at any load: a single item alone takes 6.12 ms" in findings(tuned).verdict


def test_the_present_setting_is_compared_with() -> None:
    present = Setting(max_batch_size=4, policy="fixed", max_wait_ms=20.0)
    tuned = tune(task(Poisson(420), RESNET, 50), present=present)
    assert tuned.compared["present"].setting == present
    found = findings(tuned)
    assert "Against the present setting: " in words(found)
    assert any(row[0] == "present: fixed 20 ms, max 4" for row in found.rows)


def test_clients_of_a_closed_loop_are_judged_by_what_they_get() -> None:
    tuned = tune(task(ClosedLoop(16), BERT, 50))
    gained, immediate = tuned.best.summary.per_second, tuned.compared["immediate"].summary.per_second
    assert gained is not None
    assert immediate is not None
    assert gained > 1.3 * immediate
    assert "answers a second" in words(findings(tuned))


def test_a_recorded_goal_gives_way_to_the_one_asked_about() -> None:
    trace = Trace(np.arange(3000) * 4.0, timeouts_ms=np.full(3000, 1.0), slos_ms=np.full(3000, 1.0))
    dropping = task(trace, RESNET, 50, drop_late=True)
    assert dropping.simulate(replace(Setting(), timeout_ms=50.0)).good == 1
    assert task(Mixed(trace), RESNET, 50).workload.parts[0].slos_ms.tolist() == [50.0] * 3000  # type: ignore[attr-defined]


def test_of_settings_that_are_the_same_to_the_eye_the_shortest_is_chosen() -> None:
    poisson = task(Poisson(420), RESNET, 50)
    summary = poisson.simulate(Setting()).summary()
    short, better = Trial(Setting(), summary, 1.50), Trial(Setting(max_batch_size=48), summary, 1.52)
    assert choose(poisson, [better, short]) is short
    much_better = Trial(Setting(max_batch_size=64), summary, 1.6)
    assert choose(poisson, [short, much_better]) is much_better
    plenty, more_than_plenty = replace(short, largest=5.0), replace(much_better, largest=9.0)
    assert choose(poisson, [plenty, more_than_plenty]) is plenty


def test_figures_of_the_report_belong_together() -> None:
    tuned = tune(task(Poisson(420), RESNET, 50))
    measured = Measured((Measurement(1, 6.1, 6.0, 6.3, 9), Measurement(32, 38.8, 38.0, 39.0, 5)), "too slow")
    found = findings(tuned, fn="app.model:net.predict", measured=measured)
    assert found.code.startswith("Scheduler(predict")
    assert found.limit is not None
    assert tuned.best.largest * 420 <= found.limit <= 1.01 * tuned.task.most(1) * 420
    assert found.optimum is not None
    for curve in found.load:
        assert curve.load == found.optimum.load
        assert 420.0 in curve.load
        assert all(good <= best + 1e-9 for good, best in zip(curve.good, found.optimum.good, strict=True))
    for sizes in found.batch_sizes:
        assert sum(sizes.share) == pytest.approx(1)
    for queue in found.queues:
        assert min(queue.queued) >= 0
        assert list(queue.at_s) == sorted(queue.at_s)
    assert found.cost.low_ms == (6.0, 38.0)
    assert "Measuring stopped early: too slow." in found.method
