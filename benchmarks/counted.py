"""The loads that `instructions.py` counts.  It runs this file under callgrind, which counts from one mark to another.

Steps of a request's way are taken by hand, in a scheduler that has neither threads nor loops.  The collector of garbage
rests meanwhile: how much it works depends on how much is alive.  The whole way is that of `workloads.py`, collector
included; there threads change places only where one goes to sleep, and a server goes on until its queue is empty.

Each load is counted at two lengths, whose difference knows nothing of starting and stopping.
"""

import gc
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import repeat

from batchcore import loops
from batchcore.dispatcher import Batch, Dispatcher
from batchcore.engine import Engine
from batchcore.future import Future
from loads import OUTSTANDING, check, noop
from pybatch import Scheduler
from workloads import CONTENDERS, OURS

LENGTHS = (5 * OUTSTANDING, 15 * OUTSTANDING)
SIZE = 64
BATCH_NS = 1_000_000
CLOCK = 2**63 - 1  # the virtual time of a dispatcher that reads the clock
exhaust = deque[object](maxlen=0).extend


@contextmanager
def counted(name: str, requests: int, *, collecting: bool = False) -> Iterator[None]:
    """Count the block, say whose count it is, and keep the collector from what is older than it."""
    print(name, requests, sep="\t")
    gc.collect()
    gc.freeze()
    if not collecting:
        gc.disable()
    os.getuid()  # callgrind starts to count here
    yield
    os.getppid()  # and writes the count here
    gc.enable()


class ByHand(Dispatcher):
    """Asks nobody to take batches: the load does."""

    def signal(self) -> int:
        return 0

    def join(self, timeout: float | None = None) -> None:
        pass


class Unserved(Scheduler[int, int]):
    """A scheduler with its defaults that has learned what full batches take, and runs one, on its only worker."""

    def __init__(self) -> None:
        super().__init__(noop, max_batch_size=SIZE)
        self.dispatcher.virtual_ns = time.monotonic_ns()
        for _ in range(100):
            batch = self.take()
            self.dispatcher.virtual_ns += BATCH_NS
            self.dispatcher.finish(batch, batch.run())
        self.running = self.take()
        self.dispatcher.hand_over()

    def _driver(self, engine: Engine, name: str, is_async: bool, lent: bool) -> Dispatcher:
        return ByHand(engine, name)

    def take(self) -> Batch:
        self.submit_many(range(SIZE))
        batch = self.dispatcher.take()
        if batch is None or len(batch) != SIZE:
            raise RuntimeError("a full batch did not leave")
        return batch


def steps(requests: int) -> None:
    """Take every step by itself.

    Few are loops of Python, whose own cost would hide that of the step, and no long list grows, whose moves depend on
    where it lies.
    """
    batches = requests // SIZE
    with Unserved() as scheduler:
        dispatcher, take, finish = scheduler.dispatcher, scheduler.dispatcher.take, scheduler.dispatcher.finish
        dispatcher.virtual_ns = CLOCK
        with counted("submit", requests):
            exhaust(map(scheduler.submit, repeat(0, requests)))
        with counted("submit_many of 64", requests):
            exhaust(map(scheduler.submit_many, repeat(range(SIZE), batches)))
        dispatcher.clear()
        dispatcher.virtual_ns = dispatcher.now_ns()
        futures = scheduler.submit_many(range(requests))
        finish(scheduler.running, scheduler.running.run())
        scheduler.reconfigure(max_concurrent_batches=batches)
        dispatcher.virtual_ns += BATCH_NS
        with counted("dispatch of 64", requests):
            served = [(batch, batch.run()) for batch in iter(take, None)]
        dispatcher.virtual_ns += BATCH_NS
        if len(served) != batches:
            raise RuntimeError(f"{requests} requests left in {len(served)} batches")
        with counted("completion of 64", requests):
            for batch, results in served:
                finish(batch, results)
        with counted("result", requests):
            exhaust(map(Future.result, futures))
        check([future.result() for future in futures])


def ways(requests: int) -> None:
    """Go the whole way under a full queue."""
    for path, size in ("threads", 1), ("threads", SIZE), ("asyncio, async fn", SIZE), ("asyncio, sync fn", SIZE):
        name = f"{path}, max_batch_size={size}"
        with CONTENDERS[path][OURS](size) as loads, counted(name, requests, collecting=True):
            loads.saturated(requests)


def main() -> None:
    sys.setswitchinterval(1e3)
    loops.LONGEST_TURN_NS = CLOCK
    for requests in LENGTHS:
        steps(requests)
        ways(requests)


if __name__ == "__main__":
    main()
