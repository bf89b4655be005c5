"""The batch that is being computed here."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["CurrentBatch", "current_batch", "serving"]

serving: ContextVar[Any] = ContextVar("serving")
"""Who computes in this context: something with an attribute `batch`, which is None between batches."""


@dataclass(frozen=True, slots=True)
class CurrentBatch:
    """What a ``fn`` may ask about the batch that it is given.

    Attributes
    ----------
    id : int
        1 for the first batch of a scheduler.
    key : hashable or None
        What all its requests were submitted with.
    size : int
        Requests in it.
    model_size : int
        Rows that ``fn`` is given: `size`, or one of ``allowed_batch_sizes``.
    reason : str
        Why it left: one of `batchcore.records.Reason`.
    """

    id: int
    key: Any
    size: int
    model_size: int
    reason: str


def current_batch() -> CurrentBatch:
    """Return what is known of the batch that the calling ``fn`` computes.

    Raises
    ------
    LookupError
        If the caller is not a ``fn`` that a scheduler runs, on the thread or in the task that it was started in.

    Examples
    --------
    >>> from pybatch import Scheduler
    >>> def translate(texts: list[str]) -> list[str]:
    ...     language = current_batch().key
    ...     return [f"{text} in {language}" for text in texts]
    >>> with Scheduler(translate, metrics=False) as scheduler:
    ...     scheduler.submit("hello", key="fr").result()
    'hello in fr'
    """
    server = serving.get(None)
    batch = None if server is None else server.batch
    if batch is None:
        raise LookupError("no batch is being computed here; call current_batch() in fn, on the thread that it runs on")
    return CurrentBatch(batch.id, batch.key, len(batch), batch.model_size, batch.reason)
