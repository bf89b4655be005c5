"""The cost model: what the engine learns about service times from the batches that it saw."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference_learning import ReferenceCost

from batchcore.engine import MAX_BATCH_SIZE, MAX_DURATION_NS, Engine

US = 1_000
MS = 1_000_000

History = Iterable[tuple[int, int]]

sizes = st.integers(1, 64)
histories = st.lists(st.tuples(sizes, st.integers(0, 10**10)), min_size=1, max_size=60)


def teach(engine: Engine, history: History, *, failed: int = 0) -> Engine:
    """Let it see batches of these (size, service time)."""
    now = engine.decide(0).at_ns
    for size, service_ns in history:
        for _ in range(size):
            engine.submit(now)
        decision = engine.decide(now)
        assert len(decision.batch) == size
        now += service_ns
        engine.complete(now, decision, failed=failed)
    return engine


def taught(history: History, cost_model: Sequence[tuple[int, int]] = ()) -> Engine:
    return teach(Engine(max_batch_size=64, cost_model=cost_model), history)


def predicted_ms(engine: Engine, size: int) -> float:
    prediction = engine.predict_ns(size)
    assert prediction is not None
    return prediction / MS


def affine(size: int) -> int:
    return 5 * MS + size * MS


# What is learned


def test_nothing_is_predicted_before_the_first_completion() -> None:
    engine = Engine()
    assert engine.predict_ns(1) is None
    engine.submit(0)
    decision = engine.decide(0)
    assert engine.predict_ns(1) is None
    engine.complete(7, decision)
    assert engine.predict_ns(1) == 7


@given(sizes, st.integers(1, 10**10), st.integers(1, 50))
def test_a_size_that_takes_the_same_each_time_is_predicted_to(size: int, service_ns: int, batches: int) -> None:
    engine = taught([(size, service_ns)] * batches)
    assert engine.predict_ns(size) == pytest.approx(service_ns, rel=1e-9, abs=1)


@pytest.mark.parametrize("size", [1, 8, 50])
def test_from_one_size_alone_a_request_is_taken_to_cost_a_tenth_of_the_mean(size: int) -> None:
    engine = taught([(size, 100 * MS)] * 20)
    for asked in (1, 2 * size, 64):
        assert predicted_ms(engine, asked) == pytest.approx(90 + 10 * asked / size, rel=1e-6)


@given(
    slope=st.integers(0, 10**6),
    intercept=st.integers(0, 10**8),
    seen=st.lists(sizes, min_size=2, max_size=60).filter(lambda seen: len(set(seen)) > 1),
)
def test_an_affine_law_is_learned(slope: int, intercept: int, seen: list[int]) -> None:
    engine = taught((size, slope * size + intercept) for size in seen)
    for asked in range(1, 65):
        # The farthest extrapolation is from two batches of neighbouring sizes to 64.
        assert engine.predict_ns(asked) == pytest.approx(slope * asked + intercept, rel=1e-3, abs=10)


def test_a_table_with_a_cliff_is_learned_size_by_size() -> None:
    table = {1: 52_500, 2: 316_500, 4: 409_600, 8: 471_000}  # microseconds: batches hurt
    engine = taught([(size, us * US) for size, us in table.items()] * 30)
    for size, us in table.items():
        assert engine.predict_ns(size) == pytest.approx(us * US, rel=0.02)


def test_sizes_above_64_share_what_they_learn_with_their_eighth_of_an_octave() -> None:
    engine = teach(Engine(max_batch_size=2_000), [(1_024, 100 * MS), (1_100, 100 * MS), (10, MS)] * 10)
    assert predicted_ms(engine, 1_060) == pytest.approx(100, rel=0.05)
    far = predicted_ms(engine, 1_500)
    assert far == pytest.approx(100 * 1_500 / 1_060, rel=0.2)  # as the law says


def test_the_law_fills_in_where_batches_are_few() -> None:
    engine = taught([(size, affine(size)) for size in (1, 2, 4, 8, 16, 32)] * 10)
    teach(engine, [(20, 2 * affine(20))])
    assert predicted_ms(engine, 20) == pytest.approx(1.5 * 25, rel=0.05)  # half of what one odd batch said


def test_a_batch_of_one_is_never_predicted_to_cost_less_than_its_share() -> None:
    history = [(size, size * size * US) for size in (10, 20, 30, 40)]  # the straight line meets zero at 9
    one, five = (taught(history).predict_ns(n) for n in (1, 5))
    assert one is not None
    assert one > 0
    assert five == pytest.approx(5 * one, abs=5)


def test_noise_averages_out() -> None:
    chance = random.Random(1)
    seen = chance.choices(range(1, 33), k=600)
    engine = taught((size, int(affine(size) * chance.lognormvariate(0, 0.1))) for size in seen)
    for size in (1, 4, 16, 32):
        assert engine.predict_ns(size) == pytest.approx(affine(size), rel=0.1)


def test_noise_is_measured() -> None:
    chance = random.Random(2)
    noisy = taught([(8, int(10 * MS * chance.lognormvariate(0, 0.2))) for _ in range(600)])
    assert noisy.learned(0).deviation == pytest.approx(0.16, abs=0.08)
    assert taught([(8, 10 * MS)] * 600).learned(0).deviation < 1e-9


# What is odd, and what is a change


def test_a_slow_first_batch_is_forgotten_with_the_first_normal_one() -> None:
    engine = taught([(4, 20 * affine(4))])
    assert predicted_ms(engine, 4) == pytest.approx(180)
    teach(engine, [(4, affine(4))])
    assert predicted_ms(engine, 4) == pytest.approx(9, rel=0.01)


def test_a_single_slow_batch_is_clipped() -> None:
    engine = taught([(8, 10 * MS)] * 20)
    teach(engine, [(8, 600 * MS)])
    assert predicted_ms(engine, 8) <= 10.26  # a tenth of a quarter
    teach(engine, [(8, 10 * MS)] * 5)
    assert predicted_ms(engine, 8) == pytest.approx(10, rel=0.02)


def test_two_slow_batches_and_a_normal_one_are_no_change() -> None:
    engine = taught([(8, 10 * MS)] * 20)
    teach(engine, [(8, 60 * MS), (8, 60 * MS), (8, 10 * MS)] * 5)
    assert predicted_ms(engine, 8) < 13


@pytest.mark.parametrize("factor", [0.5, 2, 5])
def test_a_drift_is_followed_within_three_and_keeps_the_shape(factor: float) -> None:
    engine = taught([(size, affine(size)) for size in (1, 2, 4, 8, 16, 32)] * 10)
    teach(engine, [(4, int(factor * affine(4)))] * 3)
    for size in (1, 4, 32):
        assert engine.predict_ns(size) == pytest.approx(factor * affine(size), rel=0.06)


def test_a_cliff_keeps_its_shape_when_the_machine_slows_down() -> None:
    engine = taught([(1, 50 * MS), (2, 300 * MS), (8, 400 * MS)] * 20)
    teach(engine, [(2, 600 * MS)] * 3)
    assert predicted_ms(engine, 1) == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("run", [5, 10, 40])
def test_a_machine_that_goes_to_and_fro_leaves_the_sizes_it_does_not_run_where_they_were(run: int) -> None:
    engine = taught([(1, 5 * MS), (8, 10 * MS)] * 5)
    teach(engine, ([(8, 15 * MS)] * run + [(8, 10 * MS)] * run) * 30)
    assert 2 < predicted_ms(engine, 1) < 10


def test_the_law_of_today_replaces_the_law_of_yesterday() -> None:
    mix = [1, 2, 4, 8, 16, 32, 64]
    yesterday = [(size, 1_000 * US + size * 50 * US) for size in mix] * 50
    today = [(size, 3_000 * US + size * 10 * US) for size in mix] * 150
    assert predicted_ms(taught(yesterday + today), 32) == pytest.approx(3.32, rel=0.01)


# What teaches


def test_a_batch_that_failed_as_a_whole_teaches_nothing() -> None:
    engine = teach(Engine(), [(2, 9)], failed=2)
    assert engine.predict_ns(2) is None
    teach(engine, [(2, 9)], failed=1)
    assert engine.predict_ns(2) == 9


def test_a_refused_completion_teaches_nothing() -> None:
    engine = Engine()
    engine.submit(0)
    with pytest.raises(ValueError, match="failed"):
        engine.complete(9, engine.decide(0), failed=2)
    assert engine.predict_ns(1) is None


def test_what_is_known_beforehand_is_predicted_and_counts_as_three_batches() -> None:
    table = [(1, 3 * MS), (8, 4 * MS), (32, 20 * MS)]
    engine = Engine(cost_model=table)
    for size, service_ns in table:
        assert engine.predict_ns(size) == pytest.approx(service_ns, rel=0.15)
    seen = taught(pair for pair in table for _ in range(3))
    assert [engine.predict_ns(n) for n in range(1, 65)] == [seen.predict_ns(n) for n in range(1, 65)]


@pytest.mark.parametrize(
    ("cost_model", "error", "message"),
    [
        ([(0, 5)], ValueError, "size of cost_model"),
        ([(1, 5), (MAX_BATCH_SIZE + 1, 5)], ValueError, r"size of cost_model\[1\]"),
        ([(1, 0)], ValueError, "time of cost_model"),
        ([(1, MAX_DURATION_NS + 1)], ValueError, "time of cost_model"),
        ([(1, 1.5)], TypeError, "time of cost_model"),
        ([5], TypeError, r"cost_model\[0\]"),
        ([(1, 2, 3)], TypeError, r"cost_model\[0\]"),
    ],
)
def test_what_is_known_beforehand_is_checked(
    cost_model: list[tuple[int, int]], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Engine(cost_model=cost_model)


# Bounds


@example([(1, 0), (2, MAX_DURATION_NS)])  # a million times this slope is beyond 64 bits
@example([(1, 1)] * 3 + [(2, MAX_DURATION_NS)] * 9 + [(1, MAX_DURATION_NS)] * 9 + [(2, 1)] * 9)
@given(histories)
def test_a_prediction_is_a_duration(history: list[tuple[int, int]]) -> None:
    engine = taught(history)
    for asked in (1, 2, 10, 64, MAX_BATCH_SIZE):
        prediction = engine.predict_ns(asked)
        assert prediction is not None
        assert 0 <= prediction <= MAX_DURATION_NS


def test_a_clock_that_jumps_by_centuries_teaches_no_more_than_the_longest_duration() -> None:
    engine = Engine()
    engine.submit(-(2**61))
    engine.complete(2**61, engine.decide(-(2**61)))
    assert engine.predict_ns(1) == MAX_DURATION_NS
    engine.submit(2**61)
    engine.decide(2**61)
    late = engine.submit(2**61, deadline_ns=2**61 + 5)
    assert engine.decide(2**61).expired == (late,)


KINDS: dict[str, Callable[[int, random.Random], float]] = {
    "affine": lambda n, chance: 5.0 + n,
    "noisy": lambda n, chance: (5.0 + n) * chance.lognormvariate(0, 0.4),
    "wild": lambda n, chance: chance.lognormvariate(0, 5),
    "to and fro": lambda n, chance: chance.choice([1, 1, 1, 1, 1, 1, 1, 5]) * (20.0 if n > 30 else 5.0),
}


@given(st.sampled_from(sorted(KINDS)), st.integers(0, 2**32), st.integers(1, 300))
def test_the_model_is_the_documented_one_to_the_bit(kind: str, seed: int, batches: int) -> None:
    chance = random.Random(seed)
    engine, reference = Engine(max_batch_size=200), ReferenceCost()
    few = chance.sample(range(1, 200), 5)
    for size in chance.choices(few, k=batches):
        service_ns = int(KINDS[kind](size, chance) * MS)
        teach(engine, [(size, service_ns)])
        reference.learn(size, service_ns)
    for asked in (1, 2, 63, 64, 65, 200, 5_000, *few):
        assert engine.predict_ns(asked) == reference.predict(asked)


@given(histories)
def test_the_same_history_teaches_the_same(history: list[tuple[int, int]]) -> None:
    once, again = taught(history), taught(history)
    assert [once.predict_ns(n) for n in range(1, 65)] == [again.predict_ns(n) for n in range(1, 65)]


@pytest.mark.parametrize("first_ms", [50, 500, 5000])
def test_a_slow_first_batch_takes_no_other_size_along(first_ms: int) -> None:
    """Sizes come as they like, and the first one paid for all that was cold."""
    for seed in range(20):
        rng = random.Random(seed)
        engine = taught([(4, first_ms * MS)])
        teach(engine, [(size, int(affine(size) * rng.uniform(0.9, 1.1))) for size in rng.choices(range(1, 17), k=100)])
        for size in range(1, 17):
            assert engine.predict_ns(size) == pytest.approx(affine(size), rel=0.25)


def test_times_that_make_no_sense_do_not_lead_far_from_what_was_measured() -> None:
    """A cache that hits or misses: 10 us, or in three of ten batches up to 3 ms, whatever their size."""
    rng = random.Random(1)
    engine = taught([(1, MS // 100)])
    for _ in range(10_000):
        ns = int(rng.random() * 3 * MS) if rng.random() < 0.3 else int(MS / 100 * rng.uniform(0.7, 1.3))
        teach(engine, [(rng.randint(1, 16), max(ns, 1))])
        assert max(engine.predict_ns(1), engine.predict_ns(16)) <= 8 * 3 * MS
