"""Forking again and again in the middle of everything never leaves a child with a lock that nobody will release."""

import os
import threading
import warnings

from pybatch import Scheduler, SchedulerClosed

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

stop = threading.Event()


def ask() -> None:
    while not stop.is_set():
        futures = scheduler.submit_many(range(20), timeout_ms=1_000)
        futures[3].cancel()
        for future in futures[4:]:
            future.result(20)


scheduler = Scheduler(lambda items: items, max_batch_size=4, max_concurrent_batches=2)
pending = Scheduler(lambda items: items, max_batch_size=64, policy="fixed", max_wait_ms=3_600_000)
asking = [threading.Thread(target=ask) for _ in range(4)]
for thread in asking:
    thread.start()
for turn in range(40):
    left = pending.submit(turn)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert isinstance(left.exception(20), SchedulerClosed)
            assert scheduler.submit(turn, timeout_ms=20_000).result(20) == turn
            assert list(scheduler.map(range(20))) == list(range(20))
            scheduler.shutdown()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in asking:
    thread.join(20)
    assert not thread.is_alive()
scheduler.shutdown()
pending.shutdown()
print("done")
