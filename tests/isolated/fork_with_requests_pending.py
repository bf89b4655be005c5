"""A child forked with requests pending is told that they are not its own, and uses the scheduler afresh."""

import os
import sys
import threading
import warnings

from pybatch import Scheduler, SchedulerClosed

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

entered, opened = threading.Event(), threading.Event()


def hold(items: list[int]) -> list[int]:
    entered.set()
    assert opened.wait(20)
    return items


scheduler = Scheduler(hold, max_batch_size=1, timeout_ms=60_000)
futures = [scheduler.submit(item) for item in range(5)]
assert entered.wait(20)
child = os.fork()
if child == 0:
    for future in futures:
        assert isinstance(future.exception(20), SchedulerClosed), future
    stats = scheduler.stats()
    assert (stats.queued, stats.running) == (0, 0), stats
    opened.set()
    assert [future.result(20) for future in scheduler.submit_many(range(5))] == list(range(5))
    scheduler.reconfigure(max_concurrent_batches=2)
    assert list(scheduler.map(range(5))) == list(range(5))
    assert scheduler.drain(20)
    scheduler.shutdown()
    sys.exit(7)  # with all that Python does at its end
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert not any(future.done() for future in futures)
opened.set()
assert [future.result(20) for future in futures] == list(range(5))
assert [future.result(20) for future in scheduler.submit_many(range(5))] == list(range(5))
scheduler.shutdown()
print("done")
