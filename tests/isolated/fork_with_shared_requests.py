"""A child has its own copies of divided and shared requests end, and the parent answers its own."""

import os
import threading
import warnings

from pybatch import Scheduler, SchedulerClosed

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

entered, opened = threading.Event(), threading.Event()


def compute(items: list[int]) -> list[int]:
    entered.set()
    assert opened.wait(40)
    return [2 * item for item in items]


scheduler = Scheduler(compute, max_batch_size=2, dedupe=True)
whole = scheduler.submit_batch(range(5))
assert entered.wait(20)
first, second = scheduler.submit(7), scheduler.submit(7)
waiting = threading.Thread(target=lambda: (whole.result(40), second.result(40)))
waiting.start()
child = os.fork()
if child == 0:
    for future in (whole, first, second):
        assert isinstance(future.exception(20), SchedulerClosed), future
        assert "forked" in str(future.exception())
    opened.set()
    again = scheduler.submit(7)
    assert again.result(20) == 14
    assert scheduler.submit_batch([1, 2, 3]).result(20) == [2, 4, 6]
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert not whole.done()
opened.set()
assert whole.result(20) == [0, 2, 4, 6, 8]
assert (first.result(20), second.result(20)) == (14, 14)
waiting.join(20)
scheduler.shutdown()
print("done")
