"""The cost model: what the engine learns about service times from the batches that it saw."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from reference import ReferenceCost

from batchcore.engine import MAX_DURATION_NS, Engine

US = 1_000

History = list[tuple[int, int]]

histories = st.lists(st.tuples(st.integers(1, 64), st.integers(0, 10**10)), min_size=1, max_size=60)


def taught(history: Iterable[tuple[int, int]]) -> Engine:
    """An engine that has seen batches of these (size, service time)."""
    engine, now = Engine(max_batch_size=64), 0
    for size, service_ns in history:
        for _ in range(size):
            engine.submit(now)
        decision = engine.decide(now)
        assert len(decision.batch) == size
        now += service_ns
        engine.complete(now, decision)
    return engine


def test_nothing_is_predicted_before_the_first_completion() -> None:
    engine = Engine()
    assert engine.predict_ns(1) is None
    engine.submit(0)
    decision = engine.decide(0)
    assert engine.predict_ns(1) is None
    engine.complete(7, decision)
    assert engine.predict_ns(1) == 7


@given(st.integers(1, 64), st.integers(0, 10**10), st.integers(1, 50))
def test_one_size_teaches_a_constant(size: int, service_ns: int, batches: int) -> None:
    engine = taught([(size, service_ns)] * batches)
    for asked in (1, size, 64, 1_000_000):
        assert engine.predict_ns(asked) == pytest.approx(service_ns, abs=1)  # the last digit of a double


def test_the_constant_follows_the_latest_batches() -> None:
    prediction = taught([(8, 100 * US)] * 20 + [(8, 200 * US)] * 20).predict_ns(8)
    assert prediction is not None
    assert 150 * US < prediction < 200 * US


@given(
    slope=st.integers(0, 10**6),
    intercept=st.integers(0, 10**8),
    sizes=st.lists(st.integers(1, 64), min_size=2, max_size=60).filter(lambda sizes: len(set(sizes)) > 1),
)
def test_an_affine_law_is_learned(slope: int, intercept: int, sizes: list[int]) -> None:
    engine = taught((size, slope * size + intercept) for size in sizes)
    for asked in range(1, 65):
        # The farthest extrapolation is from two batches of neighbouring sizes to 64.
        assert engine.predict_ns(asked) == pytest.approx(slope * asked + intercept, rel=1e-6, abs=10)


def test_the_law_of_today_replaces_the_law_of_yesterday() -> None:
    sizes = [1, 2, 4, 8, 16, 32, 64]
    yesterday = [(size, 1_000 * US + size * 50 * US) for size in sizes] * 50
    today = [(size, 3_000 * US + size * 10 * US) for size in sizes] * 150
    assert taught(yesterday + today).predict_ns(32) == pytest.approx(3_320 * US, rel=1e-3)


def test_a_larger_batch_is_never_predicted_to_be_faster() -> None:
    engine = taught([(1, 500 * US), (64, 100 * US)] * 10)
    predictions = {engine.predict_ns(asked) for asked in (1, 32, 64)}
    assert len(predictions) == 1
    prediction = predictions.pop()
    assert prediction is not None
    assert 100 * US < prediction < 500 * US


def test_a_batch_of_one_is_never_predicted_to_cost_less_than_its_share() -> None:
    history = [(size, size * size * US) for size in (10, 20, 30, 40)]  # the straight line meets zero at 9
    engine = taught(history)
    one, ten = engine.predict_ns(1), engine.predict_ns(10)
    assert one is not None
    assert ten is not None
    assert one > 0
    assert ten == pytest.approx(10 * one, abs=10)


@example([(1, 0), (2, MAX_DURATION_NS)])  # a million times this slope is beyond 64 bits
@given(histories)
def test_predictions_are_never_negative_and_never_fall_with_size(history: History) -> None:
    engine = taught(history)
    predictions = [engine.predict_ns(asked) for asked in (1, 2, 10, 64, 1_000_000)]
    assert None not in predictions
    assert predictions == sorted(predictions)  # type: ignore[type-var]
    assert predictions[0] >= 0  # type: ignore[operator]


@given(histories)
def test_the_fit_is_the_documented_one_to_the_bit(history: History) -> None:
    engine, reference = taught(history), ReferenceCost()
    for size, service_ns in history:
        reference.learn(size, service_ns)
    for asked in (1, 2, 10, 64):
        assert engine.predict_ns(asked) == reference.predict(asked)


@given(histories)
def test_the_same_history_teaches_the_same(history: History) -> None:
    once, again = taught(history), taught(history)
    assert [once.predict_ns(n) for n in range(1, 65)] == [again.predict_ns(n) for n in range(1, 65)]


def test_a_failed_batch_teaches_as_well() -> None:
    engine = Engine()
    engine.submit(0)
    engine.complete(9, engine.decide(0), failed=1)
    assert engine.predict_ns(1) == 9


def test_a_refused_completion_teaches_nothing() -> None:
    engine = Engine()
    engine.submit(0)
    with pytest.raises(ValueError, match="failed"):
        engine.complete(9, engine.decide(0), failed=2)
    assert engine.predict_ns(1) is None
