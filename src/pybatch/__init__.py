"""Batch calls of a model: many callers submit single items, one call computes them together.

>>> from pybatch import Scheduler
>>> def predict(xs: list[int]) -> list[int]:
...     return [x * x for x in xs]
>>> with Scheduler(predict, max_batch_size=32, metrics=False) as scheduler:
...     scheduler.submit(7).result()
49
"""

from importlib.metadata import version as _version

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

__version__ = _version("batchcore")

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
