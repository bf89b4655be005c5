"""The suite: its scenarios are what they say, every policy sees the same input, and no policy passes the limits."""

from __future__ import annotations

import numpy as np
import pytest

from pybatch.simulation import Result
from pybatch.simulation.suite import CONTENDERS, SCENARIOS, Contender, Scenario, reference, run

BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
IMMEDIATE, BENTOML = (next(each for each in CONTENDERS if each.name == name) for name in ("immediate", "BentoML"))
TOLD = next(each for each in CONTENDERS if each.told == "always")


def test_every_scenario_and_policy_has_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(SCENARIOS)
    assert len({contender.name for contender in CONTENDERS}) == len(CONTENDERS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_scenario_ends_by_requests_if_open_and_by_time_if_closed(scenario: Scenario) -> None:
    assert (scenario.requests is None) == scenario.workload.closed
    assert (scenario.duration_s is None) != scenario.workload.closed


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Poisson 5 %", 7.0),
        ("Poisson 50 %", 15.0),
        ("16 clients, bert", 752),
        ("16 clients, resnet", 591),
        ("48 clients, bert", 2099),
        ("bursts of 8-24", 19.3),
        ("4 workers, 50 %", 16.2),
        ("SLO 15 or 200, 30 %", 0.978),
    ],
)
def test_immediate_dispatch_does_as_well_as_is_known_of_it(name: str, value: float) -> None:
    ((outcome,),) = run([BY_NAME[name]], [IMMEDIATE])
    assert outcome.mean == pytest.approx(value, rel=0.02)


def test_every_policy_sees_the_same_arrivals_and_the_same_deadlines() -> None:
    scenario = BY_NAME["SLO 15 or 200, 70 %"]
    results: list[Result] = [contender.simulate(scenario, seed=3) for contender in (IMMEDIATE, BENTOML, TOLD)]
    for result in results[1:]:
        assert np.array_equal(result.arrival_ns, results[0].arrival_ns)
        assert np.array_equal(result.slo_ns, results[0].slo_ns)


def test_deadlines_are_told_to_those_who_are_to_know_them() -> None:
    never = np.iinfo(np.int64).max
    mixed, common = BY_NAME["SLO 15 or 200, 70 %"], BY_NAME["80 %, SLO 25"]
    for told, in_mixed, in_common in (("never", False, False), ("mixed", True, False), ("always", True, True)):
        contender = Contender("any", "immediate", told=told)  # type: ignore[arg-type]
        assert (contender.simulate(mixed, 0).deadline_ns < never).all() == in_mixed
        assert (contender.simulate(common, 0).deadline_ns < never).all() == in_common


def test_there_is_an_outcome_for_each_policy_with_a_summary_for_each_seed() -> None:
    scenarios = [BY_NAME["Poisson 5 %"], BY_NAME["16 clients, bert"]]
    steps: list[None] = []
    found = list(run(scenarios, CONTENDERS[:2], seeds=(1, 2, 3), progress=lambda: steps.append(None)))
    assert [[(row.scenario, row.contender) for row in rows] for rows in found] == [
        [(scenario.name, contender.name) for contender in CONTENDERS[:2]] for scenario in scenarios
    ]
    assert all(len(row.values) == 3 for rows in found for row in rows)
    assert len(steps) == 12
    poisson = found[0][0]
    assert poisson.mean == pytest.approx(sum(poisson.values) / 3)
    assert poisson.spread == max(poisson.values) - min(poisson.values) > 0


@pytest.mark.parametrize("name", ["overload 150 %, SLO 50", "80 %, SLO 25", "MMPP 130 / 20 %, SLO 40"])
def test_no_policy_passes_the_offline_optimum(name: str) -> None:
    limit = reference(BY_NAME[name])
    assert limit is not None
    ((*outcomes,),) = run([BY_NAME[name]], CONTENDERS)
    assert max(outcome.mean for outcome in outcomes) <= limit[1] + 1e-9


@pytest.mark.parametrize("name", ["16 clients, bert", "16 clients, resnet", "48 clients, bert"])
def test_no_policy_passes_the_gather_bound_by_more_than_chance(name: str) -> None:
    limit = reference(BY_NAME[name])
    assert limit is not None
    ((*outcomes,),) = run([BY_NAME[name]], CONTENDERS)
    assert max(outcome.mean for outcome in outcomes) <= 1.005 * limit[1]


def test_where_no_limit_is_known_none_is_given() -> None:
    assert reference(BY_NAME["SLO 15 or 200, 70 %"]) is None
    assert reference(BY_NAME["warm-up, drift, spikes"]) is None
