"""Bounds of histograms, and what the engine learns of service times and of traffic."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from functools import partial

from stories import MS, US, Chance, affine, hurting, learned_by, stepwise

from batchcore.engine import Engine
from pybatch.metrics import DELAY_BOUNDS_NS, batch_size_bounds, exponential_buckets

TINY, LARGEST = math.ulp(0.0), sys.float_info.max

RANGES = [
    *((1, 2, end) for end in (1, 1.5, 2, 3, 20, 2**20, 2**30, math.ldexp(1, 158), math.ldexp(1, 160))),
    *((0.1, 3, end) for end in (0.3, 0.8, 0.9, 2.7, 8.1)),
    *((1e-4, factor, 60.0) for factor in (1.1, 1.2, 1.3, 1.5, math.sqrt(2), math.e, 3.7, 10)),
    *((start, 1.1, 17.449402268886445) for start in (1e-3, 0.7, 1, 5)),
    *((1e-9, 10, 1e9), (1e-9, 7.3, 1e9), (5, 2, 3), (1, 1.01, 1000), (1, 1e300, 1e308), (1 / 3, 1.7, 1e6)),
    *((TINY, 2, 9 * TINY), (TINY, 1.1, 1.0), (TINY, 1e6, 1.0), (TINY, LARGEST, LARGEST), (LARGEST / 2, 1.5, LARGEST)),
]


def buckets() -> Iterator[str]:
    for start, factor, end in RANGES:
        try:
            bounds = exponential_buckets(start, factor, end)
        except ValueError:
            yield f"{start!r} * {factor!r} to {end!r}: refused"
            continue
        yield f"{start!r} * {factor!r} to {end!r}: {len(bounds)} bounds"
        yield from (" ".join(bound.hex() for bound in bounds[i : i + 8]) for i in range(0, len(bounds), 8))
    for size in (1, 2, 3, 20, 32, 1000, 2**20, 2**30 - 1, 2**30):
        yield f"batches of {size}: {' '.join(map(str, batch_size_bounds(size)))}"
    yield f"delays: {' '.join(map(str, DELAY_BOUNDS_NS))}"


def noisy(load: int, chance: Chance) -> int:
    return affine(load) * (60 + chance.below(80)) // 100


def wild(load: int, chance: Chance) -> int:
    return 1 << chance.below(50)


def to_and_fro(load: int, chance: Chance) -> int:
    return chance.one_of(1, 1, 1, 1, 1, 1, 1, 5) * (20 * MS if load > 30 else 5 * MS)


def cached(load: int, chance: Chance) -> int:
    return 1 + (chance.below(3 * MS) if chance.below(10) < 3 else chance.below(12 * US))


def warming_up() -> Callable[[int, Chance], int]:
    colds = iter([900, 300, 90])
    return lambda load, chance: affine(load) * next(colds, 1)


def drifting() -> Callable[[int, Chance], int]:
    factors = iter([4] * 60 + [8] * 60 + [3] * 60)
    return lambda load, chance: noisy(load, chance) * next(factors, 4) // 4


SIZES = (1, 2, 3, 7, 8, 16, 31, 32)
LOADS = (1, 2, 40, 63, 64, 65, 100, 3_000, 123_456, 2**31 - 1)
SHOWN = (1, 2, 3, 4, 6, 10, 20, 50, 100, 200)

HISTORIES: dict[str, tuple[Callable[[], Callable[[int, Chance], int]], tuple[int, ...]]] = {
    "affine": (lambda: lambda load, chance: affine(load), SIZES),
    "steps": (lambda: lambda load, chance: stepwise(load), SIZES),
    "batches hurt": (lambda: lambda load, chance: hurting(load), (1, 2, 3, 4, 8)),
    "one size": (lambda: noisy, (8,)),
    "noisy": (lambda: noisy, SIZES),
    "wild": (lambda: wild, SIZES),
    "to and fro": (lambda: to_and_fro, (5, 31, 32)),
    "a cache": (lambda: cached, SIZES),
    "warming up": (warming_up, SIZES),
    "drifting": (drifting, SIZES),
    "noisy, weighed": (lambda: noisy, LOADS),
    "wild, weighed": (lambda: wild, LOADS),
}


def costs(name: str, seed: int) -> Iterator[str]:
    """What is believed after some batches of a history."""
    make, loads = HISTORIES[name]
    weighed = max(loads) > 32
    engine = Engine(max_batch_weight=2**31 - 1 if weighed else None)
    chance, service, now = Chance(seed), make(), 0
    for count in range(1, SHOWN[-1] + 1):
        load = chance.one_of(*loads)
        if weighed:
            engine.submit(now, weight=load)
        else:
            for _ in range(load):
                engine.submit(now)
        decision = engine.decide(now)
        now += service(load, chance)
        engine.complete(now, decision)
        if count in SHOWN:
            yield f"after {count} batches, {load} last"
            yield from learned_by(engine, now)


def cost_models() -> Iterator[str]:
    """What is known beforehand, of batches up to the largest."""
    for table in (
        [(1, 1)],
        [(1, 3 * MS), (8, 4 * MS), (32, 20 * MS)],
        [(n, affine(n)) for n in (1, 2, 64, 65, 1_000, 33_333, 1_048_576)],
        [(1_048_576, 10**16), (1, 10**16)],
        [(3, 7), (5, 11), (7, 13), (11, 17)],
    ):
        yield f"given {table}"
        yield from learned_by(Engine(cost_model=table), 0)


GAPS: dict[str, tuple[int, ...]] = {
    "steady": (MS,),
    "any": (0, 7, 20 * US, 333_333, MS, 12_345_678),
    "slow": (400 * MS, 3_000 * MS),
    "with silences": (*[50 * US] * 30, 20_000 * MS),
}


def traffic(name: str, seed: int) -> Iterator[str]:
    """The rate, while requests come and some time after."""
    engine, chance, now = Engine(capacity=0), Chance(seed), 0
    for count in range(1, 301):
        engine.submit(now)
        now += chance.one_of(*GAPS[name])
        if count % 30 == 0 or count < 4:
            rates = [engine.learned(now + later).arrivals_per_second.hex() for later in (0, MS, 200 * MS, 10_000 * MS)]
            yield f"{count} until {now}: {' '.join(rates)}"


LEARNING: dict[str, Callable[[], Iterator[str]]] = {
    "buckets": buckets,
    "cost models": cost_models,
    **{f"costs, {name}": partial(costs, name, seed) for seed, name in enumerate(HISTORIES)},
    **{f"traffic, {name}": partial(traffic, name, seed) for seed, name in enumerate(GAPS)},
}
