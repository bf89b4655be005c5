"""Making, using and forgetting schedulers in all orders leaves no memory, thread or metric behind."""

import asyncio
import gc
import sys
import threading
import time
import warnings

from prometheus_client import REGISTRY, generate_latest

from pybatch import Scheduler

warnings.simplefilter("ignore", ResourceWarning)


async def compute_async(items: list[int]) -> list[int]:
    return items


async def ask() -> None:
    async with Scheduler(compute_async, name="of a loop") as scheduler:
        assert await scheduler.submit(1) == 1


def use(turn: int) -> None:
    scheduler = Scheduler(compute_async if turn % 3 == 0 else lambda items: items, name="passing", max_batch_size=4)
    if turn % 5:
        assert scheduler.submit(1).result(20) == 1
        scheduler.submit_many(range(10), timeout_ms=60_000)
    if turn % 2:
        scheduler.shutdown(wait=turn % 4 == 1, cancel_futures=turn % 7 == 0)


def at_rest() -> int:
    limit = time.monotonic() + 20
    while threading.active_count() > 1:
        assert time.monotonic() < limit, threading.enumerate()
        time.sleep(0.001)
    gc.collect()
    return sys.getallocatedblocks()


before = 0
for turn in range(400):
    if turn == 100:
        before = at_rest()
    use(turn)
    if turn % 10 == 0:
        asyncio.run(ask())
left = at_rest() - before
assert left < 1_000, f"{left} blocks were left"
assert b"passing" not in generate_latest(REGISTRY)
print("done")
