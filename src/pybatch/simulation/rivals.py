"""The rules by which other batchers decide, as policies for the simulator: what ours is compared with.

Each is written from the source that its docstring names, and says what was left out: mostly what concerns networks and
several models.  Where the original knows only one latency goal for all requests,
so does the rule here, and it needs no deadlines told to the engine; `Symphony` and `Clockwork` take a request's own
deadline where it has one.  Fixed windows, as TensorFlow Serving and most others have, need nothing written:
``policy="fixed"``.

A policy here serves one run: it learns and keeps state.  `RIVALS` makes fresh ones.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from batchcore.records import Drop, Wait
from pybatch.policies import Policy
from pybatch.simulation.smdp import at_least, service_times

if TYPE_CHECKING:
    from pybatch.policies import View

__all__ = ["RIVALS", "BentoML", "Clipper", "Clockwork", "Symphony", "Triton"]


def nanoseconds(name: str, value_ms: float) -> int:
    """Return a duration in nanoseconds; ValueError if it is negative or not finite."""
    at_least(name, value_ms, 0.0)
    return round(value_ms * 1e6)


class BentoML(Policy):
    """BentoML's ``CorkDispatcher`` with its ``Optimizer`` (``src/bentoml/_internal/marshal/dispatcher.py``).

    It looks once a millisecond from when something is queued.  It fits ``a * n + b`` to its last 50 batches every 5
    seconds; gives up the oldest request while its age plus ``a * n + b`` for all n queued breaks the goal; and lingers
    while n times (age of the newest + 1 ms + a) is below 95 % of the mean wait of the oldest in past batches.  The
    first batches train it: of 1 four times, then of 2, then of 3.

    Left out: Python's cost, a batch that stays one short of the largest, and that a batch takes the newest of a longer
    queue (here: the soonest due).  What it gives up while no worker is free it gives up here when one is: the same
    requests, later.

    Parameters
    ----------
    slo_ms : float
        Its ``max_latency_ms``, milliseconds, not negative.
    polls : bool, optional
        False makes it look at every event instead.  That is up to a millisecond quicker, but clients that come back
        together are no longer gathered by the pause.
    """

    TICK_NS: Final = 1_000_000
    REFRESH_NS: Final = 5_000_000_000
    TRAINING: Final = (1, 1, 1, 1, 2, 3)  # size of the first batches; the first two are not looked at
    SPARE: Final = (8, 7, 6, 6, 5, 3)  # requests queued beyond which a late one is given up in training

    def __init__(self, slo_ms: float, polls: bool = True) -> None:
        self.goal_ns = nanoseconds("slo_ms", slo_ms)
        self.polls = polls
        self.per_item_ns = min(2e9, self.goal_ns * 2 / 30)
        self.per_batch_ns = min(1e9, self.goal_ns / 30)
        self.linger_ns = 10e6
        self.samples: deque[tuple[int, int, int]] = deque(maxlen=50)  # batch size, service time, wait of the oldest
        self.waits_ns: deque[int] = deque()  # of the batches in flight
        self.batches = 0
        self.refresh_at_ns = 0
        self.awake_at_ns: int | None = None  # since when it polls; None while nothing is queued

    def decide(self, view: View) -> int | Wait | Drop:
        if self.awake_at_ns is None:
            self.awake_at_ns = view.oldest_arrival_ns
        since_poll_ns = (view.now_ns - self.awake_at_ns) % self.TICK_NS
        if since_poll_ns and self.polls:
            return Wait(view.now_ns - since_poll_ns + self.TICK_NS)
        answer = self.train(view) if self.batches < len(self.TRAINING) else self.poll(view)
        if isinstance(answer, int):
            # Of the batch that it would have made, from the newest on.
            self.waits_ns.append(view.now_ns - view.arrivals(view.queued)[-answer])
            self.awake_at_ns = view.now_ns if answer < view.queued else None
        elif isinstance(answer, Drop) and view.queued == 1:
            self.awake_at_ns = None
        return answer

    def poll(self, view: View) -> int | Wait | Drop:
        finish_ns = view.now_ns + self.per_item_ns * view.queued + self.per_batch_ns
        if view.queued == 1:  # alone, it is given up only for what it waited while no worker was free
            finish_ns = view.last_completion_ns or 0
        if finish_ns - view.oldest_arrival_ns >= self.goal_ns:
            return Drop(1)
        most = min(view.queued, view.max_batch_size)
        newest_ns = view.now_ns - view.newest_arrival_ns
        if most < view.max_batch_size and most * (newest_ns + self.TICK_NS + self.per_item_ns) <= 0.95 * self.linger_ns:
            return Wait(view.now_ns + self.TICK_NS)
        return most

    def train(self, view: View) -> int | Wait | Drop:
        """Decide on one of the first batches: of a given size, and one at a time."""
        if view.in_flight:
            return Wait()
        age_ns = view.now_ns - view.oldest_arrival_ns
        size = min(self.TRAINING[self.batches], view.max_batch_size)
        if view.queued > self.SPARE[self.batches] and age_ns >= self.goal_ns:
            return Drop(1)
        patience_ns = min(0.95 * self.goal_ns, (2 * size + 1) * (self.per_item_ns + self.per_batch_ns))
        if view.queued < size and age_ns + self.per_item_ns * size + self.per_batch_ns <= patience_ns:
            return Wait(view.now_ns + self.TICK_NS)
        return min(view.queued, size)

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        self.batches += 1
        wait_ns = self.waits_ns.popleft() if self.waits_ns else 0  # none of ours if it was flushed
        if self.batches > 2:
            self.samples.append((batch_size, service_ns, wait_ns))
            if now_ns >= self.refresh_at_ns or self.batches in (4, 5):
                self.refresh(now_ns)

    def refresh(self, now_ns: int) -> None:
        sizes, services_ns, waits_ns = np.array(self.samples, dtype=np.float64).T
        (slope, intercept), *_ = np.linalg.lstsq(
            np.stack([sizes, np.ones_like(sizes)], axis=1), services_ns, rcond=None
        )
        self.per_item_ns, self.per_batch_ns = max(1e3, float(slope)), max(0.0, float(intercept))
        self.linger_ns = float(waits_ns.mean())
        self.refresh_at_ns = now_ns + self.REFRESH_NS


class Clipper(Policy):
    """Clipper's additive-increase-multiplicative-decrease limit of the batch size (Crankshaw et al., NSDI 2017, 4.3).

    A batch takes what is queued at once, up to a limit that grows by `step` with every batch that was within the goal
    and shrinks by a tenth with every one that was not.  It starts at one.

    Left out: the alternative of quantile regression, delayed batching (a fixed window), and the released code, which
    explores and fits instead.

    Parameters
    ----------
    slo_ms : float
        Longest service time of a batch, milliseconds, not negative.
    step : float, optional
        Additive increase, requests.
    """

    def __init__(self, slo_ms: float, step: float = 1.0) -> None:
        at_least("step", step, 0.0)
        self.goal_ns = nanoseconds("slo_ms", slo_ms)
        self.step = step
        self.limit = 1.0
        self.most = 1

    def decide(self, view: View) -> int | Wait | Drop:
        self.most = view.max_batch_size
        return min(view.queued, int(self.limit))

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        grown = self.limit + self.step if service_ns <= self.goal_ns else self.limit * 0.9
        self.limit = min(max(grown, 1.0), float(self.most))


def due_ns(view: View, goal_ns: int) -> list[int]:
    """Return by when each request queued must be done, in service order: its deadline, else its arrival plus a goal."""
    arrived = view.arrivals(view.queued)
    deadlines = view.deadlines(view.queued)
    return [at_ns + goal_ns if due is None else due for at_ns, due in zip(arrived, deadlines, strict=True)]


def hopeless(due: Sequence[int], finish_ns: float) -> int:
    """Return how many requests from the first on are due before an instant."""
    return next((index for index, at_ns in enumerate(due) if at_ns >= finish_ns), len(due))


class Symphony(Policy):
    """Symphony's deferred batch scheduling (arXiv 2308.07470; ``src/nexus/dispatcher`` of its code), "frontrun".

    With the true service times in hand: skip the fewest requests such that the others could make it as one batch; the
    batch has the target size, or what is left, and grows while its first deadline allows; requests that it would make
    late are dropped.  It is then held until the first deadline would not allow another one to join.  The target is the
    largest b with ``l(b) + b / rate`` within the goal: what workers that start evenly spaced can keep up.

    Left out: the network delays, which are zero here, and the choice among models.  A full batch leaves at once.

    Parameters
    ----------
    slo_ms : float
        Goal of a request without a deadline, milliseconds, not negative.
    service_ms : sequence of float
        Its profile: service time of a batch of n at index n - 1, milliseconds.
    margin_ms : float, optional
        How much earlier than the last moment a batch leaves, milliseconds, not negative.
    """

    def __init__(self, slo_ms: float, service_ms: Sequence[float], margin_ms: float = 0.1) -> None:
        self.goal_ns = nanoseconds("slo_ms", slo_ms)
        self.margin_ns = nanoseconds("margin_ms", margin_ms)
        self.service_ns = [0, *(int(time) for time in np.rint(service_times(service_ms) * 1e6))]

    def decide(self, view: View) -> int | Wait | Drop:
        now_ns, service_ns = view.now_ns, self.service_ns
        most = min(view.max_batch_size, len(service_ns) - 1)
        due = due_ns(view, self.goal_ns)
        skipped = 0
        while skipped < len(due) and due[skipped] < now_ns + service_ns[min(len(due) - skipped, most)]:
            skipped += 1
        if skipped == len(due):
            return Drop(skipped)
        size = min(self.target(view.arrivals_per_second, most), len(due) - skipped)
        dropped = hopeless(due, now_ns + service_ns[size])
        if dropped:
            return Drop(dropped)
        while size < min(len(due), most) and now_ns + service_ns[size + 1] <= due[0]:
            size += 1
        if size == most:
            return size
        leave_at_ns = due[0] - self.margin_ns - max(service_ns[size], service_ns[size + 1])
        return size if leave_at_ns <= now_ns else Wait(leave_at_ns)

    def target(self, per_second: float, most: int) -> int:
        """Return the largest batch that can gather and run within the goal; half of it if no rate is known."""
        sizes = range(most, 1, -1)
        if not per_second:
            return next((size for size in sizes if 2 * self.service_ns[size] <= self.goal_ns), 1)
        return next((size for size in sizes if self.service_ns[size] + size / per_second * 1e9 <= self.goal_ns), 1)


POWERS_OF_TWO: Final = tuple(1 << exponent for exponent in range(16))


class Clockwork(Policy):
    """Clockwork's choice of a batch (Gujarati et al., OSDI 2020; ``infer5_scheduler.cpp`` of its code).

    Batches have one of a few sizes.  For each it expects the 99th percentile of its last ten service times.  Whenever
    a worker is free it takes the largest size for which as many requests are queued that would still make it, and
    drops all that are older than those.  What no size can serve in time is dropped.

    Left out: loading and evicting models, the choice among them, clock rates, scheduling ahead of a worker's end, and
    the 5 ms kept back for the network.  The percentile is the greatest of the ten.  As in the original, which runs only
    warm models, a size that was once too slow is not tried again.

    Parameters
    ----------
    slo_ms : float
        Goal of a request without a deadline, milliseconds, not negative.
    service_ms : sequence of float
        Its profile before it has measured: service time of a batch of n at index n - 1, milliseconds.
    sizes : sequence of int, optional
        Batch sizes that the model has been built for, with 1; default: the powers of two.  Those above the profile or
        ``max_batch_size`` are not used.
    """

    def __init__(self, slo_ms: float, service_ms: Sequence[float], sizes: Sequence[int] = POWERS_OF_TWO) -> None:
        self.goal_ns = nanoseconds("slo_ms", slo_ms)
        profile = service_times(service_ms)
        if 1 not in sizes or min(sizes) < 1:
            raise ValueError(f"sizes must be positive and hold 1, not {sizes!r}")
        self.recent = {
            size: deque([round(float(profile[size - 1]) * 1e6)], maxlen=10)
            for size in sorted(sizes, reverse=True)
            if size <= len(profile)
        }
        self.measured: set[int] = set()

    def decide(self, view: View) -> int | Wait | Drop:
        due = due_ns(view, self.goal_ns)
        for size, recent in self.recent.items():
            dropped = hopeless(due, view.now_ns + max(recent))
            if size <= min(len(due) - dropped, view.max_batch_size):
                return Drop(dropped) if dropped else size
        quickest_ns = min(map(max, self.recent.values()))
        dropped = hopeless(due, view.now_ns + quickest_ns)
        return Drop(dropped) if dropped else Wait(due[0] - quickest_ns + 1)

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        if batch_size not in self.recent:
            return  # flushed: not a size of ours
        if batch_size not in self.measured:
            self.measured.add(batch_size)
            self.recent[batch_size].clear()
        self.recent[batch_size].append(service_ns)


class Triton(Policy):
    """Triton's dynamic batcher with preferred sizes (``dynamic_batch_scheduler.cc`` of triton-inference-server/core).

    A free worker takes the largest preferred size that is queued; without one it waits until there is, or until the
    oldest request is `max_queue_delay_ms` old and all that is queued leaves.

    Left out: shapes, priorities and request timeouts, which are the engine's.

    Parameters
    ----------
    preferred_sizes : sequence of int
        At least one, positive.
    max_queue_delay_ms : float
        Milliseconds, not negative.
    """

    def __init__(self, preferred_sizes: Sequence[int], max_queue_delay_ms: float) -> None:
        self.sizes = sorted(preferred_sizes)
        if not self.sizes or self.sizes[0] < 1:
            raise ValueError(f"preferred_sizes must be at least one size, all positive, not {preferred_sizes!r}")
        self.delay_ns = nanoseconds("max_queue_delay_ms", max_queue_delay_ms)

    def decide(self, view: View) -> int | Wait | Drop:
        most = min(view.queued, view.max_batch_size)
        leave_at_ns = view.oldest_arrival_ns + self.delay_ns
        overdue = self.delay_ns > 0 and view.now_ns >= leave_at_ns
        above = bisect_left(self.sizes, most + 1)
        if above and not overdue:
            return self.sizes[above - 1]
        if overdue or self.delay_ns == 0:
            return most
        return Wait(leave_at_ns)


RIVALS: Final[dict[str, Callable[[float, Sequence[float]], Policy]]] = {
    "bentoml": lambda slo_ms, service_ms: BentoML(slo_ms),
    "clipper": lambda slo_ms, service_ms: Clipper(slo_ms),
    "clockwork": Clockwork,
    "symphony": Symphony,
    "triton": lambda slo_ms, service_ms: Triton(
        sorted({(len(service_ms) + 3) // 4, (len(service_ms) + 1) // 2, len(service_ms)}), max_queue_delay_ms=5.0
    ),
}
"""Makes a rival by its name from the latency goal, milliseconds, and the service times of batches of 1, 2, 3, ...;
Triton's own settings are those of a careful user who knows neither load nor clients: a quarter, a half and all of the
largest batch, and 5 ms."""
