"""``fn`` itself forks, as one that starts a subprocess the old way does."""

import os
import warnings

from pybatch import Scheduler

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)


def fork(items: list[int]) -> list[int]:
    child = os.fork()
    if child == 0:
        os._exit(items[0])
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])] * len(items)


with Scheduler(fork, max_batch_size=1) as scheduler:
    assert list(scheduler.map(range(10))) == list(range(10))
print("done")
