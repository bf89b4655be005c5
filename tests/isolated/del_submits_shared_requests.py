"""The garbage collector runs destructors that use keys, big and shared requests, also while such are made and ended."""

import contextlib
import gc
import threading

import numpy as np

from pybatch import Scheduler, SchedulerClosed

more = []
here = threading.local()


class Meddler:
    def __init__(self) -> None:
        self.itself = self  # only the collector frees it

    def __del__(self) -> None:
        if getattr(here, "busy", False):
            return
        here.busy = True
        with contextlib.suppress(SchedulerClosed):
            more.append((shared.submit(-1, key="from a destructor", timeout_ms=20_000), -2))
            more.append((shared.submit_batch([1, 2, 3]), [2, 4, 6]))
            shared.submit(5).cancel()
            shared.submit_batch([5, 6]).cancel()
            stacks.submit(np.ones(4)).cancel()
        shared.stats()
        here.busy = False


def ask(seed: int) -> None:
    for n in range(300):
        Meddler()
        item = n * seed % 7
        futures = [
            (shared.submit(item, key=n % 3), 2 * item),
            (shared.submit_batch([item, n]), [2 * item, 2 * n]),
            (stacks.submit(np.full(3, n)), [2 * n] * 3),
        ]
        futures[0][0].add_done_callback(lambda _: Meddler())
        if n % 4 == 0:
            for future, expected in futures:
                result = future.result(20)
                assert (result if isinstance(result, int | list) else result.tolist()) == expected, (result, expected)
        elif n % 4 == 1:
            for future, _ in futures:
                future.cancel()


def compute(items: list[int]) -> list[int]:
    Meddler()
    return [2 * item for item in items]


shared = Scheduler(compute, max_batch_size=8, max_concurrent_batches=2, dedupe=True)
stacks = Scheduler(lambda batch: batch * 2, batch_as="stack", assemble="submit", max_batch_size=4)
gc.set_threshold(1, 1, 1)
asking = [threading.Thread(target=ask, args=(seed,)) for seed in (1, 2, 3)]
for thread in asking:
    thread.start()
for thread in asking:
    thread.join(50)
    assert not thread.is_alive(), "a deadlock"
gc.set_threshold(700, 10, 10)
gc.collect()
assert shared.drain(20)
assert stacks.drain(20)
assert len(more) > 100
assert all(future.result(20) == expected for future, expected in more)
shared.shutdown()
stacks.shutdown()
print("done")
