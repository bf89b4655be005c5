"""Nothing is quadratic: 200,000 requests in whatever order take a second or two, not minutes.

No clock is read: the limit of each test is its time-out, far above what even a slow machine needs, far below what one
scan of the queue for each request would take (2 * 10**10 steps).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from batchcore.engine import Engine, Request

pytestmark = pytest.mark.timeout(20)

COUNT = 200_000


def drain(engine: Engine, size: int) -> Iterator[Request]:
    """Serve everything in batches of `size`."""
    engine.reconfigure(COUNT, max_batch_size=size)
    engine.set_capacity(COUNT, 1)
    while (decision := engine.decide(COUNT)).kind == "dispatch":
        yield from decision.batch
        engine.complete(COUNT, decision)


def paused() -> Engine:
    """An engine that only queues, and under `fixed` asks for the oldest and the earliest all the time."""
    return Engine(policy="fixed", max_wait_ns=0, max_queue_size=COUNT, capacity=0, max_batch_size=1_000)


@pytest.mark.parametrize("size", [1, 1_000])
def test_a_long_queue_first_in_first_out(size: int) -> None:
    engine = paused()
    requests = [engine.submit(now) for now in range(COUNT)]
    assert list(drain(engine, size)) == requests


@pytest.mark.parametrize("size", [1, 1_000])
@pytest.mark.parametrize(
    "priority",
    [
        pytest.param(lambda i: i % 3, id="three priorities"),
        pytest.param(lambda i: -i, id="each before all others"),
        pytest.param(lambda i: random.Random(i).randint(-1_000, 1_000), id="random priorities"),
    ],
)
def test_a_long_queue_with_priorities(size: int, priority: Callable[[int], int]) -> None:
    engine = paused()
    requests = [engine.submit(0, priority=priority(i)) for i in range(COUNT)]
    requests.sort(key=lambda request: request.priority)
    assert list(drain(engine, size)) == requests


def test_a_long_queue_with_deadlines_expires() -> None:
    engine = paused()
    chance = random.Random(1)
    requests = [engine.submit(0, deadline_ns=chance.randint(1, COUNT)) for _ in range(COUNT)]
    requests.sort(key=lambda request: request.deadline_ns or 0)
    expired: list[Request] = []
    for now in range(10, COUNT + 10, 10):
        expired.extend(engine.decide(now).expired)
    assert expired == requests


@pytest.mark.parametrize("order", ["oldest first", "newest first", "shuffled"])
@pytest.mark.parametrize("mixed", [False, True], ids=["equals", "random priorities and deadlines"])
def test_cancelling_a_long_queue_one_by_one(order: str, mixed: bool) -> None:
    engine = paused()
    chance = random.Random(2)
    requests = [
        engine.submit(
            now,
            priority=chance.randint(-1_000, 1_000) if mixed else 0,
            deadline_ns=chance.randint(10 * COUNT, 20 * COUNT) if mixed else None,
        )
        for now in range(COUNT)
    ]
    if order == "newest first":
        requests.reverse()
    elif order == "shuffled":
        chance.shuffle(requests)
    for request in requests:
        assert engine.cancel(COUNT, request)
        engine.next_wakeup_ns()
    assert engine.stats().queued == 0


def test_a_queue_that_is_served_as_fast_as_it_fills() -> None:
    engine = Engine(policy="fixed", max_wait_ns=5, max_batch_size=8)
    chance = random.Random(3)
    for now in range(COUNT):
        engine.submit(now, priority=chance.randint(-3, 3), deadline_ns=now + chance.randint(50, 500))
        decision = engine.decide(now)
        if decision.kind == "dispatch":
            engine.complete(now, decision)
    stats = engine.stats()
    assert stats.queued < 8
    assert stats.completed + stats.expired + stats.queued == COUNT


MANY = 10_000


@pytest.mark.parametrize("shares", [None, {}], ids=["the soonest first", "fair shares"])
def test_many_keys_with_a_backlog(shares: dict[int, float] | None) -> None:
    engine = Engine(max_batch_size=4, max_queue_size=COUNT, capacity=0, shares=shares)
    for i in range(COUNT):
        engine.submit(i, key=i % MANY)
    engine.set_capacity(COUNT, 1)
    served = 0
    while (decision := engine.decide(COUNT)).kind == "dispatch":
        served += len(decision.batch)
        engine.complete(COUNT, decision)
        assert engine.next_wakeup_ns() is None or served < COUNT
    assert (served, len(engine.keys)) == (COUNT, 0)


def test_many_keys_in_their_windows_while_one_is_busy() -> None:
    engine = Engine(policy="fixed", max_wait_ns=10 * COUNT, max_batch_size=2, max_queue_size=COUNT)
    for key in range(MANY):
        engine.submit(key, key=key)
    for now in range(MANY, COUNT):
        for _ in range(2):
            engine.submit(now, key="busy")
        engine.complete(now, engine.decide(now))
        assert engine.decide(now).wake_at_ns == 10 * COUNT
    assert engine.stats().queued == MANY


def test_many_keys_with_deadlines_and_cancels() -> None:
    engine = Engine(max_queue_size=COUNT, capacity=0)
    chance = random.Random(4)
    requests = [
        engine.submit(0, key=chance.randrange(MANY), deadline_ns=chance.randint(1, COUNT)) for _ in range(COUNT)
    ]
    chance.shuffle(requests)
    ended = 0
    for now in range(20, COUNT + 20, 20):
        ended += len(engine.decide(now).expired)
        ended += sum(engine.cancel(now, request) for request in requests[now // 20 * 10 : now // 20 * 10 + 10])
    assert (ended, len(engine.keys)) == (COUNT, 0)


@pytest.mark.parametrize("padded", [False, True])
def test_a_long_queue_that_hardly_fits(padded: bool) -> None:
    """Most of what is looked at is too heavy for what is left, time and again."""
    engine = Engine(max_batch_weight=10, max_batch_size=100, max_queue_size=COUNT, capacity=0, padded=padded)
    for i in range(COUNT // 4):
        engine.submit(0, weight=6 + i % 5)
    engine.set_capacity(0, 1)
    served = 0
    while (decision := engine.decide(0)).kind == "dispatch":
        served += len(decision.batch)
        engine.complete(0, decision)
    assert served == COUNT // 4


def test_as_many_sizes_as_anyone_could_allow() -> None:
    engine = Engine(policy="adaptive", max_batch_size=2**17, allowed_batch_sizes=range(1, 2**17 + 1))
    for now in range(COUNT // 10):
        engine.submit(now, deadline_ns=now + 10**9)
        engine.complete(now + 1, engine.decide(now))
    assert engine.stats().completed == COUNT // 10
