"""A hundred thousand requests, of all endings, leave no memory behind."""

import asyncio
import contextlib
import gc
import os
import sys

from pybatch import BatchError, Future, QueueFull, Scheduler

ROUND, ROUNDS, WARM_UP = 10_000, 10, 3


class Refusal(Exception):
    pass


def compute(items: list[int]) -> list[object]:
    if items[0] % 7 == 0:
        raise Refusal(items)
    return [Refusal() if item % 5 == 0 else bytes(100) for item in items]


async def compute_async(items: list[int]) -> list[object]:
    await asyncio.sleep(0)
    return compute(items)


def answer(future: Future[object]) -> None:
    with contextlib.suppress(Refusal, BatchError):
        future.result(20)


def round_of_threads(scheduler: Scheduler[int, object]) -> None:
    for start in range(0, ROUND, 100):
        futures = []
        for item in range(start, start + 100):
            future = scheduler.submit(item, timeout_ms=(None, 0, 0.01, 60_000)[item % 4], priority=item % 3 - 1)
            if item % 11:
                futures.append(future)
                future.add_done_callback(lambda _: None)
            else:
                future.cancel()
        for future in futures:
            answer(future)
    with contextlib.suppress(QueueFull):
        scheduler.submit_many(bytes(scheduler.stats().max_queue_size + 1))


async def ask(scheduler: Scheduler[int, object], item: int) -> None:
    with contextlib.suppress(Refusal, BatchError, TimeoutError):
        await asyncio.wait_for(scheduler.submit(item), 0.0005 if item % 9 == 0 else None)


async def round_of_loop(scheduler: Scheduler[int, object]) -> None:
    for start in range(0, ROUND // 4, 100):
        await asyncio.gather(*(ask(scheduler, item) for item in range(start, start + 100)))


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no such thing on this platform; the blocks are counted all the same
        return 0


def measure() -> tuple[int, int]:
    gc.collect()
    return sys.getallocatedblocks(), resident_bytes()


threads = Scheduler(compute, max_batch_size=16, max_queue_size=1000)
loops = Scheduler(compute_async, max_batch_size=16)
before = (0, 0)
for turn in range(ROUNDS + WARM_UP):
    if turn == WARM_UP:
        before = measure()
    round_of_threads(threads)
    asyncio.run(round_of_loop(threads))
    asyncio.run(round_of_loop(loops))
after = measure()
assert after[0] - before[0] < 1_000, f"{after[0] - before[0]} blocks were left"
assert after[1] - before[1] < 8_000_000, f"{after[1] - before[1]} bytes were left"
threads.shutdown()
loops.shutdown()
print("done")
