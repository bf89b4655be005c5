"""What threads share, one thing after the other: what is looked up and then changed, ended by two, or read meanwhile.

Made for interpreters without the GIL, where every one of these is a race; with it they hold too.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import itertools
import queue
import random
import threading
import weakref
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pybatch import BatchAborted, QueueFull, SchedulerClosed, current_batch

if TYPE_CHECKING:
    from pybatch import Future, Scheduler

pytestmark = [pytest.mark.stress, pytest.mark.timeout(180)]

LIMIT_S = 60.0
THREADS = 6

SchedulerOf = Callable[..., "Scheduler[Any, Any]"]
Crowd = Callable[..., None]


class Name:
    """A key whose `__hash__` and `__eq__` are Python code, in which another thread's turn may come."""

    def __init__(self, name: object) -> None:
        self.name = name

    def __hash__(self) -> int:
        return hash(self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Name) and self.name == other.name


def tripled(items: list[int]) -> list[int]:
    return [item * 3 for item in items]


def balanced(scheduler: Scheduler[Any, Any]) -> None:
    """Hold that one snapshot agrees with itself, whatever happens meanwhile."""
    stats = scheduler.stats()
    ended = stats.completed + stats.failed + stats.rejected + stats.expired + stats.cancelled + stats.shut_down
    assert stats.submitted == stats.queued + stats.running + ended, stats
    assert stats.batches == sum(stats.batches_by_reason.values()), stats
    assert stats.batches == sum(stats.batch_size.counts), stats


@pytest.mark.parametrize("run_in", ["worker", "caller"])
@pytest.mark.parametrize("key_of", [str, Name], ids=["keys of C", "keys of Python"])
@pytest.mark.parametrize("shares", [None, lambda key: 2.0], ids=["no shares", "shares"])
def test_keys_that_come_and_go_keep_their_requests_apart(
    scheduler_of: SchedulerOf, crowd: Crowd, key_of: Callable[[object], Hashable], shares: Any, run_in: str
) -> None:
    def fn(items: list[tuple[Hashable, int]]) -> list[int]:
        assert {key for key, _ in items} == {current_batch().key}
        return tripled([item for _, item in items])

    scheduler = scheduler_of(fn, share_by_key=shares, max_concurrent_batches=3, max_batch_size=4, run_in=run_in)

    def client(seed: int) -> None:
        choice = random.Random(seed)
        for item in range(800):
            key = key_of(choice.randrange(3))
            some = [scheduler.submit((key, i), key=key) for i in (item, item + 1)]
            if choice.random() < 0.2:
                some.pop().cancel()
            assert [future.result(LIMIT_S) for future in some] == [item * 3, item * 3 + 3][: len(some)]

    crowd(*(functools.partial(client, seed) for seed in range(THREADS)))
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().keys == 0


def test_a_storm_of_identical_items_gives_each_caller_the_answer_and_keeps_nothing(
    scheduler_of: SchedulerOf, crowd: Crowd
) -> None:
    marks: weakref.WeakSet[Name] = weakref.WeakSet()
    counted = itertools.count()

    def mark(item: int) -> Name:
        name = Name(item)
        marks.add(name)
        return name

    def fn(items: list[int]) -> list[int]:
        for _ in items:
            next(counted)
        return tripled(items)

    scheduler = scheduler_of(fn, dedupe=mark, max_concurrent_batches=2, max_batch_size=4)

    def client(seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(800):
            item = choice.randrange(3)
            future = scheduler.submit(item)
            if choice.random() < 0.3 and future.cancel():
                assert future.cancelled()
            else:
                assert future.result(LIMIT_S) == item * 3

    crowd(*(functools.partial(client, seed) for seed in range(THREADS)))
    assert scheduler.drain(LIMIT_S)
    assert 0 < next(counted) <= THREADS * 800
    gc.collect()
    assert not marks


@pytest.mark.parametrize("run_in", ["worker", "caller"])
def test_requests_of_many_rows_come_back_whole(scheduler_of: SchedulerOf, crowd: Crowd, run_in: str) -> None:
    def fn(items: list[int]) -> list[Any]:
        return [ValueError(item) if item < 0 else item * 3 for item in items]

    scheduler = scheduler_of(fn, max_batch_size=8, max_concurrent_batches=3, run_in=run_in)

    def client(seed: int) -> None:
        choice = random.Random(seed)
        for first in range(300):
            rows = list(range(first, first + choice.randrange(20)))
            bad = bool(rows) and choice.random() < 0.2
            future = scheduler.submit_batch([*rows, -1] if bad else rows)
            cancelled = choice.random() < 0.3 and future.cancel()
            assert future.cancelled() == cancelled
            if not cancelled and bad:
                assert isinstance(future.exception(LIMIT_S), ValueError)
            elif not cancelled:
                assert future.result(LIMIT_S) == tripled(rows)

    crowd(*(functools.partial(client, seed) for seed in range(THREADS)))


@pytest.mark.parametrize("run_in", ["worker", "caller"])
def test_all_agree_on_how_a_request_ended_that_some_cancel_and_some_listen_to(
    scheduler_of: SchedulerOf, crowd: Crowd, run_in: str
) -> None:
    rounds, callers = 300, 2 * THREADS
    scheduler = scheduler_of(tripled, run_in=run_in, max_concurrent_batches=2)
    turn = threading.Barrier(callers)
    place: list[Future[int]] = []
    seen: list[list[str]] = [[] for _ in range(rounds)]
    calls: list[list[int]] = [[0] * callers for _ in range(rounds)]

    def called(number: int, caller: int, _: Future[int]) -> None:
        calls[number][caller] += 1

    def wait(future: Future[int], caller: int) -> None:
        if caller % 4 == 1:
            concurrent.futures.wait([future], LIMIT_S)
        elif caller % 4 == 2:
            asyncio.run(awaited(future))
        elif caller % 4 == 3 and not future.cancel():
            future.running()

    async def awaited(future: Future[int]) -> None:
        await asyncio.wait([asyncio.wrap_future(future)])

    def client(caller: int) -> None:
        for number in range(rounds):
            if turn.wait(LIMIT_S) == 0:
                place[:] = [scheduler.submit(number)]
            turn.wait(LIMIT_S)
            future = place[0]
            future.add_done_callback(functools.partial(called, number, caller))
            if number % 3 or caller % 4 != 3:
                wait(future, caller)
            try:
                assert future.result(LIMIT_S) == number * 3
                seen[number].append("done")
            except concurrent.futures.CancelledError:
                seen[number].append("cancelled")

    crowd(*(functools.partial(client, caller) for caller in range(callers)))
    assert [len(set(how)) for how in seen] == [1] * rounds
    scheduler.shutdown()  # and with it the last callbacks have returned
    assert calls == [[1] * callers] * rounds


@pytest.mark.parametrize("run_in", ["worker", "caller"])
def test_whoever_looks_or_meddles_meanwhile_sees_a_state_that_agrees_with_itself(
    scheduler_of: SchedulerOf, crowd: Crowd, run_in: str, tmp_path: Any
) -> None:
    scheduler = scheduler_of(tripled, max_batch_size=8, max_concurrent_batches=2, run_in=run_in, name="watched")
    over = threading.Event()
    left = itertools.count(1)

    def client() -> None:
        for item in range(800):
            futures = scheduler.submit_many([item, item + 1], timeout_ms=60_000)
            assert [future.result(LIMIT_S) for future in futures] == [item * 3, item * 3 + 3]
        if next(left) == THREADS:
            over.set()

    def look() -> None:
        while not over.is_set():
            balanced(scheduler)
            explanation = scheduler.explain()
            assert "watched" in str(explanation)
            assert len(explanation.past) <= 32
            assert "watched" in repr(scheduler)
            scheduler.estimate()
            scheduler.cost_model()

    def meddle(option: str, *values: Any) -> None:
        for value in itertools.cycle(values):
            scheduler.reconfigure(**{option: value})
            scheduler.flush()
            if over.wait(1e-3):
                return

    def drain() -> None:
        while not over.is_set():
            futures = scheduler.submit_many([1, 2, 3])
            assert scheduler.drain(LIMIT_S)
            assert all(future.done() for future in futures)

    def record() -> None:
        for number in itertools.count():
            with scheduler.record(tmp_path / f"{number % 4}.csv") as recording:
                scheduler.submit(0).result(LIMIT_S)
            assert recording.count > 0
            if over.is_set():
                return

    def hasty(view: Any) -> int:
        view.deadlines(3), view.busy_until_ns(), view.predict_ns(1)
        return int(view.queued)

    crowd(
        *[client] * THREADS,
        look,
        drain,
        record,
        functools.partial(meddle, "max_batch_size", 1, 2, 8),
        functools.partial(meddle, "policy", "immediate", hasty, "adaptive"),
        functools.partial(meddle, "max_concurrent_batches", 1, 2, 3),
    )
    scheduler.reconfigure(policy="immediate", max_batch_size=5, max_queue_size=77)
    stats = scheduler.stats()
    assert (stats.max_batch_size, stats.max_queue_size) == (5, 77)


def test_options_that_are_changed_at_once_are_all_in_force(scheduler_of: SchedulerOf, crowd: Crowd) -> None:
    scheduler = scheduler_of(tripled)

    def meddle(option: str) -> None:
        for value in range(1, 1000):
            scheduler.reconfigure(**{option: value})

    names = ("max_batch_size", "max_queue_size", "max_wait_ms", "max_concurrent_batches")
    crowd(*(functools.partial(meddle, name) for name in names))
    stats = scheduler.stats()
    assert (stats.max_batch_size, stats.max_queue_size, stats.max_wait_ns, stats.capacity) == (999, 999, 999e6, 999)


@pytest.mark.parametrize("cancels", [False, True])
@pytest.mark.parametrize("run_in", ["worker", "caller"])
def test_a_shutdown_in_the_middle_leaves_nobody_without_an_end(
    scheduler_of: SchedulerOf, crowd: Crowd, run_in: str, cancels: bool
) -> None:
    for _ in range(10):
        scheduler = scheduler_of(
            tripled, run_in=run_in, max_batch_size=4, max_concurrent_batches=2, max_queue_size=50, on_full="block"
        )
        accepted = itertools.count()
        middle = threading.Event()
        ends: list[Future[int]] = []

        def client(scheduler: Any, accepted: Any, middle: Any, ends: Any) -> None:
            try:
                for item in itertools.count():
                    ends.append(scheduler.submit(item))
                    if next(accepted) > 200:
                        middle.set()
            except SchedulerClosed:
                pass

        def stop(scheduler: Any, middle: Any) -> None:
            assert middle.wait(LIMIT_S)
            scheduler.shutdown(cancel_futures=cancels)

        crowd(
            *[functools.partial(client, scheduler, accepted, middle, ends)] * THREADS,
            *[functools.partial(stop, scheduler, middle)] * 2,
        )
        concurrent.futures.wait(ends, LIMIT_S)
        assert all(future.done() for future in ends)
        stats = scheduler.stats()
        assert stats.submitted == len(ends) == stats.completed + stats.cancelled, stats
        assert cancels or not stats.cancelled


@pytest.mark.parametrize("assemble", ["dispatch", "submit"])
@pytest.mark.parametrize("size", [7, 1 << 18], ids=["small rows", "rows copied without the GIL"])
def test_memory_of_batches_that_go_from_hand_to_hand_is_nobody_elses(
    scheduler_of: SchedulerOf, crowd: Crowd, assemble: str, size: int
) -> None:
    rounds = 800 if size < 100 else 20
    shown: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def fn(batch: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        first = batch[:, 0].copy()
        for _ in range(2):
            shown.put((batch[:, ::3], first[:, None]))
        return first * 3

    scheduler = scheduler_of(fn, batch_as="stack", assemble=assemble, max_batch_size=4, max_concurrent_batches=2)
    left = itertools.count(1)

    def client(number: int) -> None:
        for i in range(rounds):
            value = float(number * rounds + i)
            assert scheduler.submit(np.full(size, value)).result(LIMIT_S) == value * 3
        if next(left) == THREADS:
            for _ in range(2):
                shown.put(None)

    def holder() -> None:
        held: list[Any] = []
        while (pair := shown.get(timeout=LIMIT_S)) is not None:
            held.append(pair)
            view, first = held.pop(0) if len(held) > 2 else pair
            assert (view == first).all()
            del view, first, pair
        assert all((view == first).all() for view, first in held)

    crowd(*(functools.partial(client, number) for number in range(THREADS)), holder, holder)
    stats = scheduler.stats()
    assert stats.item_elements == THREADS * rounds * size


@pytest.mark.parametrize("is_async", [True, False], ids=["async fn", "on its callers"])
def test_loops_that_come_and_go_get_their_answers(scheduler_of: SchedulerOf, crowd: Crowd, is_async: bool) -> None:
    async def fn(items: list[int]) -> list[int]:
        await asyncio.sleep(0)
        return tripled(items)

    options = {} if is_async else {"run_in": "caller"}
    scheduler = scheduler_of(fn if is_async else tripled, max_concurrent_batches=3, **options)

    async def ask(item: int) -> int:
        try:
            answer: int = await scheduler.submit(item)
        except BatchAborted:  # its batch ran on a loop that ended
            answer = item * 3
        return answer

    async def some(first: int) -> None:
        items = range(first, first + 10)
        assert await asyncio.gather(*map(ask, items)) == tripled(list(items))

    def loops(first: int) -> None:
        for number in range(60):
            asyncio.run(some(first + number))

    def blocking() -> None:
        for item in range(800):
            try:
                assert scheduler(item) == item * 3
            except BatchAborted:
                assert is_async

    crowd(*(functools.partial(loops, first * 100) for first in range(THREADS)), blocking, blocking)


def test_room_that_many_wait_for_is_given_to_each(scheduler_of: SchedulerOf, crowd: Crowd) -> None:
    scheduler = scheduler_of(tripled, max_queue_size=2, max_batch_size=2, on_full="block")

    async def wait_for_room() -> None:
        for item in range(40):
            assert await (await scheduler.submit_wait(item)) == item * 3

    def client() -> None:
        for item in range(500):
            assert scheduler(item) == item * 3

    def impatient() -> None:
        async def ask() -> None:
            for item in range(60):
                try:
                    await scheduler.submit(item)
                except QueueFull:
                    await asyncio.sleep(0)

        asyncio.run(ask())

    crowd(*[client] * THREADS, *[lambda: asyncio.run(wait_for_room())] * 2, impatient)
