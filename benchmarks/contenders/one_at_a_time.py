"""No batching: each item is a call of ``fn`` of its own, one call at a time, made by the caller itself.

With a no-op ``fn`` nothing can be cheaper, as there is no queue and no other thread: it is the floor that shows what
a batcher adds to a request. What batching saves shows only with an ``fn`` whose calls cost something.
"""

import asyncio
import threading

from contenders.interface import AsyncFn, Fn


class Done:
    """The answer of a call that is over."""

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        self._value = value

    def result(self) -> int:
        return self._value


class OneAtATime:
    def __init__(self, fn: Fn) -> None:
        self._fn = fn
        self._lock = threading.Lock()

    def submit(self, item: int) -> Done:
        with self._lock:
            return Done(self._fn([item])[0])

    def close(self) -> None:
        pass


class AsyncOneAtATime:
    def __init__(self, fn: AsyncFn) -> None:
        self._fn = fn
        self._lock = asyncio.Lock()

    async def submit(self, item: int) -> int:
        async with self._lock:
            return (await self._fn([item]))[0]

    async def close(self) -> None:
        pass
