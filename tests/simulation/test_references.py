"""The references against brute force, against closed forms, and against each other."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pybatch.simulation import references, smdp
from pybatch.simulation.references import (
    gather_per_second,
    immediate_bound_ms,
    immediate_mean_latency_ms,
    offline_goodput,
    saturated_per_second,
    smdp_optimum,
    stagger_latency_ms,
)


def affine(per_item_ms: float, per_batch_ms: float, most: int = 32) -> list[float]:
    return [per_item_ms * size + per_batch_ms for size in range(1, most + 1)]


RESNET, BERT, V100, CPU = affine(1.053, 5.072), affine(0.05, 10.2), affine(0.1438, 1.8874), affine(1.0, 0.05)
EFFICIENTNET = [52.5, 316.5, 363.0, 409.6, 425.0, 440.0, 455.0, 471.0]
CAPACITY = saturated_per_second(RESNET)


def poisson_ns(per_second: float, count: int, seed: int = 0) -> np.ndarray:
    return (np.cumsum(np.random.default_rng(seed).exponential(1e9 / per_second, count))).astype(np.int64)


def clairvoyant_goodput(arrivals: Sequence[int], service: Sequence[int], slo: int) -> float:
    """Try every schedule: any set of requests as the next batch, in any order, late ones as company included."""

    @cache
    def most(free_at: int, left: tuple[int, ...]) -> int:
        best = 0
        for size in range(1, min(len(service), len(left)) + 1):
            for batch in itertools.combinations(left, size):
                finish = max(free_at, *(arrivals[one] for one in batch)) + service[size - 1]
                good = sum(finish <= arrivals[one] + slo for one in batch)
                if good:
                    best = max(best, good + most(finish, tuple(one for one in left if one not in batch)))
        return best

    return most(min(arrivals), tuple(range(len(arrivals)))) / len(arrivals)


def best_mean_latency_ms(service: Sequence[float], rate: float, last: int = 50) -> float:
    """Try every policy that is constant from five queued on, with batches of up to two, by its stationary law."""
    count = np.arange(last + 1)
    chance = [np.exp(-rate * time) * np.cumprod([1.0, *(rate * time / count[1:])]) for time in service]

    def mean_latency(actions: Sequence[int]) -> float:
        moves, times, costs = np.zeros((last + 1, last + 1)), np.empty(last + 1), np.empty(last + 1)
        for queued, size in enumerate(actions):
            if size:
                left = queued - size
                moves[queued, left:] = chance[size - 1][: last + 1 - left]
                moves[queued, last] += 1.0 - moves[queued].sum()
                times[queued] = service[size - 1]
            else:
                moves[queued, queued + 1] = 1.0
                times[queued] = 1.0 / rate
            costs[queued] = queued * times[queued] + (rate * times[queued] ** 2 / 2 if size else 0.0)
        equations = np.vstack([moves.T - np.eye(last + 1), np.ones(last + 1)])
        share = np.linalg.lstsq(equations, np.append(np.zeros(last + 1), 1.0), rcond=None)[0]
        return float(share @ costs / (share @ times) / rate)

    choices = itertools.product((0, 1), (0, 1, 2), (0, 1, 2), (1, 2), (1, 2))
    return min(mean_latency([0, *few, *[tail] * (last - 4)]) for *few, tail in choices)


@pytest.mark.parametrize(
    ("service", "load", "mean_ms"),
    [(RESNET, 0.05, 6.95), (RESNET, 0.5, 14.98), (BERT, 0.5, 16.46), (V100, 0.9, 8.25), (CPU, 0.7, 2.49)],
)
def test_the_optimum_has_the_known_figures(service: list[float], load: float, mean_ms: float) -> None:
    optimum = smdp_optimum(service, load * saturated_per_second(service))
    assert optimum.mean_ms == pytest.approx(mean_ms, abs=0.006)


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("service", [RESNET, BERT, V100])
def test_immediate_is_near_the_optimum_where_batching_pays(service: list[float], load: float) -> None:
    rate = load * saturated_per_second(service)
    best, immediate = smdp_optimum(service, rate).mean_ms, immediate_mean_latency_ms(service, rate)
    assert best <= immediate * (1 + 1e-9)
    assert immediate <= 1.0065 * best


def test_splitting_beats_immediate_where_batching_does_not_pay() -> None:
    optimum = smdp_optimum(CPU, 0.7 * saturated_per_second(CPU))
    assert optimum.batch_sizes[:4] == (0, 1, 1, 1)
    assert immediate_mean_latency_ms(CPU, 0.7 * saturated_per_second(CPU)) > 1.14 * optimum.mean_ms


def test_without_batching_the_optimum_is_the_queue_with_constant_service() -> None:
    for load in (0.3, 0.6, 0.9):  # Pollaczek and Khinchine; a size that hurts must change nothing
        expected = 52.5 * (1 + load / (2 * (1 - load)))
        assert smdp_optimum([52.5], load / 52.5 * 1e3).mean_ms == pytest.approx(expected, rel=1e-9)
        optimum = smdp_optimum(EFFICIENTNET, load / 52.5 * 1e3)
        assert optimum.mean_ms == pytest.approx(expected, rel=1e-9)
        assert set(optimum.batch_sizes[1:]) == {1}


@pytest.mark.parametrize("load", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_immediate_has_its_closed_form(load: float) -> None:
    rate = load / 0.1438 * 1e3
    exact, bound = (
        immediate_mean_latency_ms(affine(0.1438, 1.8874, 300), rate),
        immediate_bound_ms(0.1438, 1.8874, rate),
    )
    assert exact <= bound * (1 + 1e-8)
    if load >= 0.5:
        assert exact == pytest.approx(bound, rel=1e-6)


@pytest.mark.parametrize(("load", "limit"), [(0.3, 2), (0.5, 3), (0.7, 4), (0.9, 5)])
def test_the_optimum_starts_at_its_control_limit(load: float, limit: int) -> None:
    optimum = smdp_optimum(V100, load * saturated_per_second(V100))
    assert optimum.control_limit == limit
    assert optimum.batch_sizes[:limit] == (0,) * limit
    assert optimum.batch_sizes[limit:25] == tuple(range(limit, 25))


@pytest.mark.parametrize(
    ("service", "rate"), [([3.0, 4.0], 0.2), ([3.0, 3.1], 0.4), ([2.0, 3.0], 0.4), ([1.0, 4.0], 0.2)]
)
def test_the_optimum_is_the_best_of_all_policies(service: list[float], rate: float) -> None:
    assert smdp_optimum(service, rate * 1e3).mean_ms == pytest.approx(best_mean_latency_ms(service, rate), rel=1e-9)


def test_heavy_load_needs_no_more_states(monkeypatch: pytest.MonkeyPatch) -> None:
    def more(self: smdp._Chain, service: smdp.Floats, per_second: float) -> None:
        before(self, service, per_second)
        self.last *= 3
        self.queued = np.arange(self.last + 1)

    rate = 0.995 * CAPACITY
    few = smdp_optimum(RESNET, rate).mean_ms, immediate_mean_latency_ms(RESNET, rate)
    before = smdp._Chain.__init__
    monkeypatch.setattr(smdp._Chain, "__init__", more)
    assert few == pytest.approx((smdp_optimum(RESNET, rate).mean_ms, immediate_mean_latency_ms(RESNET, rate)), rel=1e-9)


@given(
    arrivals=st.lists(st.integers(0, 15), min_size=1, max_size=5).map(sorted),
    service=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    slo=st.integers(0, 20),
    chunk=st.sampled_from([1, 2, 256]),
)
def test_goodput_is_that_of_all_schedules(arrivals: list[int], service: list[int], slo: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "CHUNK", chunk)
        arrivals_ns = [at * 1_000_000 for at in arrivals]
        rising = sorted(service)
        assert offline_goodput(arrivals_ns, rising, slo) == clairvoyant_goodput(arrivals, rising, slo)
        assert offline_goodput(arrivals_ns, service, slo) >= clairvoyant_goodput(arrivals, service, slo)


def test_goodput_does_not_depend_on_when_it_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    arrivals = poisson_ns(1.2 * CAPACITY, 700)
    expected = offline_goodput(arrivals, RESNET, 50.0)
    for chunk in (1, 7, 700):
        monkeypatch.setattr(references, "CHUNK", chunk)
        assert offline_goodput(arrivals, RESNET, 50.0) == expected


def test_goodput_of_the_known_scenarios() -> None:
    # 64.6 % and 90.4 % are reached by rules that know no future; the optimum is a little above.
    assert 0.63 < np.mean([offline_goodput(poisson_ns(1.5 * CAPACITY, 4000, s), RESNET, 50.0) for s in range(3)]) < 0.68
    assert 0.905 < np.mean([offline_goodput(poisson_ns(599.2, 4000, seed), RESNET, 25.0) for seed in range(3)]) < 0.94
    assert offline_goodput(poisson_ns(0.5 * CAPACITY, 2000), RESNET, 100.0) == 1.0
    assert offline_goodput(poisson_ns(0.5 * CAPACITY, 20), RESNET, 6.0) == 0.0


def test_goodput_is_bounded_by_capacity_and_grows_with_the_slo() -> None:
    arrivals = poisson_ns(3.0 * CAPACITY, 2000)
    shares = [offline_goodput(arrivals, RESNET, slo) for slo in (10, 20, 50, 100, 500)]
    assert shares == sorted(shares)
    span_s = (arrivals[-1] - arrivals[0]) / 1e9 + 0.5
    assert shares[-1] * len(arrivals) <= CAPACITY * span_s


def test_saturation() -> None:
    assert saturated_per_second(RESNET) == pytest.approx(32e3 / 38.768)
    assert saturated_per_second(RESNET, slo_ms=25.0, workers=4) == pytest.approx(4e3 * 18 / 24.026)
    assert saturated_per_second(EFFICIENTNET) == pytest.approx(1e3 / 52.5)
    assert saturated_per_second(RESNET, slo_ms=6.0) == 0.0


@pytest.mark.parametrize(
    ("service", "clients", "per_second"),
    [(BERT, 1, 94.3), (BERT, 2, 185), (BERT, 4, 361), (BERT, 16, 1326), (RESNET, 16, 696), (BERT, 48, 2655)],
)
def test_gathering_clients(service: list[float], clients: int, per_second: float) -> None:
    assert gather_per_second(service, clients) == pytest.approx(per_second, rel=0.003)


def test_gathering_never_beats_saturation_or_what_clients_can_ask_for() -> None:
    for clients in (1, 3, 16, 40, 64, 1000):
        for service in (RESNET, BERT, CPU, EFFICIENTNET):
            rate = gather_per_second(service, clients)
            assert rate <= saturated_per_second(service) * (1 + 1e-12)
            assert rate <= 1e3 * clients / (0.35 + min(service)) * (1 + 1e-12)
    assert gather_per_second(RESNET, 1000) == pytest.approx(CAPACITY)


def test_gathering_waits_for_the_order_statistic_it_says() -> None:
    draw = random.Random(0)
    latest = [max(0.05 + draw.expovariate(1 / 0.3) for _ in range(16)) for _ in range(20_000)]
    assert gather_per_second(BERT, 16) == pytest.approx(16e3 / (BERT[15] + np.mean(latest)), rel=0.002)


@pytest.mark.parametrize(("workers", "load", "mean_ms"), [(2, 0.5, 13.7), (4, 0.5, 12.3), (8, 0.8, 12.16)])
def test_staggered_workers(workers: int, load: float, mean_ms: float) -> None:
    rate = load * workers * saturated_per_second(BERT)
    assert stagger_latency_ms(BERT, rate, workers) == pytest.approx(mean_ms, abs=0.05)
    cycle = rate / 1e3 / workers  # the closed form for affine service
    latency = (0.05 * cycle * 10.2 / (1 - cycle * 0.05) + 10.2) * (1 + 0.5 / workers)
    assert stagger_latency_ms(BERT, rate, workers) == pytest.approx(latency)


def test_staggered_workers_with_little_to_do_serve_singly() -> None:
    assert stagger_latency_ms(BERT, 1.0, workers=4) == pytest.approx(10.25 * 1.125)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: smdp_optimum([], 1.0), "service_ms"),
        (lambda: smdp_optimum([1.0, 0.0], 1.0), "positive"),
        (lambda: smdp_optimum([1.0, float("nan")], 1.0), "positive"),
        (lambda: smdp_optimum(RESNET, 0.0), "per_second"),
        (lambda: smdp_optimum(RESNET, CAPACITY * 1.001), "give a lower rate"),
        (lambda: immediate_mean_latency_ms(EFFICIENTNET, 18.0), "batches of 8 serve 16.98"),
        (lambda: immediate_bound_ms(1.0, 1.0, 1000.0), "per_second"),
        (lambda: offline_goodput([], RESNET, 50.0), "at least one"),
        (lambda: offline_goodput([2, 1], RESNET, 50.0), "sorted"),
        (lambda: offline_goodput([1], RESNET, -1.0), "slo_ms"),
        (lambda: saturated_per_second(RESNET, workers=0), "workers"),
        (lambda: gather_per_second(RESNET, 0), "clients"),
        (lambda: gather_per_second(RESNET, 1, think_ms=-1.0), "think_ms"),
        (lambda: stagger_latency_ms(RESNET, 2.001 * CAPACITY, 2), "give a lower rate"),
    ],
)
def test_bad_arguments_are_named(call: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()  # type: ignore[operator]
