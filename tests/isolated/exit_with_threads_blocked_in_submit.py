"""Daemon threads wait for room in a full queue when the interpreter ends."""

import contextlib
import threading
import time

from pybatch import Scheduler, SchedulerClosed


def stuck(items: list[int]) -> list[int]:
    threading.Event().wait()
    return items


def submit() -> None:
    with contextlib.suppress(SchedulerClosed):
        scheduler.submit(1)


scheduler = Scheduler(stuck, max_batch_size=1, max_queue_size=1, on_full="block")
for _ in range(5):
    threading.Thread(target=submit, daemon=True).start()
while scheduler.stats().queued < 1:
    time.sleep(0.001)
print("done")
