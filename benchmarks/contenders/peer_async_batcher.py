"""``async-batcher``, which wants to be subclassed, and refuses a ``max_batch_size`` of 1."""

from collections.abc import Sequence

from async_batcher.batcher import AsyncBatcher  # pyright: ignore[reportMissingImports]

from contenders.interface import AsyncFn


class Batcher(AsyncBatcher):  # type: ignore[misc]
    def __init__(self, fn: AsyncFn, **settings: float) -> None:
        super().__init__(**settings)
        self._fn = fn

    async def process_batch(self, batch: list[int]) -> Sequence[int]:
        return await self._fn(batch)


class AsyncBatcherQueue:
    def __init__(self, fn: AsyncFn, max_batch_size: int, **settings: float) -> None:
        self._batcher = Batcher(fn, max_batch_size=max_batch_size, **settings)
        self.submit = self._batcher.process

    async def close(self) -> None:
        await self._batcher.stop(force=True)
