"""What the engine tells: one decision, and a snapshot of everything it counts.

Plain immutable records with no behaviour of their own, so that tests, metrics and reports share one vocabulary.
Units are in the names: ``_ns`` is integer nanoseconds on the caller's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Hashable

    from batchcore.engine import Request

__all__ = [
    "OUTCOMES",
    "REASONS",
    "Decision",
    "Drop",
    "Histogram",
    "Learned",
    "Outcome",
    "Past",
    "Reason",
    "Stats",
    "Wait",
]

Reason = Literal[
    "full",
    "idle_worker",
    "window",
    "latency",
    "deadline",
    "gathered",
    "spaced",
    "split",
    "probe",
    "chosen",
    "flush",
    "drain",
]
"""Why a batch left: it reached ``max_batch_size``; a worker was idle and nothing was worth waiting for; ``max_wait_ms``
was over; waiting longer would have broken ``max_latency_ms``; or a request's own deadline decided when it left or who
was in it; it had waited for company that was worth it; it had waited so that workers start evenly spaced; a smaller
batch is faster; nobody seemed to make it in time and one was tried; your own policy chose so; ``flush()``; ``drain()``
or ``shutdown()``."""

Outcome = Literal["completed", "failed", "rejected", "expired", "cancelled", "shut_down"]
"""How a request ended: with a result; with the error of ``fn``; refused by a full queue; too late; by its caller;
by the end of its scheduler."""

REASONS: tuple[Reason, ...] = get_args(Reason)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True, slots=True)
class Wait:
    """What a policy of your own answers to be asked again: at the next event, or at `until_ns` if none comes before.

    Attributes
    ----------
    until_ns : int or None
        An instant after now, ns; None (default): only an event can change anything.
    """

    until_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """What a policy of your own answers to fail the `count` soonest requests as too late; it is asked again then.

    Attributes
    ----------
    count : int
        At least 1.
    """

    count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """The engine's answer to "what now?".

    Attributes
    ----------
    kind : {"dispatch", "wait", "idle"}
        ``dispatch``: run `batch` now. ``wait``: nothing to do before `wake_at_ns` unless an event comes.
        ``idle``: only an event can change anything.
    at_ns : int
        The instant the decision was made.
    reason : str or None
        Why the batch leaves; None unless ``kind == "dispatch"``.
    wake_at_ns : int or None
        When to ask again; None unless ``kind == "wait"``.
    batch_id : int or None
        1 for the first batch of an engine, 2 for the next; None unless ``kind == "dispatch"``.
    batch : tuple of Request
        The requests to run together, soonest due first; empty unless ``kind == "dispatch"``.
    expired : tuple of Request
        Requests that are too late: their deadline has passed, or no answer could come before it; with any `kind`.
    key : object
        Of the requests of `batch`.
    model_size : int
        The size that the model is given: that of `batch`, or the next one it accepts; 0 unless ``kind == "dispatch"``.
    """

    kind: Literal["dispatch", "wait", "idle"]
    at_ns: int
    reason: Reason | None
    wake_at_ns: int | None
    batch_id: int | None
    batch: tuple[Request, ...]
    expired: tuple[Request, ...]
    key: Hashable = None
    model_size: int = 0


@dataclass(frozen=True, slots=True)
class Past:
    """What is remembered of a batch.

    Attributes
    ----------
    batch_id : int
        1 for the first batch of a scheduler.
    at_ns : int
        When it left, on the engine's clock.
    reason : str
        Why (see `Reason`).
    size, left : int
        Requests in it, and requests that stayed in the queue.
    waited_ns : int
        Queue delay of the oldest request in it.
    expected_ns : int or None
        Service time predicted when it left; None if nothing was known.
    service_ns : int or None
        What it took; None while it runs.
    """

    batch_id: int
    at_ns: int
    reason: Reason
    size: int
    left: int
    waited_ns: int
    expected_ns: int | None
    service_ns: int | None


@dataclass(frozen=True, slots=True)
class Learned:
    """What an engine has learned of its `fn` and of its callers.

    Attributes
    ----------
    sizes : tuple of (int, int)
        Batch sizes seen, or weights, and the service time expected of each, ns; above 64, one for each eighth of an
        octave.
    per_item_ns, per_batch_ns : float
        The affine law through them.
    deviation : float
        Usual distance of a service time from what was expected, as a share of it.
    arrivals_per_second : float
        Recent rate of requests.
    closed : bool
        Whether callers seem to wait for an answer before they ask again.
    callers : int
        How many there are at least; means something only if `closed`.
    weighed : bool
        Whether `sizes` and `per_item_ns` go by weight.
    """

    sizes: tuple[tuple[int, int], ...]
    per_item_ns: float
    per_batch_ns: float
    deviation: float
    arrivals_per_second: float
    closed: bool
    callers: int
    weighed: bool = False


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of observations by size.

    Attributes
    ----------
    bounds : tuple of int
        Inclusive upper bounds, strictly increasing, without the infinite one.
    counts : tuple of int
        Observations in each interval, **not** cumulative; one more than `bounds`, the last for what is above.
    sum : int
        Sum of all observations, in the unit of `bounds`.
    """

    bounds: tuple[int, ...]
    counts: tuple[int, ...]
    sum: int

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean observation; 0.0 before the first."""
        return self.sum / self.count if self.count else 0.0


@dataclass(frozen=True, slots=True)
class Stats:
    """A snapshot of a scheduler, taken in one go: its parts agree with each other.

    ``submitted == queued + running + completed + failed + rejected + expired + cancelled + shut_down``, always.

    Attributes
    ----------
    submitted, completed, failed, rejected, expired, cancelled, shut_down : int
        Requests since the start: offered, and by the way they ended (see `Outcome`).
    queued, running : int
        Requests waiting now, and being computed now.
    in_flight_batches, batches : int
        Batches being computed now, and dispatched since the start.
    batches_by_reason : dict of str to int
        Batches dispatched since the start by `Reason`; every reason is present.
    batch_size : Histogram
        Requests per dispatched batch.
    queue_delay_ns : Histogram
        Dispatch minus arrival, one observation a dispatched request, nanoseconds.
    service_ns : Histogram
        Completion minus dispatch, one observation a completed batch, nanoseconds.
    last_progress_at_ns : int or None
        When a batch last completed, on the engine's clock; None before the first.
    capacity : int
        Batches that may run at once (``max_concurrent_batches``).
    policy : str
        Name of the policy in force.
    max_batch_size, max_queue_size : int
        Limits in force, in requests.
    max_wait_ns, max_latency_ns : int or None
        Limits in force, nanoseconds; None where there is none.
    max_batch_weight : int or None
        Most that a batch may weigh; None: no limit.
    keys : int
        Keys with requests in the queue; of arrays, each dtype and shape counts.
    item_elements, batch_elements : int
        What ``fn`` was given since the start: array elements (items, if it takes lists) that came from requests, and in
        all, with padding and filler.
    """

    submitted: int
    completed: int
    failed: int
    rejected: int
    expired: int
    cancelled: int
    shut_down: int
    queued: int
    running: int
    in_flight_batches: int
    batches: int
    batches_by_reason: dict[Reason, int]
    batch_size: Histogram
    queue_delay_ns: Histogram
    service_ns: Histogram
    last_progress_at_ns: int | None
    capacity: int
    policy: str
    max_batch_size: int
    max_queue_size: int
    max_wait_ns: int | None
    max_latency_ns: int | None
    max_batch_weight: int | None = None
    keys: int = 0
    item_elements: int = 0
    batch_elements: int = 0

    @property
    def padding_ratio(self) -> float:
        """Share of what ``fn`` was given that was padding or filler, 0 to 1; 0.0 before the first batch."""
        return 1.0 - self.item_elements / self.batch_elements if self.batch_elements else 0.0
