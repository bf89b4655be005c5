"""This scheduler and what one writes by hand, under the loads of `loads`. Knows no benchmark tool."""

from collections.abc import Callable
from contextlib import AbstractContextManager

from contenders.asyncio_queue import AsyncioQueue, in_executor
from contenders.one_at_a_time import AsyncOneAtATime, OneAtATime
from contenders.ours import AsyncPybatch, Pybatch
from contenders.thread_queue import ThreadQueue
from loads import Loads, async_noop, loop, noop, threads

BATCH_SIZES = (1, 8, 64, 1024)
OURS = "pybatch"
ONE_AT_A_TIME = "one at a time"
BY_HAND = "by hand"

CONTENDERS: dict[str, dict[str, Callable[[int], AbstractContextManager[Loads]]]] = {
    "threads": {
        ONE_AT_A_TIME: lambda _: threads(lambda: OneAtATime(noop)),
        BY_HAND: lambda size: threads(lambda: ThreadQueue(noop, size)),
        OURS: lambda size: threads(lambda: Pybatch(noop, size)),
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
