"""A daemon thread's event loop computes and awaits batches without end when the interpreter ends."""

import asyncio
import contextlib
import threading

from pybatch import Scheduler, SchedulerClosed

rounds = threading.Semaphore(0)


async def compute(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return items


async def main() -> None:
    with contextlib.suppress(SchedulerClosed):
        while True:
            await asyncio.gather(*map(scheduler.submit, range(10)), *map(plain.submit, range(10)))
            rounds.release()


scheduler, plain = Scheduler(compute, max_batch_size=4), Scheduler(lambda items: items, max_batch_size=4)
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
for _ in range(20):
    assert rounds.acquire(timeout=20)
print("done")
