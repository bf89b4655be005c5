"""The random numbers: those of the published generators, turned into the distributions that they are said to have."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from pybatch.simulation import MMPP, Bursts, ClosedLoop, Gamma, Mixed, Poisson, Service, Workload, simulate

INSTANT = Service.affine(0, 1e-6)
WORD = 2**64 - 1


def gaps_ms(workload: Workload, requests: int = 200_000, seed: int = 1) -> np.ndarray:
    """Return the gaps between arrivals, the first one from the start."""
    result = simulate(workload, INSTANT, policy="immediate", requests=requests, seed=seed)
    return np.diff(result.arrival_ns, prepend=0) / 1e6


def scramble(x: int) -> int:
    """Return the output function of splitmix64."""
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & WORD
    return x ^ x >> 31


class Generator:
    """Plain xoshiro256++ with the library's logarithm, as an oracle."""

    def __init__(self, seed: int, stream: int) -> None:
        golden = 0x9E3779B97F4A7C15
        x = scramble(scramble(seed + golden & WORD) + stream & WORD)
        self.s = [scramble(x + k * golden & WORD) for k in range(1, 5)]

    def uniform(self) -> float:
        s = self.s
        total = s[0] + s[3] & WORD
        bits = ((total << 23 | total >> 41) & WORD) + s[0] & WORD
        shifted = s[1] << 17 & WORD
        s[2] ^= s[0]
        s[3] ^= s[1]
        s[1] ^= s[2]
        s[0] ^= s[3]
        s[2] ^= shifted
        s[3] = (s[3] << 45 | s[3] >> 19) & WORD
        return (bits >> 11) / 2**53

    def exponential(self) -> float:
        return -math.log(1.0 - self.uniform())

    def normal(self) -> float:
        while True:
            x, y = 2.0 * self.uniform() - 1.0, 2.0 * self.uniform() - 1.0
            if 0.0 < x * x + y * y < 1.0:
                return x * math.sqrt(-2.0 * math.log(x * x + y * y) / (x * x + y * y))


@pytest.mark.parametrize("seed", [0, 1, 7, 2**63 - 1])
def test_arrivals_are_those_of_the_published_generator_to_the_nanosecond(seed: int) -> None:
    generator, gaps = Generator(seed, 1 << 32), []
    for _ in range(3000):
        gaps.append(generator.exponential() * 1e9 / 250)
        generator.uniform()  # which class of deadlines the request is in
    result = simulate(Poisson(250), INSTANT, policy="immediate", requests=3000, seed=seed)
    assert np.abs(np.diff(result.arrival_ns, prepend=0) - gaps).max() <= 0.500001


def test_noise_is_that_of_the_published_generator() -> None:
    generator, noise = Generator(3, 0), 0.4
    result = simulate(Poisson(10), Service.affine(0, 100, noise=noise), policy="immediate", requests=2000, seed=3)
    factors = [math.exp(noise * generator.normal() - noise**2 / 2) for _ in result.batches.service_ns]
    assert result.batches.service_ns / 1e8 == pytest.approx(factors, rel=1e-7)


def test_streams_have_nothing_in_common() -> None:
    result = simulate(Mixed(Poisson(1000), Poisson(1000)), INSTANT, policy="immediate", requests=200_000)
    first, second = (np.diff(result.arrival_ns[result.source == i])[:90_000] for i in range(2))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert not np.array_equal(gaps_ms(Poisson(1000), 1000, seed=1), gaps_ms(Poisson(1000), 1000, seed=2))


@pytest.mark.parametrize("cv", [0.1, 0.5, 1.0, 2.0, 4.0])
def test_gamma_gaps_have_the_mean_and_the_variation_asked_for(cv: float) -> None:
    gaps = gaps_ms(Gamma(500, cv), 400_000)
    assert gaps.mean() == pytest.approx(2.0, rel=0.01 * max(1, cv))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_gamma_gaps_have_the_skewness_of_a_gamma_distribution() -> None:
    for cv in (0.5, 2.0):
        gaps = gaps_ms(Gamma(500, cv), 400_000)
        assert (((gaps - gaps.mean()) / gaps.std()) ** 3).mean() == pytest.approx(2 * cv, rel=0.1)


def test_poisson_gaps_are_exponential() -> None:
    gaps = gaps_ms(Poisson(500))
    assert gaps.mean() == pytest.approx(2.0, rel=0.01)
    for q in (0.1, 0.5, 0.9, 0.99, 0.999):
        assert np.quantile(gaps, q) == pytest.approx(-2.0 * math.log(1 - q), rel=0.05)
    assert abs(np.corrcoef(gaps[:-1], gaps[1:])[0, 1]) < 0.01


def test_mmpp_spends_its_time_in_two_phases() -> None:
    gaps = gaps_ms(MMPP((4000, 500), mean_ms=(50, 150)), 400_000)
    assert 1e3 / gaps.mean() == pytest.approx((4000 * 50 + 500 * 150) / 200, rel=0.05)
    assert gaps.std() / gaps.mean() > 1.5
    silent = gaps_ms(MMPP((1000, 0), mean_ms=(20, 80)))
    assert 1e3 / silent.mean() == pytest.approx(200, rel=0.05)
    assert silent[silent > 40].mean() == pytest.approx(120, rel=0.1)  # exponential: forgets the first 40


def test_bursts_start_independently_and_have_the_sizes_asked_for() -> None:
    gaps = gaps_ms(Bursts(every_ms=1000, size=(3, 6), gap_ms=0.01))
    starts = np.flatnonzero(gaps > 1)
    sizes = np.diff(starts)
    close = sizes <= 6  # a few bursts overlap
    assert close.mean() > 0.99
    assert np.bincount(sizes[close])[3:] / close.sum() == pytest.approx([0.25] * 4, abs=0.01)
    assert gaps[gaps < 1].mean() == pytest.approx(0.01, rel=0.02)
    assert 1e3 / gaps.mean() == pytest.approx(4.5, rel=0.02)


def test_bursts_that_overlap_keep_their_rate() -> None:
    assert 1e3 / gaps_ms(Bursts(every_ms=5, size=(8, 24), gap_ms=2)).mean() == pytest.approx(3200, rel=0.02)


def test_clients_think_as_long_as_asked() -> None:
    result = simulate(ClosedLoop(1, return_ms=2, think_ms=5), INSTANT, policy="immediate", requests=50_000)
    pauses = np.array([b - a for a, b in pairwise(result.arrival_ns)]) / 1e6
    assert pauses.min() >= 2
    assert (pauses - 2).mean() == pytest.approx(5, rel=0.02)
    assert (pauses - 2).std() == pytest.approx(5, rel=0.03)
