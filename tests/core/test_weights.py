"""What a batch may weigh, who is passed over for it, and who goes together where batches are padded."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference
from reference_lanes import MOST_PASSED

from batchcore.engine import MAX_WEIGHT, Engine, Request

MakeEngine = Callable[..., Engine]


def offer(engine: Engine, weights: list[int], now: int = 0, **options: Any) -> list[Request]:
    engine.set_capacity(now, 0)
    requests = [engine.submit(now, weight=weight, **options) for weight in weights]
    engine.set_capacity(now, 1)
    return requests


def serve(engine: Engine, now: int = 0) -> tuple[Request, ...]:
    decision = engine.decide(now)
    if decision.kind == "dispatch":
        engine.complete(now, decision)
    return decision.batch


def weights_of(engine: Engine) -> list[list[int]]:
    """Of all batches, until nothing is queued."""
    batches = []
    while batch := serve(engine):
        batches.append([request.weight for request in batch])
    return batches


def test_a_batch_is_filled_up_to_its_weight(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=10)
    offer(engine, [4, 4, 2, 1, 9, 1])
    assert weights_of(engine) == [[4, 4, 2], [1, 9], [1]]


def test_what_fits_goes_before_what_does_not_and_the_latter_keeps_its_place(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=10)
    first, heavy, light, last = offer(engine, [6, 7, 4, 3])
    assert serve(engine) == (first, light)
    offer(engine, [2])
    assert serve(engine) == (heavy, last)


def test_a_heavy_request_is_refused_or_runs_alone(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=10)
    with pytest.raises(ValueError, match=r"weight is 11, and max_batch_weight is 10; .* on_overweight='alone'"):
        engine.submit(0, weight=11)
    assert engine.stats().submitted == 0
    for padded in (False, True):
        engine = make_engine(max_batch_weight=10, overweight=True, padded=padded)
        offer(engine, [5, MAX_WEIGHT, 5, MAX_WEIGHT])
        assert weights_of(engine) == [[5, 5], [MAX_WEIGHT], [MAX_WEIGHT]]


@pytest.mark.parametrize("weight", [0, -1, MAX_WEIGHT + 1])
def test_a_weight_out_of_range_is_refused(make_engine: MakeEngine, weight: int) -> None:
    with pytest.raises(ValueError, match=f"weight is {weight}; it must be from 1 to {MAX_WEIGHT}"):
        make_engine(max_batch_weight=5, overweight=True).submit(0, weight=weight)


def test_without_a_limit_weights_say_nothing(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=3)
    offer(engine, [MAX_WEIGHT] * 4)
    assert weights_of(engine) == [[MAX_WEIGHT] * 3, [MAX_WEIGHT]]


def test_a_padded_batch_weighs_as_its_heaviest_times_their_number(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=12, padded=True)
    offer(engine, [4, 1, 4, 3, 5])
    assert weights_of(engine) == [[4, 4, 3], [1, 5]]


def test_under_fixed_a_batch_that_has_its_weight_leaves(make_engine: MakeEngine) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100, max_batch_weight=10)
    engine.submit(0, weight=6)
    assert engine.decide(1).wake_at_ns == 100
    engine.submit(2, weight=5, key="other")
    assert engine.decide(2).wake_at_ns == 100
    engine.submit(3, weight=4)
    decision = engine.decide(3)
    assert (decision.reason, len(decision.batch)) == ("full", 2)


def test_like_goes_with_like_under_backlog(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=3, padded=True)
    offer(engine, [10, 100, 11, 90, 12, 500, 95, 510])
    assert weights_of(engine) == [[10, 11, 12], [100, 90, 95], [500, 510]]


def test_nobody_is_grouped_where_all_go(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=4, padded=True)
    offer(engine, [10, 1_000, 11, 3])
    assert weights_of(engine) == [[10, 1_000, 11, 3]]


def test_as_many_as_there_are_go_where_no_more_are_as_short(make_engine: MakeEngine) -> None:
    """The shortest is the soonest, and most are too long to go with it: still two go, not one."""
    engine = make_engine(max_batch_size=4, max_batch_weight=100, padded=True)
    offer(engine, [10, 90, 90, 11, 90, 90, 90])
    assert weights_of(engine)[0] == [10, 11]


@pytest.mark.parametrize("padded", [False, True])
def test_only_those_who_were_passed_count_as_passed(make_engine: MakeEngine, padded: bool) -> None:
    """A row of heavy ones leaves one by one; each may still let MOST_PASSED light ones go before it."""
    engine = make_engine(max_batch_weight=10, max_batch_size=2, padded=padded)
    offer(engine, [6] * 12)
    assert weights_of(engine) == [[6]] * 12
    heavy = [6] * 12
    offer(engine, heavy)
    for _ in range(6):
        assert [request.weight for request in serve(engine)] == [6]
    offer(engine, [4])
    assert [request.weight for request in serve(engine)] == ([6] if padded else [6, 4])


def test_after_some_batches_nothing_light_goes_before_what_is_heavy(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=10)
    offer(engine, [9] * (MOST_PASSED + 3) + [1] * (MOST_PASSED + 8))
    assert weights_of(engine) == [*[[9, 1]] * MOST_PASSED, [9], [9], [9, 1], [1] * 7]


def overtaken(engine: Engine, weights: list[int], seed: int) -> tuple[list[int], list[int]]:
    """By how many batches each was passed, and how many were ahead of it when it came, while more keep coming."""
    chance = random.Random(seed)
    queue: list[int] = []
    passed, ahead = [0] * len(weights), [0] * len(weights)
    numbers: dict[Request, int] = {}
    coming = 0
    while coming < len(weights) or queue:
        for _ in range(chance.choice([0, 1, 2, 5, 20])):
            if coming < len(weights):
                ahead[coming] = len(queue)
                queue.append(coming)
                numbers[offer(engine, [weights[coming]])[0]] = coming
                coming += 1
        taken = {numbers[request] for request in serve(engine)}
        assert taken <= set(queue)
        assert not queue or queue[0] in taken
        queue = [number for number in queue if number not in taken]
        for number in queue:
            passed[number] += max(taken, default=-1) > number
    return passed, ahead


@settings(max_examples=3 * settings().max_examples)
@given(
    padded=st.booleans(),
    size=st.sampled_from([2, 3, 8, 40]),
    limit=st.sampled_from([None, 10, 30, 100]),
    weights=st.lists(st.sampled_from([1, 2, 3, 5, 9, 10, 12, 30, 31]), min_size=5, max_size=300),
    seed=st.integers(0, 2**32),
)
def test_a_request_is_passed_by_few_batches_and_by_none_for_ever(
    *, padded: bool, size: int, limit: int | None, weights: list[int], seed: int
) -> None:
    engine = Engine(max_batch_size=size, max_batch_weight=limit, padded=padded, overweight=True)
    passed, ahead = overtaken(engine, weights, seed)
    engine.check()
    assert max(passed) <= MOST_PASSED
    assert all(times <= before for times, before in zip(passed, ahead, strict=True))
    assert engine.stats().queued == 0


@settings(max_examples=3 * settings().max_examples)
@given(
    padded=st.booleans(),
    size=st.sampled_from([1, 2, 5, 16, 128, 129]),
    limit=st.sampled_from([None, 10, 30, 200, 2**31 - 1]),
    sizes=st.sampled_from([None, [129], [4, 16, 64, 129]]),
    weights=st.lists(st.sampled_from([1, 2, 3, 5, 9, 10, 12, 30, 31, 200, 2**31 - 1]), min_size=10, max_size=400),
    seed=st.integers(0, 2**32),
)
def test_a_backlog_is_packed_as_the_rules_say(
    *, padded: bool, size: int, limit: int | None, sizes: list[int] | None, weights: list[int], seed: int
) -> None:
    """Against the reference: more are queued than the look ahead reaches, and more come while they are served."""
    chance = random.Random(seed)
    options = {"max_batch_size": size, "max_batch_weight": limit, "padded": padded, "overweight": True, "capacity": 1}
    engine, reference = (
        Engine(**options, allowed_batch_sizes=sizes),
        Reference(**options, allowed_batch_sizes=sizes or ()),
    )
    numbers: dict[Request, int] = {}
    while weights or reference.queue:
        for _ in range(min(chance.choice([0, 1, 10, 400]), len(weights))):
            weight = weights.pop()
            numbers[engine.submit(0, weight=weight)] = reference.submit(0, weight=weight).number
        ours, theirs = engine.decide(0), reference.decide(0)
        assert [numbers[request] for request in ours.batch] == [request.number for request in theirs.batch]
        assert ours.model_size == theirs.model_size
        if ours.batch:
            engine.complete(5, ours)
            reference.complete(5, theirs)
    assert engine.stats().queued == 0


def test_service_times_are_learned_by_weight(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_weight=1_000, max_batch_size=64)
    now = 0
    for weight, count in [(10, 1), (10, 8), (100, 1), (100, 8), (10, 64)] * 20:
        for _ in range(count):
            engine.submit(now, weight=weight)
        decision = engine.decide(now)
        now += 1_000 * weight * len(decision.batch)
        engine.complete(now, decision)
    learned = dict(engine.learned(now).sizes)
    assert {10, 80, 100, 800, 640} <= learned.keys()
    assert all(abs(ns / (1_000 * weight) - 1) < 0.01 for weight, ns in learned.items())
