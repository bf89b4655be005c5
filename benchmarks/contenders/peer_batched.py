"""Mixedbread's ``batched``: a processor with a thread of its own, and one on the event loop."""

from batched import BatchProcessor  # pyright: ignore[reportMissingImports]
from batched.aio import AsyncBatchProcessor  # pyright: ignore[reportMissingImports]

from contenders.interface import Answer, AsyncFn, Fn


class Batched:
    def __init__(self, fn: Fn, max_batch_size: int, **settings: float) -> None:
        self._processor = BatchProcessor(fn, batch_size=max_batch_size, **settings)

    def submit(self, item: int) -> Answer:
        # What its `__call__` does before it blocks. Calling it would take a thread for each outstanding request.
        answer: Answer = self._processor._schedule([item])[0]
        return answer

    def close(self) -> None:
        self._processor.shutdown()


class AsyncBatched:
    def __init__(self, fn: AsyncFn, max_batch_size: int, **settings: float) -> None:
        self.submit = AsyncBatchProcessor(fn, batch_size=max_batch_size, **settings).__call__

    async def close(self) -> None:
        """Leave its task to the end of the loop, which cancels it: there is no other way."""
