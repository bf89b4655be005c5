"""Service models: what a batch takes, by the table and by chance."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from pybatch.simulation import PROFILES, Poisson, Service, Trace, simulate


def service_ms(service: Service, batches: int, gap_ms: float = 1e4) -> np.ndarray:
    """Return what batches of one take that come so far apart that they never meet."""
    trace = Trace(np.arange(batches) * gap_ms)
    return simulate(trace, service, policy="immediate").batches.service_ns / 1e6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Service(()), "there are no points"),
        (lambda: Service.table({}), "there are no points"),
        (lambda: Service.table({0: 1}), "the size of points[0] is 0; it must be from 1"),
        (lambda: Service(((2, 1.0), (2, 2.0))), "the size of points[1] is 2; it must be from 3"),
        (lambda: Service.table({1: -1}), "the time of points[0] is -1"),
        (lambda: Service.affine(-1, 1), "per_item_ms is -1"),
        (lambda: Service.affine(1, float("inf")), "per_batch_ms is inf"),
        (lambda: Service.affine(1, 1, noise=4), "noise is 4; it must be from 0 to 3"),
        (lambda: Service.affine(1, 1, spikes=(2, 1)), "the probability of spikes is 2"),
        (lambda: Service.affine(1, 1, spikes=(0.5, -1)), "the time of spikes is -1"),
        (lambda: Service.affine(1, 1, spikes=0.5), "spikes must be a tuple of two, not 0.5"),
        (lambda: Service.affine(1, 1, warm_up=(-1, 2)), "the batches of warm_up is -1"),
        (lambda: Service.affine(1, 1, warm_up=(1, 0)), "the factor of warm_up is 0"),
        (lambda: Service.affine(1, 1, drift=((2, 1), (1, 1))), "the instant of drift[1] is 1; it must be from 2"),
        (lambda: Service.affine(1, 1, drift=((2, 0),)), "the factor of drift[0] is 0"),
        (lambda: Service.affine(1, 1).ms(0), "batch_size is 0"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert message in str(error.value)


def test_an_affine_model_is_affine() -> None:
    service = Service.affine(1.053, 5.072)
    assert [service.ms(n) for n in (1, 2, 7, 32, 1000)] == pytest.approx(
        [1.053 * n + 5.072 for n in (1, 2, 7, 32, 1000)]
    )
    assert service.capacity_per_second(32) == pytest.approx(32e3 / (1.053 * 32 + 5.072))


def test_a_table_is_interpolated_and_goes_on_with_its_last_slope() -> None:
    service = Service.table({16: 12, 1: 4, 8: 7.5})
    assert [service.ms(n) for n in (1, 2, 8, 12, 16, 18)] == pytest.approx([4, 4.5, 7.5, 9.75, 12, 13.125])
    assert [Service.table({4: 6, 8: 10}).ms(n) for n in (1, 4, 6)] == [6, 6, 8]
    assert [Service.table({4: 6}).ms(n) for n in (1, 4, 60)] == [6, 6, 6]
    assert [Service.table({1: 9, 2: 5}).ms(n) for n in (1, 2, 3)] == [9, 5, 5]
    assert PROFILES["efficientnet-b7"].ms(2) == 316.5


def test_batches_take_what_the_model_says() -> None:
    batches = simulate(Poisson(700), PROFILES["resnet"], policy="immediate").batches
    expected = [round(PROFILES["resnet"].ms(n) * 1e6) for n in batches.size.tolist()]
    assert len(set(expected)) > 20
    assert batches.service_ns.tolist() == expected


def test_noise_is_lognormal_with_mean_1() -> None:
    factors = service_ms(Service.affine(0, 10, noise=0.3), 200_000) / 10
    assert factors.mean() == pytest.approx(1, rel=0.005)
    assert np.log(factors).std() == pytest.approx(0.3, rel=0.01)
    assert np.log(factors).mean() == pytest.approx(-0.045, abs=0.005)


def test_spikes_come_with_their_probability_and_add_their_time() -> None:
    ms = service_ms(Service.affine(0, 10, spikes=(0.02, 60)), 100_000)
    assert set(ms) == {10, 70}
    assert (ms == 70).mean() == pytest.approx(0.02, rel=0.1)


def test_warm_up_slows_the_first_batches_and_drift_all_from_an_instant_on() -> None:
    service = Service.affine(0, 10, warm_up=(3, 20), drift=((1, 2), (1.5, 0.5)))
    assert service_ms(service, 8, gap_ms=250).tolist() == [200, 200, 200, 10, 20, 20, 5, 5]


def test_a_service_survives_a_pickle() -> None:
    service = Service.table({1: 4.0}, noise=0.1, drift=((1, 2),))
    assert pickle.loads(pickle.dumps(service)) == service
