"""Items, results and errors whose destructors raise hurt nobody."""

import sys

from pybatch import Scheduler

reports = []
sys.unraisablehook = lambda report: reports.append(type(report.exc_value))


class Sore(Exception):
    def __del__(self) -> None:
        raise LookupError


def compute(items: list[object]) -> list[object]:
    return [Sore() for _ in items]  # raised for each caller, since it is an exception


def plain(items: list[object]) -> list[object]:
    return [(Sore(),) for _ in items]


for fn in (compute, plain):
    with Scheduler(fn, max_batch_size=4) as scheduler:
        for _ in range(100):
            futures = scheduler.submit_many([(Sore(),) for _ in range(8)])
            futures[5].cancel()
            scheduler.submit((Sore(),), timeout_ms=0)
            for future in futures[:4]:
                future.exception(20)
        assert scheduler.drain(20)
        del futures, future
        assert scheduler.stats().submitted == 900
assert set(reports) == {LookupError}
assert len(reports) >= 1800
print("done")
