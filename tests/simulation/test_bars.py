"""The bars that the default policy clears, and its weak spots as they are.

A bar holds in the mean of 20 seeds; that the seeds differ little says what the mean is worth.  Policies are compared on
the same arrivals.  Beside a bar stands the best figure that another rule reached in a study with one seed.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from pybatch.simulation import MMPP, PROFILES, Bursts, ClosedLoop, Gamma, Poisson, Result, Workload, simulate
from pybatch.simulation.references import offline_goodput, saturated_per_second
from pybatch.simulation.suite import CONTENDERS, SCENARIOS, service_ms

SEEDS = range(20)
SCENARIO = {scenario.name: scenario for scenario in SCENARIOS}
CONTENDER = {contender.name: contender for contender in CONTENDERS}
RESNET = PROFILES["resnet"]


def runs(scenario: str, contender: str) -> list[Result]:
    return [CONTENDER[contender].simulate(SCENARIO[scenario], seed) for seed in SEEDS]


def mean_of(figure: str, results: list[Result]) -> float:
    """Return the mean of a figure, which must not differ much between runs."""
    values = [getattr(result, figure) for result in results]
    mean = float(np.mean(values))
    assert 0 < np.std(values) < 0.05 * mean, f"{figure} of {values}"
    return mean


@pytest.mark.parametrize("load", [5, 50, 95])
def test_open_traffic_is_answered_as_soon_as_by_never_waiting(load: int) -> None:
    """Which no rule beats by more than a hair: 7.0, 15.0 and 50.0 ms."""
    immediate, adaptive = (runs(f"Poisson {load} %", name) for name in ("immediate", "adaptive"))
    means = np.array([[result.mean_ms for result in results] for results in (adaptive, immediate)])
    tails = np.array([[result.p99_ms for result in results] for results in (adaptive, immediate)])
    assert means[0].mean() <= 1.015 * means[1].mean()
    assert tails[0].mean() <= 1.03 * tails[1].mean()
    assert (means[0] <= 1.03 * means[1]).all(), "with no seed it is far off"


@pytest.mark.parametrize(
    ("scenario", "least"),
    [
        ("16 clients, bert", 1310),  # 994
        ("16 clients, resnet", 685),  # 620
        ("48 clients, bert", 2600),  # 2,099
    ],
)
def test_callers_who_wait_for_answers_get_more_of_them(scenario: str, least: float) -> None:
    results = runs(scenario, "adaptive")
    assert mean_of("per_second", results) >= least
    if scenario == "16 clients, bert":
        assert mean_of("p99_ms", results) <= 14  # 16


@pytest.mark.parametrize(
    ("scenario", "most"),
    [
        ("bursts of 8-24", 14.2),  # 19.3 without a window, 13.5 with the one that fits
        ("4 workers, 50 %", 12.5),  # 12.8
    ],
)
def test_mean_latency_is_low_where_others_bunch(scenario: str, most: float) -> None:
    assert mean_of("mean_ms", runs(scenario, "adaptive")) <= most


@pytest.mark.parametrize(
    ("scenario", "contender", "least"),
    [
        ("80 %, SLO 25", "adaptive + timeout", 0.902),  # 0.904; in the mean of these seeds 0.903, as ours
        ("batching hurts, 60 %", "adaptive", 0.95),  # 0.708
        ("batching hurts, 60 %", "adaptive + timeout", 0.95),
        ("warm-up, drift, spikes", "adaptive + timeout", 0.86),  # 0.715
        ("4 workers, 85 %, SLO 25", "adaptive + timeout", 0.98),  # 0.989, with the service times known beforehand
        ("SLO 15 or 200, 30 %", "adaptive + timeout", 0.99),  # 0.978
        ("SLO 15 or 200, 50 %", "adaptive + timeout", 0.96),  # 0.921
        ("SLO 15 or 200, 70 %", "adaptive + timeout", 0.90),  # 0.852
        ("SLO 15 or 200, 90 %", "adaptive + timeout", 0.825),  # 0.826
    ],
)
def test_answers_come_within_the_slo(scenario: str, contender: str, least: float) -> None:
    assert mean_of("good", runs(scenario, contender)) >= least


def test_answers_to_mixed_deadlines_come_in_time_under_overload() -> None:
    """Short runs near the bar: 81.1 %, give or take 0.06, in the mean of 200; 80.9 in that of the first 20."""
    scenario = SCENARIO["SLO 15 or 200, 120 %"]
    results = [CONTENDER["adaptive + timeout"].simulate(scenario, seed) for seed in range(200)]
    assert mean_of("good", results) >= 0.81  # 0.797


@pytest.mark.parametrize("slo_ms", [25, 50])
@pytest.mark.parametrize("load", [1.0, 1.5, 3.0])
def test_goodput_under_overload_is_near_the_exact_optimum(load: float, slo_ms: float) -> None:
    """At least 97 % of it with every seed.

    At 150 % and 50 ms the bar was 64.5 % of the requests, a figure of one seed; in the mean of 20 the optimum itself is
    64.4 %.  So it is stated as a share of the optimum, 98.5 %.
    """
    shares = []
    workload = Poisson(load * RESNET.capacity_per_second(32))
    for seed in range(5):
        result = simulate(workload, RESNET, timeout_ms=slo_ms, requests=4000, warm_up=0, seed=seed)
        shares.append(result.good / offline_goodput(result.arrival_ns, service_ms(RESNET, 32), slo_ms))
    assert 0.97 <= min(shares) <= max(shares) <= 1
    if (load, slo_ms) == (1.5, 50):
        assert np.mean(shares) >= 0.985


def anything(random: np.random.Generator) -> tuple[str, Workload, dict[str, Any]]:
    """Draw a profile, open traffic that is not too much for it, and options."""
    name = str(random.choice(list(PROFILES)))
    max_batch_size = 8 if name == "efficientnet-b7" else int(random.choice([1, 4, 8, 16, 32, 64]))
    workers = int(random.choice([1, 1, 1, 2, 4, 8]))
    most = saturated_per_second(service_ms(PROFILES[name], max_batch_size), workers=workers)
    rate = random.uniform(0.02, 0.95) * most
    fewest = int(random.integers(2, 8))
    workload = (
        Poisson(rate),
        Gamma(rate, cv=float(random.choice([0.5, 2, 4]))),
        MMPP((1.6 * rate, 0.4 * rate), mean_ms=(random.uniform(50, 500),) * 2),
        Bursts(2000 * fewest / rate, size=(fewest, 3 * fewest), gap_ms=random.uniform(0.02, 2)),
    )[random.integers(4)]
    return name, workload, {"max_batch_size": max_batch_size, "workers": workers}


def test_no_open_traffic_is_served_worse_than_by_never_waiting() -> None:
    """200 scenarios drawn at random, no deadlines: at most 2 % in the mean and 5 % at the 99th percentile."""
    random = np.random.default_rng(1)
    worse, ratios = [], []
    for _ in range(200):
        name, workload, options = anything(random)
        mean_ms, p99_ms = {}, {}
        for policy in ("immediate", "adaptive"):
            results = [
                simulate(workload, PROFILES[name], policy=policy, requests=20_000, seed=seed, **options)
                for seed in range(5)
            ]
            mean_ms[policy] = np.mean([result.mean_ms for result in results])
            p99_ms[policy] = np.mean([result.p99_ms for result in results])
        ratios.append(mean_ms["adaptive"] / mean_ms["immediate"])
        if ratios[-1] > 1.02 or p99_ms["adaptive"] > 1.05 * p99_ms["immediate"]:
            worse.append((name, workload, options, mean_ms, p99_ms))
    assert not worse
    assert np.exp(np.mean(np.log(ratios))) < 0.9, "and on the whole much better"


def test_a_mix_of_open_and_closed_traffic_pays_a_little_latency_for_throughput() -> None:
    """A weak spot: the open requests wait for the closed ones, and their tail is a quarter longer."""
    immediate, adaptive = (runs("30 % open + 8 clients", name) for name in ("immediate", "adaptive"))
    assert mean_of("per_second", adaptive) >= 1.1 * mean_of("per_second", immediate)
    assert mean_of("mean_ms", adaptive) <= 1.025 * mean_of("mean_ms", immediate)
    assert mean_of("p99_ms", adaptive) <= 1.25 * mean_of("p99_ms", immediate)


@pytest.mark.parametrize("profile", ["bert", "resnet"])
def test_callers_who_think_for_as_long_as_a_batch_takes_get_no_fewer_answers(profile: str) -> None:
    """A weak spot: whether they wait for each other is hard to tell."""
    workload = ClosedLoop(16, think_ms=5)
    immediate, adaptive = (
        [simulate(workload, PROFILES[profile], policy=policy, duration_s=5, seed=seed) for seed in SEEDS]
        for policy in ("immediate", "adaptive")
    )
    assert mean_of("per_second", adaptive) >= 0.99 * mean_of("per_second", immediate)


def gain(profile: str, workload: Workload, workers: int) -> float:
    """Return how many times the throughput of never waiting there is."""
    per_second = {
        policy: np.mean(
            [
                simulate(
                    workload, PROFILES[profile], policy=policy, workers=workers, duration_s=5, seed=seed
                ).per_second
                for seed in range(3)
            ]
        )
        for policy in ("immediate", "adaptive")
    }
    return float(per_second["adaptive"] / per_second["immediate"])


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("clients", [4, 8, 32])
@pytest.mark.parametrize("profile", ["bert", "resnet"])
def test_callers_of_several_workers_get_no_fewer_answers(profile: str, clients: int, workers: int) -> None:
    assert gain(profile, ClosedLoop(clients), workers) >= 0.99


def test_what_closed_traffic_costs_and_gains_on_the_whole() -> None:
    """A weak spot: a few mixes of clients, workers and thinking lose; the worst, 4 %, is resnet with 32 clients that
    think for a sixth of a batch."""
    gains = [
        gain(profile, ClosedLoop(clients, think_ms=think_ms), workers)
        for profile, clients, workers, think_ms in product(
            ("bert", "resnet", "v100"), (2, 4, 6, 16, 32, 48), (1, 2, 4), (0.3, 2, 5)
        )
    ]
    assert min(gains) >= 0.95
    assert np.mean([each < 0.99 for each in gains]) <= 0.03
    assert np.exp(np.mean(np.log(gains))) >= 1.1


def test_a_timeout_that_nobody_comes_near_delays_nobody() -> None:
    """Traffic that stops now and then, 2 workers."""
    traffic = MMPP((900, 0.5), mean_ms=(500, 5000))
    free, limited = (
        simulate(traffic, RESNET, workers=2, timeout_ms=timeout_ms, duration_s=30) for timeout_ms in (None, 2000)
    )
    assert limited.latencies_ms.max() <= 2 * free.latencies_ms.max()
