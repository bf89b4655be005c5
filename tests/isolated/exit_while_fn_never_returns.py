"""``sys.exit`` in the main thread while two batches block for ever; the exit code is the first argument."""

import sys
import threading

from pybatch import Scheduler

entered = threading.Semaphore(0)


def stuck(items: list[int]) -> list[int]:
    entered.release()
    threading.Event().wait()
    return items


scheduler = Scheduler(stuck, max_batch_size=1, max_concurrent_batches=2)
futures = [scheduler.submit(item) for item in range(5)]
for _ in range(2):
    assert entered.acquire(timeout=20)
print("done")
sys.exit(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
