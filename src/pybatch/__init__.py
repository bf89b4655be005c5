"""Batch calls of a model: many callers submit single items, one call computes them together.

>>> from pybatch import Scheduler
>>> def predict(xs: list[int]) -> list[int]:
...     return [x * x for x in xs]
>>> with Scheduler(predict, max_batch_size=32, metrics=False) as scheduler:
...     scheduler.submit(7).result()
49
"""

from typing import TYPE_CHECKING

from batchcore.current import CurrentBatch, current_batch
from batchcore.errors import (
    BatchAborted,
    BatchError,
    BatchSizeMismatch,
    DeadlineExceeded,
    InvalidBatchResult,
    QueueFull,
    SchedulerClosed,
    WouldDeadlock,
)
from batchcore.future import Future
from batchcore.records import Histogram, Stats
from pybatch.decorator import batched
from pybatch.forms import Pad, Stack
from pybatch.scheduler import Scheduler

__version__: str

__all__ = [
    "BatchAborted",
    "BatchError",
    "BatchSizeMismatch",
    "CurrentBatch",
    "DeadlineExceeded",
    "Future",
    "Histogram",
    "InvalidBatchResult",
    "Pad",
    "QueueFull",
    "Scheduler",
    "SchedulerClosed",
    "Stack",
    "Stats",
    "WouldDeadlock",
    "__version__",
    "batched",
    "current_batch",
]


if not TYPE_CHECKING:  # else checkers take it that every name is here

    def __getattr__(name):
        """Read the version when it is first asked for: what reads it takes longer to import than all that is here."""
        if name != "__version__":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib.metadata import version

        globals()[name] = found = version("batchcore")
        return found
