"""The batcher one writes by hand for asyncio: ``asyncio.Queue``, a collector task, a loop's future for each request.

Work-conserving: the collector takes what is there, up to ``max_batch_size``, and never waits for company.
"""

import asyncio
from collections.abc import Sequence

from contenders.interface import AsyncFn, Fn


class AsyncioQueue:
    def __init__(self, fn: AsyncFn, max_batch_size: int) -> None:
        self._fn = fn
        self._max_batch_size = max_batch_size
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, asyncio.Future[int]] | None] = asyncio.Queue()
        self._collector = self._loop.create_task(self._collect())

    def submit(self, item: int) -> asyncio.Future[int]:
        future: asyncio.Future[int] = self._loop.create_future()
        self._queue.put_nowait((item, future))
        return future

    async def _collect(self) -> None:
        while (request := await self._queue.get()) is not None:
            batch = [request]
            while len(batch) < self._max_batch_size and not self._queue.empty():
                if (request := self._queue.get_nowait()) is None:
                    self._queue.put_nowait(None)
                    break
                batch.append(request)
            await self._run(batch)

    async def _run(self, batch: list[tuple[int, asyncio.Future[int]]]) -> None:
        try:
            for (_, future), result in zip(batch, await self._fn([item for item, _ in batch]), strict=True):
                if not future.done():
                    future.set_result(result)
        except Exception as error:
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)

    async def close(self) -> None:
        self._queue.put_nowait(None)
        await self._collector


def in_executor(fn: Fn) -> AsyncFn:
    """Return an ``async def`` that runs a sync `fn` on a thread of the running loop's own executor."""
    loop = asyncio.get_running_loop()

    async def call(items: list[int]) -> Sequence[int]:
        return await loop.run_in_executor(None, fn, items)

    return call
