"""What can go wrong with a request, one class a meaning.

Bad options and arguments are plain ``ValueError`` and ``TypeError``; what ``fn`` raised reaches its callers as itself.
"""

__all__ = [
    "BatchAborted",
    "BatchError",
    "BatchSizeMismatch",
    "DeadlineExceeded",
    "InvalidBatchResult",
    "QueueFull",
    "SchedulerClosed",
    "WouldDeadlock",
]


class BatchError(Exception):
    """Base of every error that the scheduler itself raises."""


class QueueFull(BatchError):
    """The queue is at ``max_queue_size`` and the request was rejected."""


class DeadlineExceeded(BatchError, TimeoutError):
    """The request could not be answered within its ``timeout_ms``, or a policy gave it up; it was never run."""


class SchedulerClosed(BatchError):
    """The scheduler is shut down: it takes no request, or ended before this one could run."""


class BatchSizeMismatch(BatchError, ValueError):
    """``fn`` returned more or fewer results than it was given items."""


class InvalidBatchResult(BatchError, TypeError):
    """``fn`` returned something that is not a sequence of results: None, a generator, a dict, a string, ..."""


class BatchAborted(BatchError):
    """The batch was stopped from outside before it had results: its task was cancelled or its event loop closed."""


class WouldDeadlock(BatchError, RuntimeError):
    """Blocking here would wait for ever: the thread that waits is the one that has to compute the answer."""
