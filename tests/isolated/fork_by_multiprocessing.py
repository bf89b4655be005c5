"""Processes of multiprocessing, forked with the scheduler in use, use it themselves, as do their own children."""

import multiprocessing
import warnings

from pybatch import Scheduler, batched

warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)

context = multiprocessing.get_context("fork")
scheduler = Scheduler(lambda items: [item * 2 for item in items], max_batch_size=4)


@batched
def double(items: list[int]) -> list[int]:
    return [item * 2 for item in items]


def use(depth: int) -> None:
    assert scheduler.submit(21).result(20) == 42
    assert double(21) == 42
    if depth:
        run(depth - 1)


def run(depth: int) -> None:
    processes = [context.Process(target=use, args=(depth,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0, process.exitcode


use(2)
with context.Pool(2) as pool:
    pool.map(use, [0] * 10)
scheduler.shutdown()
double.scheduler.shutdown()
print("done")
