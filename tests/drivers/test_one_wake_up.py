"""A finished batch wakes each waiting event loop once, however many of its tasks wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from gates import LIMIT_S, Gate, SchedulerOf, in_thread, one_turn


class CountingLoop(asyncio.SelectorEventLoop):
    """An event loop that counts how often another thread wakes it."""

    def __init__(self) -> None:
        super().__init__()
        self.wake_ups = 0
        self.ident = threading.get_ident()

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:
        self.wake_ups += threading.get_ident() != self.ident
        return super().call_soon_threadsafe(callback, *args, context=context)


async def await_many(gate: Gate, submit: Callable[[int], Any], count: int, ready: threading.Barrier) -> int:
    """Await that many requests of one batch; return how often the loop was woken for it."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    waiting = [asyncio.ensure_future(submit(item)) for item in range(count)]
    await one_turn()
    before = loop.wake_ups
    if ready.wait(LIMIT_S) == 0:
        gate.open()
    assert await asyncio.wait_for(asyncio.gather(*waiting), LIMIT_S) == list(range(count))
    return loop.wake_ups - before


@pytest.mark.parametrize("count", [1, 64])
def test_all_tasks_of_a_loop_are_woken_together(scheduler_of: SchedulerOf, count: int) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, max_batch_size=64)
    first = scheduler.submit("first")
    gate.wait_entered()
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        assert runner.run(await_many(gate, scheduler.submit, count, threading.Barrier(1))) == 1
    assert first.result(LIMIT_S) == "first"
    assert [len(batch) for batch in gate.batches] == [1, count]


def test_each_of_two_loops_is_woken_once_for_a_batch_they_share(scheduler_of: SchedulerOf) -> None:
    gate, ready = Gate(), threading.Barrier(2)
    scheduler = scheduler_of(gate.hold, max_batch_size=64)
    first = scheduler.submit("first")
    gate.wait_entered()

    def serve() -> int:
        with asyncio.Runner(loop_factory=CountingLoop) as runner:
            return runner.run(await_many(gate, scheduler.submit, 32, ready))

    assert [each.result(LIMIT_S) for each in [in_thread(serve), in_thread(serve)]] == [1, 1]
    assert first.result(LIMIT_S) == "first"
    assert [len(batch) for batch in gate.batches] == [1, 64]


def test_a_batch_that_fails_wakes_its_loop_once_too(scheduler_of: SchedulerOf) -> None:
    gate = Gate()

    def refuse(items: list[int]) -> list[int]:
        gate.hold(items)
        raise ValueError("refused")

    scheduler = scheduler_of(refuse, max_batch_size=64)
    first = scheduler.submit("first")
    gate.wait_entered()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        waiting = [asyncio.ensure_future(scheduler.submit(item)) for item in range(64)]
        await one_turn()
        before = loop.wake_ups
        gate.open()
        done, _ = await asyncio.wait(waiting, timeout=LIMIT_S)
        assert {type(task.exception()) for task in done} == {ValueError}
        assert len(done) == 64
        assert loop.wake_ups - before == 1

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(main())
    assert isinstance(first.exception(LIMIT_S), ValueError)
