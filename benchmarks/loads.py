"""The two loads every contender is put under, and how it is made ready for them. Knows no contender, no benchmark tool.

Saturated
    There is always a full queue. Threads: one thread keeps 1,024 requests outstanding and takes the oldest answer
    before it submits the next. asyncio: 1,024 client tasks, each awaiting one request at a time.
Idle round trip
    There is never a queue: one caller submits, waits for the answer, and submits again.

``fn`` returns its list as it is, so that nothing is measured but the way there and back. The garbage collector and
the interpreter's thread switch interval stay as users have them.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat

from contenders.interface import AsyncContender, ThreadContender

OUTSTANDING = 1024


@dataclass(frozen=True, slots=True)
class Loads:
    """The loads, bound to one live contender; each takes the number of requests (saturated: a multiple of 1,024)."""

    saturated: Callable[[int], None]
    round_trips: Callable[[int], None]


def noop(items: list[int]) -> list[int]:
    return items


async def async_noop(items: list[int]) -> list[int]:
    return items


def saturate(contender: ThreadContender, requests: int, outstanding: int = OUTSTANDING) -> None:
    submit = contender.submit
    answers = deque(submit(0) for _ in range(outstanding))
    oldest, append = answers.popleft, answers.append
    for _ in repeat(None, requests - outstanding):
        oldest().result()
        append(submit(0))
    for answer in answers:
        answer.result()


async def saturate_loop(contender: AsyncContender, requests: int) -> None:
    submit = contender.submit

    async def client() -> None:
        for _ in repeat(None, requests // OUTSTANDING):
            await submit(0)

    await asyncio.gather(*(client() for _ in range(OUTSTANDING)))


def round_trips(contender: ThreadContender, requests: int) -> None:
    submit = contender.submit
    for _ in repeat(None, requests):
        submit(0).result()


async def round_trips_loop(contender: AsyncContender, requests: int) -> None:
    submit = contender.submit
    for _ in repeat(None, requests):
        await submit(0)


def check(answers: list[int]) -> None:
    """Raise unless `answers` are those of the items 0, 1, 2, ...: a wrong answer is not worth timing."""
    if answers != list(range(len(answers))):
        raise RuntimeError(f"the contender mixed up its answers: {answers[:10]}...")


@contextmanager
def threads(make: Callable[[], ThreadContender]) -> Iterator[Loads]:
    """Give the loads for a contender on the thread path, warmed up; close it at the end."""
    contender = make()
    try:
        check([answer.result() for answer in [contender.submit(item) for item in range(2 * OUTSTANDING)]])
        yield Loads(lambda requests: saturate(contender, requests), lambda requests: round_trips(contender, requests))
    finally:
        contender.close()


@contextmanager
def loop(make: Callable[[], AsyncContender]) -> Iterator[Loads]:
    """Give the loads for a contender on an event loop of its own, warmed up; close both at the end."""

    async def start() -> AsyncContender:
        return make()

    async def warm_up() -> list[int]:
        async def client(item: int) -> int:
            return await contender.submit(item)

        return await asyncio.gather(*(client(item) for item in range(2 * OUTSTANDING)))

    with asyncio.Runner() as runner:
        contender = runner.run(start())
        try:
            check(runner.run(warm_up()))
            yield Loads(
                lambda requests: runner.run(saturate_loop(contender, requests)),
                lambda requests: runner.run(round_trips_loop(contender, requests)),
            )
        finally:
            runner.run(contender.close())
