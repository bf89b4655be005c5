"""``aiodataloader``: what is asked for within one turn of the loop leaves together, in as many batches as it takes.

Nothing bounds what waits or runs, and nothing waits for company. Its cache is off: it would answer all but the first.
"""

from aiodataloader import DataLoader  # pyright: ignore[reportMissingImports]

from contenders.interface import AsyncFn


class Aiodataloader:
    def __init__(self, fn: AsyncFn, max_batch_size: int) -> None:
        self.submit = DataLoader(fn, max_batch_size=max_batch_size, cache=False).load

    async def close(self) -> None:
        pass
