"""A child forked with requests of an ``async def`` pending on the scheduler's own loop uses the scheduler afresh."""

import asyncio
import os
import sys
import threading
import warnings

from pybatch import Scheduler, SchedulerClosed

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

entered, opened = threading.Event(), threading.Event()


async def hold(items: list[int]) -> list[int]:
    entered.set()
    while not opened.is_set():  # noqa: ASYNC110 - it is opened by another thread, and in the child by another process
        await asyncio.sleep(0.001)
    return items


async def ask() -> list[int]:
    return await asyncio.gather(*map(scheduler.submit, range(5)))


scheduler = Scheduler(hold, max_batch_size=1)
futures = [scheduler.submit(item) for item in range(5)]
assert entered.wait(20)
child = os.fork()
if child == 0:
    for future in futures:
        assert isinstance(future.exception(20), SchedulerClosed), future
    opened.set()
    assert scheduler.submit(1).result(20) == 1
    assert asyncio.run(ask()) == list(range(5))
    scheduler.shutdown()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
opened.set()
assert [future.result(20) for future in futures] == list(range(5))
assert asyncio.run(ask()) == list(range(5))
scheduler.shutdown()
print("done")
