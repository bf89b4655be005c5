"""What type checkers must make of the public API; run by mypy and pyright, never by Python."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

from pybatch import CurrentBatch, Future, Pad, Scheduler, Stack, Stats, batched, current_batch
from pybatch.testing import Batch, ManualClock, SteppingScheduler


def lengths(words: list[str]) -> list[int]:
    return [len(word) for word in words]


async def async_lengths(words: list[str]) -> list[int]:
    return lengths(words)


def scheduler_of_a_plain_function() -> None:
    with Scheduler(lengths, max_batch_size=8) as scheduler:
        assert_type(scheduler, Scheduler[str, int])
        assert_type(scheduler.submit("a"), Future[int])
        assert_type(scheduler.submit("a", timeout_ms=5, priority=1).result(), int)
        assert_type(scheduler.submit_many(["a"]), list[Future[int]])
        assert_type(scheduler.map(["a"]), Iterator[int])
        assert_type(scheduler("a"), int)
        assert_type(scheduler.stats(), Stats)
        future: concurrent.futures.Future[int] = scheduler.submit("a")
        future.cancel()


async def scheduler_of_a_coroutine_function() -> None:
    async with Scheduler(async_lengths) as scheduler:
        assert_type(scheduler, Scheduler[str, int])
        assert_type(await scheduler.submit("a"), int)
        assert_type(await scheduler.submit_wait("a"), Future[int])


@batched
def length(words: list[str]) -> list[int]:
    return lengths(words)


@batched(max_batch_size=4)
async def async_length(words: list[str]) -> list[int]:
    return lengths(words)


class Model:
    @batched(max_batch_size=4)
    def length(self, words: list[str]) -> list[int]:
        return lengths(words)

    @batched
    async def async_length(self, words: list[str]) -> list[int]:
        return lengths(words)


async def decorated() -> None:
    assert_type(length("a"), int)
    assert_type(await async_length("a"), int)
    assert_type(Model().length("a"), int)
    assert_type(await Model().async_length("a"), int)
    assert_type(length.scheduler, Scheduler[str, Any])


def keys_weights_and_sizes() -> None:
    with Scheduler(
        lengths,
        key_fn=len,
        share_by_key={3: 2.0},
        weight_fn=len,
        max_batch_weight=100,
        on_overweight="alone",
        allowed_batch_sizes=[1, 4],
        batch_padding_policy="pad_up",
        dedupe=str.lower,
    ) as scheduler:
        assert_type(scheduler, Scheduler[str, int])
        assert_type(scheduler.submit("a", key=("en", 1), weight=2), Future[int])
        assert_type(scheduler.submit_many(["a"], key=1), list[Future[int]])
        assert_type(scheduler.map(["a"], key=1, weight=2), Iterator[int])
        assert_type(scheduler("a", key=1), int)
        assert_type(scheduler.submit_batch(["a", "b"], key=1), Future[Any])
        assert_type(scheduler.stats().keys, int)
        assert_type(scheduler.stats().padding_ratio, float)


Floats = npt.NDArray[np.float32]


def total(batch: Floats) -> Floats:
    return batch


def total_of_padded(batch: dict[str, Floats], lengths: dict[str, npt.NDArray[np.int64]]) -> dict[str, Floats]:
    return batch


async def async_total(batch: Floats) -> Floats:
    return batch


def collate(words: list[str]) -> tuple[str, ...]:
    return tuple(words)


async def arrays() -> None:
    assert_type(Scheduler(total, batch_as="stack"), Scheduler[Any, Any])
    assert_type(Scheduler(total, batch_as=Stack(dtype="float32"), assemble="submit"), Scheduler[Any, Any])
    assert_type(Scheduler(total_of_padded, batch_as=Pad(multiple_of=8, give="lengths")), Scheduler[Any, Any])
    assert_type(Scheduler(len, batch_as=collate), Scheduler[Any, Any])
    scheduler = Scheduler(async_total, batch_as="stack", array_module="numpy", copy_results=True, filler="zeros")
    assert_type(scheduler, Scheduler[Any, Any])
    await scheduler.submit(np.zeros(3))
    await (await scheduler.submit_wait(np.zeros(3), key="a"))
    scheduler.submit_batch(np.zeros((2, 3)))
    SteppingScheduler(total_of_padded, batch_as=Pad(buckets=[8, 16], side="left", value={"ids": 1}))


@batched(batch_as="stack")
def decorated_total(batch: Floats) -> Floats:
    return batch


class ArrayModel:
    @batched(batch_as=Pad(give="mask"), key_fn=len)
    def total(self, batch: Floats, mask: npt.NDArray[np.bool_]) -> Floats:
        return batch


def decorated_functions_of_arrays() -> None:
    decorated_total(np.zeros(3), key="a", weight=3)
    ArrayModel().total(np.zeros(3))


def inside_fn() -> None:
    batch = current_batch()
    assert_type(batch, CurrentBatch)
    assert_type(batch.size + batch.model_size, int)
    hash(batch.key)


def stepping_scheduler() -> None:
    scheduler = SteppingScheduler(lengths, service_ms=lambda size: 1.5 * size, max_batch_size=8)
    assert_type(scheduler, SteppingScheduler[str, int])
    assert_type(scheduler.submit("a"), Future[int])
    assert_type(scheduler.clock, ManualClock)
    assert_type(scheduler.batches, Sequence[Batch[str]])
    real: Scheduler[str, int] = SteppingScheduler(async_lengths, clock=scheduler.clock, service_ms=2)
    real.shutdown()
