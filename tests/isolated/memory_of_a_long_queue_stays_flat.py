"""A queued request takes at most 260 bytes beyond its item; 200,000 of them, queued and drained, leave none."""

import os
import sys
import threading
from array import array

from pybatch import Scheduler

COUNT, ROUNDS = 200_000, 6
# CPython 3.14 keeps room for attributes (inline values) in the instances of more classes, among them ours.
MOST_BYTES = 260 if sys.version_info < (3, 14) else 276


def compute(items: list[int]) -> list[int]:
    entered.set()
    opened.wait(20)
    return items


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no such thing on this platform; the size of a future is held all the same
        return 0


entered, opened = threading.Event(), threading.Event()
# Not lists: a number that is made at the height would keep a whole arena of Python's allocator.
before, full, empty = (array("q", [0] * ROUNDS) for _ in range(3))
futures = [None] * COUNT
with Scheduler(compute, max_batch_size=64, max_queue_size=COUNT) as scheduler:
    for turn in range(ROUNDS):
        entered.clear()
        opened.clear()
        first = scheduler.submit(0)
        assert entered.wait(20)
        before[turn] = resident_bytes()
        for i in range(COUNT):
            futures[i] = scheduler.submit(0, timeout_ms=1e6)
        full[turn] = resident_bytes()
        opened.set()
        assert all(future.result(20) == 0 for future in futures)
        assert first.result(20) == 0
        for i in range(COUNT):
            futures[i] = None
        empty[turn] = resident_bytes()
assert sys.getsizeof(first) <= MOST_BYTES, sys.getsizeof(first)
assert full[0] - before[0] <= MOST_BYTES * COUNT, f"{(full[0] - before[0]) / COUNT} bytes a request"
for sizes in full, empty:
    assert max(sizes[1:]) - sizes[1] < 0.01 * max(full), [list(each) for each in (before, full, empty)]
print("done")
