"""Daemon threads submit and wait without end when the interpreter ends."""

import contextlib
import threading

from pybatch import Scheduler, SchedulerClosed

rounds = threading.Semaphore(0)


def ask() -> None:
    with contextlib.suppress(SchedulerClosed):
        while True:
            futures = scheduler.submit_many(range(10), timeout_ms=10_000)
            futures[3].cancel()
            futures[9].result()
            rounds.release()


scheduler = Scheduler(lambda items: items, max_batch_size=4, max_concurrent_batches=2)
for _ in range(4):
    threading.Thread(target=ask, daemon=True).start()
for _ in range(20):
    assert rounds.acquire(timeout=20)
print("done")
