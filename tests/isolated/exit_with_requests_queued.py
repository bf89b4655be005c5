"""The interpreter ends with a batch running and a hundred requests queued: each is told, and none is waited for."""

import atexit
import time

answers = []


def report() -> None:
    assert len(futures) == 101
    for future in futures:
        assert future.done(), future
        error = future.exception()
        assert error is None or isinstance(error, SchedulerClosed), error
    assert futures[0].result() == 0, "a running batch is given a moment"
    assert isinstance(futures[-1].exception(), SchedulerClosed)
    assert len(answers) == 101
    print("done")


atexit.register(report)  # before pybatch is imported, and so run after its own

from pybatch import Scheduler, SchedulerClosed  # noqa: E402


def slow(items: list[int]) -> list[int]:
    time.sleep(0.2)
    return items


scheduler = Scheduler(slow, max_batch_size=1, metrics=False)
futures = [scheduler.submit(item) for item in range(101)]
for future in futures:
    future.add_done_callback(answers.append)
while not futures[0].running():
    time.sleep(0.001)
