"""What type checkers must make of the public API; run by mypy and pyright, never by Python."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import Any, assert_type

from pybatch import Future, Scheduler, Stats, batched
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


def stepping_scheduler() -> None:
    scheduler = SteppingScheduler(lengths, service_ms=lambda size: 1.5 * size, max_batch_size=8)
    assert_type(scheduler, SteppingScheduler[str, int])
    assert_type(scheduler.submit("a"), Future[int])
    assert_type(scheduler.clock, ManualClock)
    assert_type(scheduler.batches, Sequence[Batch[str]])
    real: Scheduler[str, int] = SteppingScheduler(async_lengths, clock=scheduler.clock, service_ms=2)
    real.shutdown()
