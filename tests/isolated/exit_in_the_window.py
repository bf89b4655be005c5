"""The interpreter ends while requests wait in an endless window."""

import atexit

futures = []


def report() -> None:
    assert all(future.done() for future in futures)
    print("done")


atexit.register(report)

from pybatch import Scheduler  # noqa: E402

scheduler = Scheduler(
    lambda items: items, max_batch_size=64, policy="fixed", max_wait_ms=3_600_000, timeout_ms=3_600_000
)
futures = scheduler.submit_many(range(10))
