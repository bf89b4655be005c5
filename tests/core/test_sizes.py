"""A model that accepts certain batch sizes only: what it is given, and what fills the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchcore.engine import Engine

MakeEngine = Callable[..., Engine]
Sizes = list[tuple[int, int]]
ALL = "min_cost", "pad_up", "batch_down"


def sizes_of(engine: Engine, queued: int) -> Sizes:
    """(requests, size of the model's batch) of all batches, if so many are queued."""
    engine.set_capacity(0, 0)
    for _ in range(queued):
        engine.submit(0)
    engine.set_capacity(0, 1)
    found: Sizes = []
    while (decision := engine.decide(0)).kind == "dispatch":
        engine.complete(0, decision)
        found.append((len(decision.batch), decision.model_size))
    return found


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("pad_up", [(16, 16), (11, 16)]),
        ("batch_down", [(16, 16), (8, 8), (2, 2), (1, 1)]),
    ],
)
def test_what_is_left_is_padded_or_cut(make_engine: MakeEngine, policy: str, expected: Sizes) -> None:
    engine = make_engine(max_batch_size=16, allowed_batch_sizes=[1, 2, 8, 16], batch_padding_policy=policy)
    assert sizes_of(engine, 27) == expected


def test_before_anything_is_known_filler_is_added(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=16, allowed_batch_sizes=[1, 2, 8, 16])
    engine.submit(0)
    engine.set_capacity(0, 0)
    for _ in range(4):
        engine.submit(0)
    engine.set_capacity(0, 1)
    decision = engine.decide(0)
    assert (len(decision.batch), decision.model_size) == (5, 8)


@pytest.mark.parametrize(
    ("times", "queued", "taken"),
    [
        pytest.param([(4, 40), (8, 80)], 7, 4, id="4 for 40 is 10 each, 7 for 80 is 11.4"),
        pytest.param([(4, 40), (8, 80)], 8, 8, id="nothing to fill"),
        pytest.param([(4, 40), (8, 60)], 7, 7, id="4 for 40 is 10 each, 7 for 60 is 8.6"),
        pytest.param([(4, 40), (8, 60)], 5, 4, id="4 for 40 is 10 each, 5 for 60 is 12"),
    ],
)
def test_filler_is_added_where_that_is_cheaper_a_request(
    make_engine: MakeEngine, times: Sizes, queued: int, taken: int
) -> None:
    """The rule of TensorFlow Serving."""
    engine = make_engine(max_batch_size=8, allowed_batch_sizes=[4, 8], cost_model=[(n, ns * 10_000) for n, ns in times])
    assert [engine.predict_ns(n) for n, _ in times] == pytest.approx([ns * 10_000 for _, ns in times], rel=1e-5)
    found = sizes_of(engine, queued)
    assert found[0] == (taken, 4 if taken <= 4 else 8)


def test_fewer_than_the_least_size_are_filled(make_engine: MakeEngine) -> None:
    for policy in ALL:
        engine = make_engine(max_batch_size=8, allowed_batch_sizes=[4, 8], batch_padding_policy=policy)
        assert sizes_of(engine, 3) == [(3, 4)]


def test_more_that_are_queued_take_the_place_of_filler(make_engine: MakeEngine) -> None:
    """Also those of a worse priority, and more than a policy asked for."""
    engine = make_engine(policy=lambda view: 3, max_batch_size=8, allowed_batch_sizes=[1, 4, 8])
    engine.set_capacity(0, 0)
    for priority in (0, 5, 0, 5, 0, 5):
        engine.submit(0, priority=priority)
    engine.set_capacity(0, 1)
    decision = engine.decide(0)
    assert [request.priority for request in decision.batch] == [0, 0, 0, 5]
    assert decision.model_size == 4


def test_the_largest_batch_holds_beside_the_sizes(make_engine: MakeEngine) -> None:
    """The model is given 8 for at most 6 requests, although more are queued."""
    engine = make_engine(max_batch_size=6, allowed_batch_sizes=[4, 8], batch_padding_policy="pad_up")
    assert sizes_of(engine, 13) == [(6, 8), (6, 8), (1, 4)]


def test_a_window_ends_with_what_fits_and_goes_on_for_the_rest(make_engine: MakeEngine) -> None:
    engine = make_engine(
        policy="fixed", max_wait_ns=10, max_batch_size=8, allowed_batch_sizes=[2, 8], batch_padding_policy="batch_down"
    )
    requests = [engine.submit(now) for now in (0, 1, 4)]
    decision = engine.decide(10)
    assert (decision.batch, decision.model_size) == (tuple(requests[:2]), 2)
    engine.complete(11, decision)
    assert engine.decide(11).wake_at_ns == 14
    assert engine.decide(14).batch == (requests[2],)


def test_what_is_learned_is_what_the_model_was_given(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=8, allowed_batch_sizes=[8], batch_padding_policy="pad_up")
    engine.submit(0)
    engine.complete(700, engine.decide(0))
    assert [engine.predict_ns(n) for n in (1, 5, 8)] == [700, 700, 700]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allowed_batch_sizes": []}, "some sizes in ascending order"),
        ({"allowed_batch_sizes": [8, 4]}, "some sizes in ascending order"),
        ({"allowed_batch_sizes": [4, 4, 64]}, "some sizes in ascending order"),
        ({"allowed_batch_sizes": [0, 64]}, r"allowed_batch_sizes\[0\] is 0"),
        ({"allowed_batch_sizes": [4, 16]}, "max_batch_size is 32, and the largest of allowed_batch_sizes is 16"),
        ({"batch_padding_policy": "up"}, "batch_padding_policy is 'up'"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(**options)


def test_a_larger_batch_than_the_model_accepts_is_refused_later_too(make_engine: MakeEngine) -> None:
    engine = make_engine(max_batch_size=8, allowed_batch_sizes=[4, 8])
    with pytest.raises(ValueError, match="max_batch_size is 9, and the largest of allowed_batch_sizes is 8"):
        engine.reconfigure(0, max_batch_size=9)
    engine.reconfigure(0, max_batch_size=5)
    assert engine.stats().max_batch_size == 5


@given(
    sizes=st.sets(st.integers(1, 40), min_size=1, max_size=10).map(sorted),
    largest=st.integers(1, 40),
    policy=st.sampled_from(ALL),
    queued=st.integers(1, 100),
    costs=st.sampled_from([(), [(1, 1_000), (40, 40_000)], [(1, 10_000), (40, 11_000)]]),
)
def test_filler_is_added_only_where_nothing_could_take_its_place(
    *, sizes: list[int], largest: int, policy: str, queued: int, costs: Sizes
) -> None:
    largest = min(largest, sizes[-1])
    engine = Engine(
        max_batch_size=largest,
        allowed_batch_sizes=sizes,
        batch_padding_policy=policy,
        cost_model=costs,
        max_queue_size=100,
    )
    left = queued
    for taken, size in sizes_of(engine, queued):
        assert size == min(other for other in sizes if other >= taken)
        assert size in (taken, *sizes)
        assert taken == size or size > min(left, largest)
        if policy == "batch_down" and taken < size:
            assert size == sizes[0]
        left -= taken
    assert left == 0
