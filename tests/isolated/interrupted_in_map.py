"""The main thread maps an endless iterator: interrupted at any moment, it ends."""

import itertools

from pybatch import Scheduler

scheduler = Scheduler(lambda items: items)
print("ready", flush=True)
for _ in scheduler.map(itertools.count()):
    pass
