"""``asyncio.run`` awaits an ``async def`` that never ends, on its own loop."""

import asyncio

from pybatch import Scheduler


async def stuck(items: list[int]) -> list[int]:
    await asyncio.Event().wait()
    return items


async def main() -> None:
    future = scheduler.submit(1)
    print("ready", flush=True)
    await future


scheduler = Scheduler(stuck)
asyncio.run(main())
