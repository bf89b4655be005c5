"""``fn`` forks on the thread of a caller while others wait: in the child the scheduler starts afresh."""

import os
import threading
import warnings

from pybatch import Scheduler

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

entered, forked = threading.Event(), threading.Event()


def fn(items: list[int]) -> list[int]:
    if items == [0]:
        entered.set()
        assert forked.wait(20)
        child = os.fork()
        if child == 0:
            answer = scheduler(3)  # as one that has nothing to do with the batch
            os._exit(answer)
        return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
    return items


scheduler = Scheduler(fn, run_in="caller", max_batch_size=1, metrics=False)
answers: dict[int, int] = {}


def call(item: int) -> None:
    answers[item] = scheduler(item)


callers = [threading.Thread(target=call, args=(item,), daemon=True) for item in range(5)]
callers[0].start()
assert entered.wait(20)
for caller in callers[1:]:
    caller.start()
while scheduler.stats().queued < 4:
    pass
waiting = scheduler.submit(5)
forked.set()
for caller in callers:
    caller.join(20)
assert answers == {0: 3, 1: 1, 2: 2, 3: 3, 4: 4}, answers
assert waiting.result(20) == 5

child = os.fork()
if child == 0:
    os._exit(scheduler.submit(6).result(20) != 6)
assert os.waitpid(child, 0)[1] == 0
scheduler.shutdown()
print("done")
