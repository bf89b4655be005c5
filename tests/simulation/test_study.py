"""The simulator against figures that were worked out elsewhere.

Those for policy "immediate" are from a study with a simulator of its own, plain Python and one seed; what is known in
closed form is compared with the formula.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pybatch.simulation import PROFILES, Bursts, ClosedLoop, Poisson, Service, Workload, simulate

resnet, bert = PROFILES["resnet"], PROFILES["bert"]
full_resnet, full_bert = resnet.capacity_per_second(32), bert.capacity_per_second(32)


def figure(name: str, workload: Workload, service: Service, **options: Any) -> float:
    """Return the mean of a figure over some seeds."""
    runs = [simulate(workload, service, policy="immediate", seed=seed, **options) for seed in range(5)]
    return float(np.mean([getattr(run, name) for run in runs]))


@pytest.mark.parametrize(
    ("workload", "service", "options", "mean_ms", "tolerance"),
    [
        (Poisson(0.05 * full_resnet), resnet, {"requests": 4000}, 7.0, 0.01),
        (Poisson(0.5 * full_resnet), resnet, {"requests": 8000}, 15.0, 0.01),
        (Poisson(0.95 * full_resnet), resnet, {"requests": 100_000}, 50.0, 0.03),
        (Bursts(every_ms=60), bert, {"requests": 6000}, 19.3, 0.02),
        (Poisson(2 * full_bert), bert, {"requests": 12_000, "workers": 4}, 16.2, 0.01),
    ],
)
def test_mean_latency_is_that_of_the_study(
    workload: Workload, service: Service, options: dict[str, Any], mean_ms: float, tolerance: float
) -> None:
    assert figure("mean_ms", workload, service, **options) == pytest.approx(mean_ms, rel=tolerance)


@pytest.mark.parametrize(
    ("clients", "service", "duration_s", "per_second", "mean_ms"),
    [(16, bert, 5, 752, 20.9), (16, resnet, 5, 591, 26.6), (48, bert, 4, 2099, 22.4)],
)
def test_a_closed_loop_is_as_slow_as_in_the_study(
    clients: int, service: Service, duration_s: float, per_second: float, mean_ms: float
) -> None:
    loop = ClosedLoop(clients)
    assert figure("per_second", loop, service, duration_s=duration_s) == pytest.approx(per_second, rel=0.005)
    assert figure("mean_ms", loop, service, duration_s=duration_s) == pytest.approx(mean_ms, rel=0.005)


def test_a_single_server_without_batches_is_an_m_d_1_queue() -> None:
    for load in (0.3, 0.6, 0.9):
        mean_ms = figure("mean_ms", Poisson(100 * load), Service.affine(0, 10), max_batch_size=1, requests=200_000)
        assert mean_ms == pytest.approx(10 + 10 * load / (2 * (1 - load)), rel=0.03)


def test_saturated_throughput_is_the_capacity() -> None:
    assert figure("per_second", Poisson(1.5 * full_resnet), resnet, requests=8000) == pytest.approx(
        full_resnet, rel=0.01
    )


def test_greedy_batching_meets_inoues_formula() -> None:
    """Poisson arrivals, service a * n + b, no limit on the size; exact to four digits from a load of one half on."""
    a, b = 0.1438, 1.8874
    for load in (0.5, 0.7):
        formula = 1.5 * b / (1 - load) + a / 2 * (load + 2) / (1 - load * load)
        mean_ms = figure(
            "mean_ms", Poisson(1e3 * load / a), Service.affine(a, b), max_batch_size=10_000, requests=300_000
        )
        assert mean_ms == pytest.approx(formula, rel=0.01)
