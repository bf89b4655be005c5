"""What a scheduler has learned and why it did what it did, in words and as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchcore.records import Learned, Past, Reason, Stats

if TYPE_CHECKING:
    from batchcore.dispatcher import Dispatcher

__all__ = ["Estimate", "Explanation", "explain"]

WORDS: dict[Reason, str] = {
    "full": "it was full",
    "idle_worker": "a worker was free and nothing was worth waiting for",
    "window": "max_wait_ms was over",
    "latency": "waiting longer would have broken max_latency_ms",
    "deadline": "a deadline decided when it left, or who was in it",
    "gathered": "it had waited for company that was worth it",
    "spaced": "it had waited so that the workers start evenly spaced",
    "split": "a smaller batch is faster",
    "probe": "nobody seemed to make it in time, so one was tried",
    "chosen": "your policy chose so",
    "flush": "of flush()",
    "drain": "of drain() or shutdown()",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request submitted now could expect.

    Attributes
    ----------
    queue_delay_ms, service_ms : float
        From submit to the start of its batch, and from there to the answer.
    finish_ms : float
        Their sum.
    """

    queue_delay_ms: float
    service_ms: float
    finish_ms: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `pybatch.Scheduler.explain` says.  ``str`` of it is for people.

    Attributes
    ----------
    name : str
        Of the scheduler.
    at_ns : int
        When it was made, on the clock of ``time.monotonic_ns``.
    stats : batchcore.records.Stats
        What it counts.
    past : tuple of batchcore.records.Past
        The latest 32 batches, oldest first: when and why they left, what was expected of them and what came.
    learned : batchcore.records.Learned
        Cost of a batch by size, rate of arrivals, open or closed loop.
    now : str
        What would happen now if nothing came,
    wake_at_ns : int or None
        and when; None: nothing before an event.
    """

    name: str
    at_ns: int
    stats: Stats
    past: tuple[Past, ...]
    learned: Learned
    now: str
    wake_at_ns: int | None

    def __str__(self) -> str:
        return "\n".join([*self._head(), *self._what_was_learned(), *self._what_was_done(), f"Now: {self.now}."])

    def _head(self) -> list[str]:
        stats = self.stats
        heaviest = f", weighing at most {stats.max_batch_weight}" if stats.max_batch_weight else ""
        keys = f" under {stats.keys} key{'s' if stats.keys > 1 else ''}" if stats.keys else ""
        lines = [
            f"Scheduler {self.name!r}: policy {stats.policy}, batches of at most {stats.max_batch_size}{heaviest}, "
            f"{stats.capacity} at once; {stats.queued} queued{keys}, {stats.running} running."
        ]
        if stats.padding_ratio:
            lines.append(f"Of what fn was given so far, {stats.padding_ratio:.1%} was padding or filler.")
        return lines

    def _what_was_learned(self) -> list[str]:
        learned = self.learned
        if not learned.sizes:
            return ["Nothing is known of the cost of a batch before the first has completed."]
        unit = "a unit of weight" if learned.weighed else "an item"
        lines = [
            f"A batch takes about {learned.per_batch_ns / 1e6:.3g} ms + {learned.per_item_ns / 1e6:.3g} ms {unit}, "
            f"give or take {learned.deviation:.0%}: "
            + ", ".join(f"{size}: {ns / 1e6:.3g} ms" for size, ns in _some(learned.sizes))
            + "."
        ]
        callers = "Callers come whenever they like"
        if learned.closed:
            callers = f"At least {learned.callers} callers wait for their answers before they ask again"
        return [*lines, f"{callers}; {learned.arrivals_per_second:.3g} requests a second lately."]

    def _what_was_done(self) -> list[str]:
        if not self.past:
            return ["No batch has left yet."]
        lines = ["The latest batches:"]
        for batch in self.past[-8:]:
            took = "is running" if batch.service_ns is None else f"took {batch.service_ns / 1e6:.3g} ms"
            if batch.expected_ns is not None:
                took += f" ({batch.expected_ns / 1e6:.3g} expected)"
            lines.append(
                f"  {batch.batch_id}: {batch.size} after {batch.waited_ns / 1e6:.3g} ms, {batch.left} left queued, "
                f"because {WORDS[batch.reason]}; {took}"
            )
        return lines


def explain(dispatcher: Dispatcher) -> Explanation:
    """Ask a dispatcher's engine for everything that it can tell."""
    engine = dispatcher.engine
    now_ns = dispatcher.now_ns()
    stats = engine.stats(*dispatcher.padding())
    wake_at_ns = dispatcher.next_wakeup_ns()
    if not stats.queued:
        now = "nothing is queued; the next request decides"
    elif stats.in_flight_batches >= stats.capacity:
        now = "all workers are busy; the next batch grows until one is free"
    elif wake_at_ns is None:
        now = "what is queued waits for the next event"
    elif wake_at_ns <= now_ns:
        now = "the next decision is due at once"
    else:
        now = f"the next decision is due in {(wake_at_ns - now_ns) / 1e6:.3g} ms if nothing comes before"
    return Explanation(
        name=dispatcher.name,
        at_ns=now_ns,
        stats=stats,
        past=engine.past(),
        learned=engine.learned(now_ns),
        now=now,
        wake_at_ns=wake_at_ns,
    )


def _some(sizes: tuple[tuple[int, int], ...]) -> list[tuple[int, int]]:
    """Return at most eight of the sizes, spread over all."""
    step = max((len(sizes) + 7) // 8, 1)
    return list(sizes[::step])
