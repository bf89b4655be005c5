"""Everything at once, from everywhere: every request ends exactly once, as it should, and is counted so.

The clients' choices come from a seed; what the operating system makes of them does not.  So nothing here expects a
certain order: each outcome is held against what its request was and what was done to it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import random
import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pybatch import BatchAborted, DeadlineExceeded, QueueFull

if TYPE_CHECKING:
    from pybatch import Future, Scheduler

pytestmark = [pytest.mark.stress, pytest.mark.timeout(180)]

LIMIT_S = 60.0
THREADS, LOOPS = 8, 4
LARGEST_BATCH, MOST_BATCHES = 64, 4
GOOD, BAD, POISON = range(3)

SchedulerOf = Callable[..., "Scheduler[int, int]"]


class Bad(Exception):
    """The error of one item."""


class Poisoned(Exception):
    """The error of a whole batch."""


def in_thread(fn: Callable[..., Any], *arguments: Any) -> concurrent.futures.Future[Any]:
    """Call `fn` in a daemon thread, which no broken test has to wait for."""
    outcome: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def call() -> None:
        try:
            outcome.set_result(fn(*arguments))
        except BaseException as error:
            outcome.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return outcome


class Storm:
    """Requests numbered from 0: what each is, what was done to it, and what became of it.

    One slot a request and one writer a slot, so that nothing here needs a lock.
    """

    def __init__(self, count: int, seed: int, patient: bool) -> None:
        choice = random.Random(seed)
        self.count = count
        self.seed = seed
        self.patient = patient  # callers wait for room
        self.kinds = bytes(choice.choices((GOOD, BAD, POISON), (970, 29, 1), k=count))
        self.timeouts = choice.choices((None, 0, -1, 0.05, 1, 5, 10_000), (70, 1, 1, 5, 8, 5, 10), k=count)
        self.priorities = choice.choices((0, 1, -1, 3), (85, 5, 5, 5), k=count)
        self.computed = bytearray(count)
        self.ended = bytearray(count)
        self.given_up = bytearray(count)
        self.withdrawn = bytearray(count)
        self.futures: list[Future[int] | None] = [None] * count

    def compute(self, items: list[int]) -> list[Any]:
        self.begin(items)
        return self.results(items)

    async def compute_async(self, items: list[int]) -> list[Any]:
        self.begin(items)
        await asyncio.sleep(0)
        return self.results(items)

    def begin(self, items: list[int]) -> None:
        for item in items:
            self.computed[item] += 1

    def results(self, items: list[int]) -> list[Any]:
        if any(self.kinds[item] == POISON for item in items):
            raise Poisoned(items)
        return [Bad(item) if self.kinds[item] == BAD else item * 3 for item in items]

    def arguments(self, item: int) -> dict[str, Any]:
        return {"timeout_ms": self.timeouts[item], "priority": self.priorities[item]}

    def note(self, item: int, future: Future[int]) -> None:
        """Remember the future of a request and count how often it ends."""
        self.futures[item] = future

        def end(_: Future[int]) -> None:
            self.ended[item] += 1

        future.add_done_callback(end)

    def thread(self, scheduler: Scheduler[int, int], items: range) -> None:
        """Be a thread that keeps up to two hundred requests outstanding."""
        choice = random.Random(f"{self.seed} {items}")
        outstanding: deque[tuple[int, Future[int]]] = deque()
        for item in items:
            try:
                future = scheduler.submit(item, **self.arguments(item))
            except QueueFull:
                continue
            self.note(item, future)
            outstanding.append((item, future))
            if choice.random() < 0.05:
                cancelled, victim = outstanding[choice.randrange(len(outstanding))]
                self.withdrawn[cancelled] |= victim.cancel()
            while len(outstanding) > choice.randrange(1, 200):
                _, oldest = outstanding.popleft()
                if choice.random() < 0.5:
                    concurrent.futures.wait([oldest], LIMIT_S)
                else:
                    with contextlib.suppress(concurrent.futures.CancelledError):
                        oldest.exception(LIMIT_S)
        concurrent.futures.wait([future for _, future in outstanding], LIMIT_S)

    async def ask(self, scheduler: Scheduler[int, int], item: int, chance: float) -> None:
        """Be a task that may lose its patience."""
        try:
            if self.patient:
                future = await scheduler.submit_wait(item, **self.arguments(item))
            else:
                future = scheduler.submit(item, **self.arguments(item))
        except QueueFull:
            return
        self.note(item, future)
        self.given_up[item] = chance < 0.1
        try:
            if chance < 0.05:
                await asyncio.wait_for(future, chance / 25)
            elif chance < 0.1:
                task = asyncio.ensure_future(future)
                await asyncio.sleep(0)
                task.cancel()
                await task
            else:
                await future
        except (Exception, asyncio.CancelledError):
            pass  # held against the books in the end

    async def loop(self, scheduler: Scheduler[int, int], items: range) -> None:
        """Be an event loop with a hundred tasks at a time."""
        choice = random.Random(f"{self.seed} {items}")
        for start in range(items.start, items.stop, 100):
            some = range(start, min(start + 100, items.stop))
            await asyncio.gather(*(self.ask(scheduler, item, choice.random()) for item in some))

    def meddle(self, scheduler: Scheduler[int, int], over: threading.Event) -> None:
        """Be somebody who changes the options all the time."""
        choice = random.Random(f"{self.seed} meddler")
        while not over.wait(0.003):
            scheduler.reconfigure(
                max_batch_size=choice.choice((1, 8, 32, LARGEST_BATCH)),
                max_wait_ms=choice.choice((None, 0, 0.5, 2)),
                max_latency_ms=choice.choice((None, 5)),
                max_concurrent_batches=choice.choice((1, 2, MOST_BATCHES)),
            )
            scheduler.flush()

    def rage(self, scheduler: Scheduler[int, int]) -> None:
        """Let all clients loose, and return when they have finished and everything has ended."""
        over, share = threading.Event(), self.count // (THREADS + LOOPS)
        shares = [range(n * share, (n + 1) * share) for n in range(THREADS + LOOPS - 1)]
        shares.append(range(shares[-1].stop, self.count))
        meddling = in_thread(self.meddle, scheduler, over)
        clients = [in_thread(self.thread, scheduler, items) for items in shares[:THREADS]]
        clients += [in_thread(asyncio.run, self.loop(scheduler, items)) for items in shares[THREADS:]]
        unfinished = concurrent.futures.wait(clients, LIMIT_S).not_done
        over.set()
        meddling.result(LIMIT_S)
        assert not unfinished, scheduler.stats()
        for client in clients:
            client.result(LIMIT_S)
        assert scheduler.drain(LIMIT_S)

    def outcome(self, item: int) -> str:
        """Tell how a request ended, and hold that against what it was and what was done to it."""
        future = self.futures[item]
        if future is None:
            assert not self.patient, item
            assert (self.ended[item], self.computed[item]) == (0, 0), item
            return "rejected"
        assert future.done(), item
        assert self.ended[item] == 1, item
        if future.cancelled():
            assert self.withdrawn[item] or self.given_up[item], item
            assert self.computed[item] == 0, item
            return "cancelled"
        assert not self.withdrawn[item], item
        error = future.exception(0)
        if isinstance(error, DeadlineExceeded):
            assert self.timeouts[item] is not None, item
            assert self.computed[item] == 0, item
            return "expired"
        assert self.computed[item] == 1, item
        timeout_ms = self.timeouts[item]
        assert timeout_ms is None or timeout_ms > 0, item
        if error is None:
            assert self.kinds[item] == GOOD, item
            assert future.result(0) == item * 3
            return "completed"
        if isinstance(error, Bad):
            assert error.args == (item,)
            assert self.kinds[item] == BAD, item
        elif isinstance(error, Poisoned):
            assert item in error.args[0]
        else:
            assert isinstance(error, BatchAborted), error
        return "failed"


@pytest.mark.parametrize(
    ("count", "options", "is_async"),
    [
        pytest.param(100_000, {"max_queue_size": 1000}, False, id="plain fn"),
        pytest.param(20_000, {"max_queue_size": 1000}, True, id="async fn"),
        pytest.param(50_000, {"max_queue_size": 1000, "run_in": "caller"}, False, id="plain fn on its callers"),
        pytest.param(20_000, {"max_queue_size": 50, "on_full": "block"}, False, id="plain fn, small queue"),
        pytest.param(20_000, {"max_queue_size": 50, "on_full": "block"}, True, id="async fn, small queue"),
    ],
)
def test_every_request_of_8_threads_and_4_event_loops_ends_exactly_once_and_as_expected(
    scheduler_of: SchedulerOf, count: int, options: dict[str, Any], is_async: bool
) -> None:
    storm = Storm(count, seed=1, patient=options.get("on_full") == "block")
    scheduler = scheduler_of(storm.compute_async if is_async else storm.compute, **options)
    storm.rage(scheduler)

    outcomes = Counter(map(storm.outcome, range(count)))
    stats = scheduler.stats()
    assert stats.submitted == count
    for ending in ("completed", "failed", "rejected", "expired", "cancelled", "shut_down"):
        assert getattr(stats, ending) == outcomes[ending], (ending, outcomes, stats)
    assert all(outcomes[ending] for ending in ("completed", "failed", "expired", "cancelled")), outcomes
    aborted = sum(isinstance(future.exception(0), BatchAborted) for future in storm.futures if failed(future))
    assert aborted == 0 or is_async, "only a loop that ends takes its batch along"
    assert aborted <= LOOPS * MOST_BATCHES * LARGEST_BATCH, "and it had no more than these"


def failed(future: Future[int] | None) -> bool:
    return future is not None and not future.cancelled()
