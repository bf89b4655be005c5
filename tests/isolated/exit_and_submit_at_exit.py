"""What runs at exit may use the scheduler: it is answered or told that it is closed, and never hangs."""

import atexit
import contextlib

from pybatch import Scheduler, SchedulerClosed

scheduler = Scheduler(lambda items: items)
assert scheduler(1) == 1


def use() -> None:
    with contextlib.suppress(SchedulerClosed):
        assert scheduler.submit(2).result(20) == 2
    print("done")


atexit.register(use)  # runs before the scheduler's own end


class Late:
    def __del__(self) -> None:
        with contextlib.suppress(SchedulerClosed):
            scheduler.submit(3).cancel()


late = Late()
late.itself = late  # type: ignore[attr-defined]
