"""The main thread waits for a batch that never ends."""

import threading

from pybatch import Scheduler


def stuck(items: list[int]) -> list[int]:
    threading.Event().wait()
    return items


scheduler = Scheduler(stuck)
future = scheduler.submit(1)
print("ready", flush=True)
future.result()
