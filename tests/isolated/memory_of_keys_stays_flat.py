"""A hundred thousand keys and shapes, used once or twice, leave no memory behind; nor do big and shared requests."""

import contextlib
import gc
import sys

import numpy as np

from pybatch import BatchError, QueueFull, Scheduler

ROUND, ROUNDS, WARM_UP = 10_000, 10, 3


class Refusal(Exception):
    pass


def compute(batch: object) -> object:
    return batch


def compute_padded(batch: object, lengths: object) -> object:
    return {"batch": batch, "lengths": lengths}


def bad_weight(item: object) -> int:
    raise Refusal


def answer(future: object) -> None:
    with contextlib.suppress(BatchError, Refusal):
        future.result(20)


def use(turn: int) -> None:
    for n in range(ROUND):
        key = f"{turn} {n}"
        lists.submit(n, key=key, timeout_ms=(None, 0)[n % 2])
        future = lists.submit(n, key=(key, 2))
        if n % 3 == 0:
            future.cancel()
        if n % 100 == 0:
            lists.drain()
        if n % 5 == 0:
            stacks.submit(np.zeros((turn * ROUND + n, 0)))
            answer(pads.submit_batch(np.zeros((3, n % 50), np.int64)))
            answer(shared.submit([key]))
            shared.submit([key]).cancel()
        if n % 1000 == 0:
            stacks.drain()
            with contextlib.suppress(TypeError):
                lists.submit_many([1, 2], key=[key])
            with contextlib.suppress(TypeError):
                stacks.submit_batch([np.zeros(n), object()], key=key)
            with contextlib.suppress(QueueFull):
                small.submit_many([1, 2, 3], key=key)
            with contextlib.suppress(Refusal):
                refusing.submit_batch([1, 2], key=key)
    for scheduler in (lists, stacks, pads, shared):
        scheduler.drain()
        assert scheduler.stats().keys == 0


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


lists = Scheduler(compute, max_batch_size=8, share_by_key=lambda key: 1.0)
stacks = Scheduler(compute, batch_as="stack", assemble="submit", max_batch_size=4)
pads = Scheduler(compute_padded, batch_as="pad", max_batch_size=8)
shared = Scheduler(compute, dedupe=True)
small = Scheduler(compute, max_queue_size=2)
refusing = Scheduler(compute, weight_fn=bad_weight)
before = 0
for turn in range(ROUNDS + WARM_UP):
    if turn == WARM_UP:
        before = blocks()
    use(turn)
left = blocks() - before
assert left < 1_000, f"{left} blocks were left"
for scheduler in (lists, stacks, pads, shared, small, refusing):
    scheduler.shutdown()
print("done")
