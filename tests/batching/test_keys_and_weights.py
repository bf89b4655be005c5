"""Keys and weights from submit to `fn`: whose functions raise, whose keys meddle, who is too heavy, who waits."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gates import LIMIT_S, Gate, SchedulerOf, doubled, in_thread, one_turn, run_loop
from pybatch import batched
from pybatch.testing import SteppingScheduler

Stepping = Callable[..., SteppingScheduler[Any, Any]]


class Refusal(Exception):
    pass


def refuse(_: Any) -> Any:
    raise Refusal


# --- keys


def test_only_equal_keys_share_a_batch(stepping: Stepping) -> None:
    scheduler = stepping(list)
    for item, key in ((1, "a"), (2, "b"), (3, "a"), (4, None), (5, "b")):
        scheduler.submit(item, key=key)
    scheduler.advance(0)
    assert sorted((str(batch.key), batch.items) for batch in scheduler.batches) == [
        ("None", (4,)),
        ("a", (1, 3)),
        ("b", (2, 5)),
    ]


def test_a_function_names_the_key_unless_submit_does(stepping: Stepping) -> None:
    scheduler = stepping(list, key_fn=len)
    for item in ("a", "bc", "d"):
        scheduler.submit(item)
    scheduler.submit("e", key=2)
    scheduler.advance(0)
    assert {batch.key: batch.items for batch in scheduler.batches} == {1: ("a", "d"), 2: ("bc", "e")}


@pytest.mark.parametrize("option", ["key_fn", "weight_fn", "dedupe"])
@pytest.mark.parametrize("form", ["list", "stack"])
def test_what_a_function_of_the_item_raises_is_the_submitters_alone(stepping: Stepping, option: str, form: str) -> None:
    def fn(item: Any) -> int:
        if item == 13:
            raise Refusal
        return 1

    scheduler = stepping(list, batch_as=form, **{option: fn})
    before = scheduler.submit(1)
    calls = [
        lambda: scheduler.submit(13),
        lambda: scheduler(13),
        lambda: list(scheduler.map([13])),
        lambda: asyncio.run(scheduler.submit_wait(13)),
    ]
    if option != "dedupe":
        calls += [lambda: scheduler.submit_many([1, 13]), lambda: scheduler.submit_batch([1, 13])]
    stats = scheduler.stats()
    for call in calls:
        with pytest.raises(Refusal):
            call()
    assert scheduler.stats() == stats
    scheduler.advance(0)
    assert before.result() == 1


@pytest.mark.parametrize("key", [[1], {}, {1}, np.zeros(2), ("a", [1])])
@pytest.mark.parametrize("form", ["list", "stack"])
def test_a_key_that_is_not_hashable_is_refused(stepping: Stepping, key: Any, form: str) -> None:
    scheduler = stepping(list, batch_as=form)
    with pytest.raises(TypeError, match="key must be hashable"):
        scheduler.submit(1, key=key)
    with pytest.raises(TypeError, match="key must be hashable"):
        scheduler.submit_batch([1], key=key)
    assert (scheduler.stats().submitted, scheduler.stats().keys) == (0, 0)


class Meddler:
    """A key whose methods may do anything."""

    def __init__(self, value: int, meddle: Callable[[], object]) -> None:
        self.value = value
        self.meddle = meddle

    def __hash__(self) -> int:
        self.meddle()
        return 7

    def __eq__(self, other: object) -> bool:
        self.meddle()
        return isinstance(other, Meddler) and self.value == other.value


def test_keys_whose_methods_submit_lose_nothing(stepping: Stepping) -> None:
    futures: list[Any] = []
    busy: list[bool] = []

    def meddle() -> None:
        if not busy and len(futures) < 200:
            busy.append(True)
            futures.append(scheduler.submit(len(futures), key=Meddler(len(futures) % 3, meddle)))
            busy.clear()

    scheduler = stepping(doubled, max_batch_size=3)
    for turn in range(40):
        future = scheduler.submit(-1, key=Meddler(turn % 3, meddle))
        if turn % 4 == 0:
            assert future.cancel()
        if turn % 5 == 0:
            scheduler.advance(1)
    scheduler.shutdown()
    assert len(futures) == 200
    assert [future.result() for future in futures] == [2 * n for n in range(200)]
    assert scheduler.stats().keys == 0


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", ["answer", "cancel", "expire", "shutdown"])
def test_a_key_that_cannot_be_found_again_keeps_nobody_waiting(stepping: Stepping, end: str) -> None:
    sour: list[bool] = []

    def meddle() -> None:
        if sour:
            raise Refusal

    scheduler = stepping(doubled)
    timeout_ms = 5 if end == "expire" else None
    futures = [scheduler.submit(n, key=Meddler(n % 2, meddle), timeout_ms=timeout_ms) for n in range(4)]
    sour.append(True)
    with pytest.raises(Refusal):
        scheduler.submit(5, key=Meddler(1, meddle))
    if end == "cancel":
        assert all(future.cancel() for future in futures)
    elif end == "shutdown":
        scheduler.shutdown(cancel_futures=True)
    else:
        scheduler.advance(0 if end == "answer" else 10)
    assert all(future.done() for future in futures)


def test_a_wrong_shape_is_a_batch_of_its_own_and_hurts_nobody(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch.sum(axis=1), batch_as="stack")
    good = [scheduler.submit(np.full(3, n)) for n in range(3)]
    longer, other_type = scheduler.submit(np.ones(4)), scheduler.submit(np.ones(3, np.float32))
    scalar = scheduler.submit(1.0)
    with pytest.raises(TypeError):
        scheduler.submit(np.array([object()]))
    scheduler.advance(0)
    assert [future.result() for future in good] == [0, 3, 6]
    assert (longer.result(), other_type.result()) == (4, 3)
    assert isinstance(scalar.exception(), ValueError)  # numpy's own: there is no axis 1
    assert len(scheduler.batches) == 4


def test_shapes_are_keys_beside_those_that_are_named(stepping: Stepping) -> None:
    scheduler = stepping(list, batch_as="stack")
    for shape in (2, 3, 2):
        for key in "ab":
            scheduler.submit(np.zeros(shape), key=key)
    assert scheduler.stats().keys == 4
    scheduler.advance(0)
    assert sorted((batch.key, len(batch.items)) for batch in scheduler.batches) == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
        ("b", 2),
    ]
    assert scheduler.stats().keys == 0


def test_keys_of_a_decorated_function() -> None:
    batches: list[list[str]] = []

    @batched(key_fn=len, metrics=False)
    def upper(words: list[str]) -> list[str]:
        batches.append(words)
        return [word.upper() for word in words]

    assert [upper("a"), upper("bc", key="other"), upper("de")] == ["A", "BC", "DE"]
    upper.scheduler.shutdown()
    assert batches == [["a"], ["bc"], ["de"]]


# --- shares


def test_shares_divide_the_time_of_the_workers(stepping: Stepping) -> None:
    scheduler = stepping(list, max_batch_size=1, share_by_key={"paid": 3.0}, service_ms=1)
    for key in ("free", "paid"):
        for item in range(60):
            scheduler.submit(item, key=key)
    scheduler.advance(39)
    served = [batch.key for batch in scheduler.batches]
    assert served.count("paid") == 30
    assert served.count("free") == 10


def test_a_share_is_a_share_of_the_weight(stepping: Stepping) -> None:
    scheduler = stepping(list, max_batch_size=1, share_by_key=lambda key: 1.0, service_ms=1, weight_fn=lambda n: n)
    for _ in range(60):
        scheduler.submit(4, key="heavy")
        scheduler.submit(1, key="light")
    scheduler.advance(49)
    served = [batch.key for batch in scheduler.batches]
    assert served.count("light") == 40
    assert served.count("heavy") == 10


@pytest.mark.parametrize("share", [0, -1, "much", None, float("nan"), True])
def test_a_share_that_is_none_is_refused(stepping: Stepping, share: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"the share of key 'a'"):
        stepping(list, share_by_key={"a": share})
    scheduler = stepping(list, share_by_key=lambda key: share if key == "a" else 1.0)
    with pytest.raises((TypeError, ValueError), match=r"the share of key 'a'"):
        scheduler.submit(1, key="a")
    assert (scheduler.stats().submitted, scheduler.stats().keys) == (0, 0)


# --- weights


def test_no_batch_is_heavier_than_it_may_be(stepping: Stepping) -> None:
    scheduler = stepping(list, weight_fn=len, max_batch_weight=5)
    words = ["abc", "ab", "a", "abcd", "a", "abcde"]
    scheduler.submit_many(words)
    scheduler.advance(0)
    batches = [batch.items for batch in scheduler.batches]
    assert sorted(word for batch in batches for word in batch) == sorted(words)
    assert all(sum(map(len, batch)) <= 5 for batch in batches)
    assert len(batches) == 4


def test_submit_may_name_the_weight(stepping: Stepping) -> None:
    scheduler = stepping(list, weight_fn=len, max_batch_weight=5)
    for _ in range(3):
        scheduler.submit("abcdefgh", weight=2)
    scheduler.advance(0)
    assert [len(batch.items) for batch in scheduler.batches] == [2, 1]


def test_one_that_is_too_heavy_is_refused_or_runs_alone(stepping: Stepping) -> None:
    scheduler = stepping(list, weight_fn=len, max_batch_weight=3)
    with pytest.raises(ValueError, match=r"weight is 4, and max_batch_weight is 3; .*on_overweight='alone'"):
        scheduler.submit("abcd")
    with pytest.raises(ValueError, match="weight is 4"):
        scheduler.submit_batch(["a", "abcd"])
    assert scheduler.stats().submitted == 0
    scheduler = stepping(list, weight_fn=len, max_batch_weight=3, on_overweight="alone")
    scheduler.submit_many(["a", "abcd", "bc"])
    scheduler.advance(0)
    assert sorted(batch.items for batch in scheduler.batches) == [("a", "bc"), ("abcd",)]


@pytest.mark.parametrize("weight", [0, -1, 2**31, 1.5, "2", True])
def test_a_weight_that_is_none_is_refused(stepping: Stepping, weight: Any) -> None:
    for scheduler, terms in ((stepping(list), {"weight": weight}), (stepping(list, weight_fn=lambda _: weight), {})):
        with pytest.raises((TypeError, ValueError), match="weight"):
            scheduler.submit(1, **terms)
        assert scheduler.stats().submitted == 0


def test_padded_batches_weigh_what_the_model_is_given(stepping: Stepping) -> None:
    given: list[tuple[int, ...]] = []

    def compute(batch: Any, lengths: Any) -> Any:
        given.append(batch.shape)
        return lengths

    scheduler = stepping(compute, batch_as="pad", max_batch_weight=12)
    futures = [scheduler.submit(np.ones(length)) for length in (6, 2, 2, 2, 5, 1)]
    with pytest.raises(ValueError, match="weight is 13"):
        scheduler.submit(np.ones(13))
    scheduler.advance(0)
    assert [future.result() for future in futures] == [6, 2, 2, 2, 5, 1]
    assert all(rows * longest <= 12 for rows, longest in given)


def test_estimates_and_explanations_of_keys_and_weights(stepping: Stepping) -> None:
    scheduler = stepping(list, weight_fn=len, max_batch_weight=8, service_ms=lambda size: 2.0 * size)
    for _ in range(20):
        scheduler.submit_many(["ab", "cdef"], key="a")
        scheduler.advance(10)
    estimate = scheduler.estimate()
    assert estimate is not None
    assert estimate.finish_ms > 0
    explanation = scheduler.explain()
    assert explanation.stats == scheduler.stats()
    assert "weight" in str(explanation)
    assert scheduler.cost_model()


def test_requests_with_keys_and_weights_are_recorded(stepping: Stepping, tmp_path: Any) -> None:
    scheduler = stepping(list, weight_fn=len, key_fn=len)
    with scheduler.record(tmp_path / "traffic.csv") as recording:
        scheduler.submit("a", timeout_ms=5)
        scheduler.submit_many(["b", "cd"])
        scheduler.submit_batch(["e", "fg", "h"])
    assert recording.count == 6


# --- beside the queue's bounds


def test_a_submit_with_a_key_waits_for_room(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=1, max_queue_size=1, on_full="block", key_fn=lambda item: item)
    scheduler.submit(0)
    gate.wait_entered()
    scheduler.submit(1)
    waiting = [in_thread(lambda n=n: scheduler.submit(n).result(LIMIT_S)) for n in range(2, 6)]
    gate.open()
    assert [future.result(LIMIT_S) for future in waiting] == [2, 3, 4, 5]
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().keys == 0


@pytest.mark.parametrize("form", ["list", "stack"])
def test_refused_requests_leave_no_key_behind(stepping: Stepping, form: str) -> None:
    scheduler = stepping(list, batch_as=form, max_queue_size=1)
    scheduler.submit(1.0)
    for n in range(5):
        with pytest.raises(Exception, match=r"full|no room"):
            scheduler.submit_many([1.0], key=n)
        with pytest.raises(Exception, match=r"full|no room"):
            scheduler.submit(1.0, key=n)
        scheduler.submit(1.0, key=n, timeout_ms=0)
    assert scheduler.stats().keys == (form == "stack")


def test_threads_that_use_keys_at_once_mix_none(scheduler_of: SchedulerOf) -> None:
    def compute(items: list[tuple[int, int]]) -> list[Any]:
        keys = {key for key, _ in items}
        return [keys] * len(items)

    scheduler = scheduler_of(compute, max_batch_size=8, max_concurrent_batches=3, key_fn=lambda item: item[0])
    failed = threading.Event()

    def ask(seed: int) -> None:
        futures = [(n * seed % 11, scheduler.submit((n * seed % 11, n))) for n in range(800)]
        for key, future in futures:
            if future.result(LIMIT_S) != {key}:
                failed.set()

    for each in [in_thread(ask, seed) for seed in (1, 2, 3)]:
        each.result(LIMIT_S)
    assert not failed.is_set()
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().keys == 0


def test_keys_on_a_loop(scheduler_of: SchedulerOf) -> None:
    async def compute(items: list[int]) -> list[int]:
        await one_turn()
        return [len({item % 5 for item in items})] * len(items)

    scheduler = scheduler_of(compute, key_fn=lambda item: item % 5)

    async def main() -> list[int]:
        return await asyncio.gather(*(scheduler.submit(item) for item in range(100)))

    assert set(run_loop(main())) == {1}


def test_a_key_that_goes_while_the_policy_is_asked_may_submit(scheduler_of: SchedulerOf) -> None:
    class Parting:
        def __del__(self) -> None:
            answers.put(scheduler.submit("last"))

    def policy(view: Any) -> int:
        if view.key is not None:
            futures.get(timeout=LIMIT_S).cancel()  # nothing is left under the key but what asks
        return 1

    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    futures: queue.SimpleQueue[Any] = queue.SimpleQueue()
    scheduler = scheduler_of(list, policy=policy)
    futures.put(scheduler.submit("first", key=Parting()))
    assert answers.get(timeout=LIMIT_S).result(LIMIT_S) == "last"
