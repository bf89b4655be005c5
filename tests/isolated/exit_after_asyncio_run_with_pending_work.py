"""``asyncio.run``, and then the process, ends with requests pending that nobody awaits any more."""

import asyncio
import time

from pybatch import Scheduler


def slow(items: list[int]) -> list[int]:
    time.sleep(0.1)
    return items


async def slow_async(items: list[int]) -> list[int]:
    await asyncio.sleep(60)
    return items


async def main() -> None:
    for scheduler in schedulers:
        for item in range(10):
            scheduler.submit(item)
    tasks = [asyncio.ensure_future(scheduler.submit(item)) for scheduler in schedulers for item in range(10)]
    await asyncio.sleep(0.05)
    assert not any(task.done() and task.exception() for task in tasks)


schedulers = [Scheduler(fn, max_batch_size=1) for fn in (slow, slow_async)]
asyncio.run(main())
print("done")
