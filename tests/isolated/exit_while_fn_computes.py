"""The interpreter ends while a batch burns the processor in Python for much longer than anybody would wait."""

import threading

from pybatch import Scheduler

entered = threading.Event()


def burn(items: list[int]) -> list[int]:
    entered.set()
    while True:
        sum(range(1000))


scheduler = Scheduler(burn)
future = scheduler.submit(1)
assert entered.wait(20)
print("done")
