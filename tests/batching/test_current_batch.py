"""`current_batch`: what a `fn` may ask about the batch that it is given, and nobody else."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gates import LIMIT_S, AsyncGate, Gate, SchedulerOf, in_thread, one_turn, run_loop
from pybatch import CurrentBatch, batched, current_batch
from pybatch.testing import SteppingScheduler

Stepping = Callable[..., SteppingScheduler[Any, Any]]


def told(items: list[Any]) -> list[CurrentBatch]:
    return [current_batch()] * current_batch().model_size


def tuple_of(items: list[Any]) -> tuple[Any, ...]:
    return tuple(items)


async def told_async(items: list[Any]) -> list[CurrentBatch]:
    before = current_batch()
    await one_turn()
    assert current_batch() == before
    return told(items)


@pytest.mark.parametrize("fn", [told, told_async])
def test_it_tells_the_key_and_the_sizes(scheduler_of: SchedulerOf, fn: Any) -> None:
    scheduler = scheduler_of(fn, max_batch_size=8, allowed_batch_sizes=[4, 8])
    futures = [scheduler.submit(item, key=("fr", 1)) for item in range(3)]
    for future in futures:
        batch = future.result(LIMIT_S)
        assert (batch.key, batch.model_size) == (("fr", 1), 4)
        assert 1 <= batch.size <= 3
    assert scheduler.submit(0).result(LIMIT_S).key is None


def test_in_virtual_time(stepping: Stepping) -> None:
    scheduler = stepping(told, max_batch_size=8, policy="fixed", max_wait_ms=5)
    scheduler.submit(0, key="a")
    scheduler.advance(5)
    future = scheduler.submit(0, key="b")
    assert scheduler.submit(0, key="b") is not future
    scheduler.advance(5)
    assert future.result() == CurrentBatch(id=2, key="b", size=2, model_size=2, reason="window")


def test_of_arrays_and_of_collated_batches(stepping: Stepping) -> None:
    for batch_as in ("stack", tuple_of):
        scheduler = stepping(told, batch_as=batch_as)
        future = scheduler.submit(np.zeros(2), key="a")
        scheduler.advance(0)
        assert future.result().key == "a"


def test_it_can_be_asked_while_a_batch_is_collated(stepping: Stepping) -> None:
    keys: list[Any] = []

    def collate(items: list[Any]) -> list[Any]:
        keys.append(current_batch().key)
        return items

    scheduler = stepping(list, batch_as=collate)
    scheduler.submit(1, key="a")
    scheduler.advance(0)
    assert keys == ["a"]


def test_of_decorated_functions_and_methods() -> None:
    class Model:
        @batched(metrics=False)
        def keys(self, items: list[Any]) -> list[Any]:
            return [current_batch().key for _ in items]

    model = Model()
    assert model.keys(1, key="of a method") == "of a method"
    model.keys.scheduler.shutdown()


def test_outside_of_fn_there_is_none(scheduler_of: SchedulerOf, stepping: Stepping) -> None:
    with pytest.raises(LookupError, match="call current_batch"):
        current_batch()
    scheduler_of(told).submit(1).result(LIMIT_S)
    virtual = stepping(told)
    virtual.submit(1)
    virtual.advance(0)
    with pytest.raises(LookupError):
        current_batch()


def test_a_callback_has_no_batch(stepping: Stepping) -> None:
    scheduler = stepping(told)
    outcomes: list[Any] = []

    def ask(_: Any) -> None:
        with pytest.raises(LookupError):
            current_batch()
        outcomes.append(None)

    scheduler.submit(1).add_done_callback(ask)
    scheduler.advance(0)
    assert outcomes == [None]


def test_a_thread_that_fn_leaves_behind_does_not_see_the_next_batch(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    contexts: list[contextvars.Context] = []

    def compute(items: list[int]) -> list[int]:
        contexts.append(contextvars.copy_context())
        return gate.hold(items) if items == [2] else items

    scheduler = scheduler_of(compute)
    scheduler.submit(1).result(LIMIT_S)
    second = scheduler.submit(2)
    gate.wait_entered()
    with pytest.raises(LookupError):
        in_thread(contexts[0].run, current_batch).result(LIMIT_S)
    gate.open()
    second.result(LIMIT_S)


def test_a_task_that_fn_leaves_behind_does_not_see_the_next_batch(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    left: list[asyncio.Task[Any]] = []
    asking = threading.Event()

    async def ask_later() -> CurrentBatch:
        while not asking.is_set():
            await one_turn()
        return current_batch()

    async def compute(items: list[int]) -> list[int]:
        if items == [1]:
            left.append(asyncio.ensure_future(ask_later()))
            return items
        return await gate.hold(items)

    scheduler = scheduler_of(compute, max_batch_size=1)

    async def main() -> None:
        first, second = scheduler.submit_many([1, 2])
        await first
        await gate.entered()
        asking.set()
        with pytest.raises(LookupError):
            await left[0]
        gate.open()
        await second

    run_loop(main())


def test_several_batches_at_once_each_have_their_own(scheduler_of: SchedulerOf) -> None:
    for is_async in (False, True):
        barrier = threading.Barrier(2)
        arrived = [0]

        def compute(items: list[Any], barrier: threading.Barrier = barrier) -> list[Any]:
            barrier.wait(LIMIT_S)
            return [current_batch().key for _ in items]

        async def compute_async(items: list[Any], arrived: list[int] = arrived) -> list[Any]:
            arrived[0] += 1
            while arrived[0] < 2:
                await one_turn()
            return [current_batch().key for _ in items]

        scheduler = scheduler_of(compute_async if is_async else compute, max_concurrent_batches=2)
        futures = [scheduler.submit(0, key=key) for key in "ab"]
        assert [future.result(LIMIT_S) for future in futures] == ["a", "b"]


def test_a_batch_within_a_batch(scheduler_of: SchedulerOf) -> None:
    inner = scheduler_of(told)

    def compute(items: list[Any]) -> list[Any]:
        key = inner.submit(0, key="inner").result(LIMIT_S).key
        return [(key, current_batch().key) for _ in items]

    outer = scheduler_of(compute)
    assert outer.submit(0, key="outer").result(LIMIT_S) == ("inner", "outer")
