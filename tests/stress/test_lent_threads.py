"""Sixty-four threads and four event loops lend themselves: every call comes back, once, with what its item deserves."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from gates import in_thread
from pybatch import BatchAborted, DeadlineExceeded

if TYPE_CHECKING:
    from pybatch import Scheduler

pytestmark = [pytest.mark.stress, pytest.mark.timeout(180)]

LIMIT_S = 60.0
THREADS, LOOPS, EACH, LARGEST_BATCH = 64, 4, 200, 16
COUNT = (THREADS + LOOPS) * EACH
GOOD, BAD, POISON, STOP = range(4)


class Bad(Exception):
    """The error of one item."""


class Poisoned(Exception):
    """The error of a whole batch."""


class Stopped(BaseException):
    """What interrupts the thread that runs a batch."""


class Calls:
    """Items numbered from 0: what each is, and what became of it; one slot an item, so that nothing needs a lock."""

    def __init__(self, most_batches: int, switches: bool) -> None:
        choice = random.Random(most_batches)
        self.kinds = bytes(choice.choices((GOOD, BAD, POISON, STOP), (960, 30, 5, 5), k=COUNT))
        self.timeouts = choice.choices((None, 0.5, 5, 10_000), (85, 5, 5, 5), k=COUNT)
        self.computed = bytearray(COUNT)
        self.outcomes: list[Any] = [None] * COUNT
        self.places = threading.Semaphore(most_batches)
        self.overcrowded = False
        self.switches = switches

    def compute(self, items: list[int]) -> list[Any]:
        if not self.places.acquire(blocking=False):
            self.overcrowded = True
            raise Poisoned("too many at once")
        try:
            for item in items:
                self.computed[item] += 1
            if self.switches:
                threading.Event().wait(1e-4)
            kinds = {self.kinds[item] for item in items}
            if STOP in kinds:
                raise Stopped
            if POISON in kinds:
                raise Poisoned(items)
            return [Bad(item) if self.kinds[item] == BAD else item * 3 for item in items]
        finally:
            self.places.release()

    def thread(self, scheduler: Scheduler[int, int], items: range) -> None:
        for item in items:
            try:
                self.outcomes[item] = scheduler(item, timeout_ms=self.timeouts[item])
            except BaseException as error:
                self.outcomes[item] = error

    async def ask(self, scheduler: Scheduler[int, int], item: int) -> None:
        try:
            self.outcomes[item] = await scheduler.submit(item, timeout_ms=self.timeouts[item])
        except Exception as error:
            self.outcomes[item] = error

    async def loop(self, scheduler: Scheduler[int, int], items: range) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # `Stopped` comes out of the loop's turn
        for start in range(items.start, items.stop, 20):
            await asyncio.gather(*(self.ask(scheduler, item) for item in range(start, start + 20)))

    def check(self, item: int) -> str:
        outcome, kind, computed = self.outcomes[item], self.kinds[item], self.computed[item]
        if isinstance(outcome, DeadlineExceeded):
            assert (computed, self.timeouts[item] is None) == (0, False), item
        elif isinstance(outcome, Stopped):
            assert computed <= 1, item  # it led others' items, and its own was given up; or it was its own batch
        else:
            assert computed == 1, item
            if isinstance(outcome, BaseException):
                told = {Bad: (BAD,), Poisoned: (GOOD, BAD, POISON), BatchAborted: (GOOD, BAD, POISON, STOP)}
                assert kind in told[type(outcome)], (item, outcome)
            else:
                assert (outcome, kind) == (item * 3, GOOD)
        return type(outcome).__name__


@pytest.mark.parametrize("options", [{}, {"policy": "fixed", "max_wait_ms": 0.3}, {"spin_us": 20}], ids=str)
@pytest.mark.parametrize("most_batches", [1, 3])
@pytest.mark.parametrize("switches", [False, True])
def test_every_call_of_64_threads_and_4_loops_comes_back_as_it_should(
    scheduler_of: Callable[..., Scheduler[int, int]], most_batches: int, switches: bool, options: dict[str, Any]
) -> None:
    calls = Calls(most_batches, switches)
    scheduler = scheduler_of(
        calls.compute, run_in="caller", max_batch_size=LARGEST_BATCH, max_concurrent_batches=most_batches, **options
    )
    shares = [range(n * EACH, (n + 1) * EACH) for n in range(THREADS + LOOPS)]
    clients = [in_thread(calls.thread, scheduler, items) for items in shares[:THREADS]]
    clients += [in_thread(asyncio.run, calls.loop(scheduler, items)) for items in shares[THREADS:]]
    for client in clients:
        client.result(LIMIT_S)
    assert not calls.overcrowded
    outcomes = Counter(map(calls.check, range(COUNT)))
    assert all(outcomes[name] for name in ("int", "Bad", "Poisoned", "Stopped", "BatchAborted")), outcomes
    assert scheduler.stats().submitted == COUNT
