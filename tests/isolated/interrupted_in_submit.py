"""The main thread waits for room in a queue that never has any again."""

import threading

from pybatch import Scheduler


def stuck(items: list[int]) -> list[int]:
    threading.Event().wait()
    return items


scheduler = Scheduler(stuck, max_batch_size=1, max_queue_size=1, on_full="block")
print("ready", flush=True)
while True:
    scheduler.submit(1)
