"""The garbage collector runs destructors that use the scheduler at any moment, also inside the scheduler itself."""

import contextlib
import gc
import threading

from pybatch import Scheduler, SchedulerClosed

more = []


class Meddler:
    def __init__(self) -> None:
        self.itself = self  # only the collector frees it

    def __del__(self) -> None:
        with contextlib.suppress(SchedulerClosed):
            more.append(scheduler.submit("from a destructor", timeout_ms=20_000))
            scheduler.submit("dropped").cancel()
        scheduler.stats()


def ask() -> None:
    for item in range(500):
        Meddler()
        future = scheduler.submit(item, priority=item % 3)
        future.add_done_callback(lambda _: Meddler())
        if item % 8 == 0:
            assert future.result(20) == item


def compute(items: list[int | str]) -> list[int | str]:
    return [item if isinstance(item, str) else Meddler() and item for item in items]


scheduler = Scheduler(compute, max_batch_size=8, max_concurrent_batches=2)
gc.set_threshold(1, 1, 1)
asking = [threading.Thread(target=ask) for _ in range(4)]
for thread in asking:
    thread.start()
for thread in asking:
    thread.join(40)
    assert not thread.is_alive(), "a deadlock"
gc.set_threshold(700, 10, 10)
gc.collect()
assert scheduler.drain(20)
assert len(more) > 1000
assert all(future.result(20) == "from a destructor" for future in more)
scheduler.shutdown()
print("done")
