"""``asyncio.run`` awaits a batch that never ends."""

import asyncio
import threading

from pybatch import Scheduler


def stuck(items: list[int]) -> list[int]:
    threading.Event().wait()
    return items


async def main() -> None:
    future = scheduler.submit(1)
    print("ready", flush=True)
    await future


scheduler = Scheduler(stuck)
asyncio.run(main())
