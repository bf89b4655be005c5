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
