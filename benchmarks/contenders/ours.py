"""This project's scheduler with its defaults unless told otherwise, metrics on: what is measured is what people get."""

from typing import Any

from contenders.interface import AsyncFn, Fn
from pybatch import Scheduler


class Pybatch:
    def __init__(self, fn: Fn, max_batch_size: int, **options: Any) -> None:
        self._scheduler = Scheduler(fn, max_batch_size=max_batch_size, **options)
        # The bound method itself: a method of ours around it would be measured with it.
        self.submit = self._scheduler.submit

    def close(self) -> None:
        self._scheduler.shutdown()


class AsyncPybatch:
    def __init__(self, fn: Fn | AsyncFn, max_batch_size: int, **options: Any) -> None:
        self._scheduler = Scheduler(fn, max_batch_size=max_batch_size, **options)
        self.submit = self._scheduler.submit

    async def close(self) -> None:
        async with self._scheduler:  # leaving the block shuts down without blocking the loop
            pass
