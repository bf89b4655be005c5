"""The interpreter ends while daemon threads lead and follow, and a turn of a stopped loop is still to come."""

import asyncio
import atexit
import contextlib
import threading


def report() -> None:
    assert left[0].done()
    assert isinstance(left[0].exception(), SchedulerClosed)
    print("done")


atexit.register(report)  # before pybatch is imported, and so run after its own

from pybatch import Scheduler, SchedulerClosed  # noqa: E402

entered = threading.Event()


def stuck(items: list[int]) -> list[int]:
    entered.set()
    threading.Event().wait()
    return items


def call(scheduler: Scheduler[int, int], item: int) -> None:
    with contextlib.suppress(SchedulerClosed):
        scheduler(item)


busy = Scheduler(stuck, run_in="caller", max_batch_size=1, metrics=False)
threading.Thread(target=call, args=(busy, 0), daemon=True).start()
assert entered.wait(20)
for item in range(1, 4):
    threading.Thread(target=call, args=(busy, item), daemon=True).start()
while busy.stats().queued < 3:
    pass

idle = Scheduler(lambda items: items, run_in="caller", metrics=False)
left = []
loop = asyncio.new_event_loop()
loop.call_soon(loop.stop)
loop.call_soon(lambda: left.append(idle.submit(1)))
loop.run_forever()
