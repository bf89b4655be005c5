"""The interpreter ends while an ``async def`` on the scheduler's own loop never comes back."""

import asyncio
import threading

from pybatch import Scheduler

entered = threading.Event()


async def stuck(items: list[int]) -> list[int]:
    entered.set()
    await asyncio.Event().wait()
    return items


scheduler = Scheduler(stuck, max_batch_size=1)
futures = [scheduler.submit(item) for item in range(5)]
assert entered.wait(20)
print("done")
