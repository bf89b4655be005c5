"""An orderly end leaves nothing to say, with every warning an error."""

import asyncio
import warnings

warnings.simplefilter("error")

from pybatch import Scheduler, batched  # noqa: E402


@batched(metrics=False)
def decorated(items: list[int]) -> list[int]:
    return items


async def compute(items: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return items


async def main() -> None:
    async with Scheduler(compute) as scheduler:
        assert await scheduler.submit(1) == 1


with Scheduler(lambda items: items) as scheduler:
    assert scheduler(1) == 1
with Scheduler(compute) as scheduler:
    assert scheduler(1) == 1
asyncio.run(main())
assert decorated(1) == 1
decorated.scheduler.shutdown()
print("done")
