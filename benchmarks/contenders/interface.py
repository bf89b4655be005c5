"""What every contender looks like to a workload: ``submit`` an item, wait for its answer, ``close`` at the end.

A contender on the thread path is made with a sync ``fn``. One on the asyncio path is made while its loop runs, with
an ``async def fn`` or with a sync one that must not block the loop.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

Fn = Callable[[list[int]], Sequence[int]]
AsyncFn = Callable[[list[int]], Awaitable[Sequence[int]]]


class Answer(Protocol):
    """The promise of one result."""

    def result(self) -> int:
        """Wait for the result; raise what ``fn`` raised."""
        ...


class ThreadContender(Protocol):
    """A batcher for callers that block."""

    def submit(self, item: int, /) -> Answer:
        """Accept one item and return at once."""
        ...

    def close(self) -> None:
        """Answer what was accepted, then stop."""
        ...


class AsyncContender(Protocol):
    """A batcher for callers that await."""

    def submit(self, item: int, /) -> Awaitable[int]:
        """Accept one item; awaiting what this returns gives its result."""
        ...

    async def close(self) -> None:
        """Answer what was accepted, then stop."""
        ...
