"""This scheduler and what one writes by hand, under the loads of `loads`. Knows no benchmark tool."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat

from contenders.asyncio_queue import AsyncioQueue, in_executor
from contenders.one_at_a_time import AsyncOneAtATime, OneAtATime
from contenders.ours import AsyncPybatch, Pybatch
from contenders.thread_queue import ThreadQueue
from loads import Loads, async_noop, loop, noop, threads
from pybatch import Scheduler

BATCH_SIZES = (1, 8, 64, 1024)
OURS = "pybatch"
ONE_AT_A_TIME = "one at a time"
BY_HAND = "by hand"

IN_BULK = 1024  # items handed over in one go


def many(scheduler: Scheduler[int, int], requests: int) -> None:
    for _ in range(requests // IN_BULK):
        for future in scheduler.submit_many([0] * IN_BULK):
            future.result()


def mapped(scheduler: Scheduler[int, int], requests: int) -> None:
    for _ in scheduler.map(repeat(0, requests)):
        pass


def in_batches(scheduler: Scheduler[int, int], requests: int) -> None:
    for _ in range(requests // IN_BULK):
        scheduler.submit_batch([0] * IN_BULK).result()


@contextmanager
def bulk(size: int, ask: Callable[[Scheduler[int, int], int], None]) -> Iterator[Loads]:
    """Give the load of one who has many items at once."""
    with Scheduler(noop, max_batch_size=size) as scheduler:
        ask(scheduler, 2 * IN_BULK)
        yield Loads(lambda requests: ask(scheduler, requests), lambda requests: ask(scheduler, requests))


CONTENDERS: dict[str, dict[str, Callable[[int], AbstractContextManager[Loads]]]] = {
    "threads": {
        ONE_AT_A_TIME: lambda _: threads(lambda: OneAtATime(noop)),
        BY_HAND: lambda size: threads(lambda: ThreadQueue(noop, size)),
        OURS: lambda size: threads(lambda: Pybatch(noop, size)),
    },
    "threads, in bulk": {
        "submit_many": lambda size: bulk(size, many),
        "map": lambda size: bulk(size, mapped),
        "submit_batch": lambda size: bulk(size, in_batches),
    },
    "asyncio, async fn": {
        ONE_AT_A_TIME: lambda _: loop(lambda: AsyncOneAtATime(async_noop)),
        BY_HAND: lambda size: loop(lambda: AsyncioQueue(async_noop, size)),
        OURS: lambda size: loop(lambda: AsyncPybatch(async_noop, size)),
    },
    "asyncio, sync fn": {
        ONE_AT_A_TIME: lambda _: loop(lambda: AsyncOneAtATime(in_executor(noop))),
        BY_HAND: lambda size: loop(lambda: AsyncioQueue(in_executor(noop), size)),
        OURS: lambda size: loop(lambda: AsyncPybatch(noop, size)),
    },
}
"""By path, then by name: open a contender with this ``max_batch_size`` (no batching: ignored) and give its loads."""
