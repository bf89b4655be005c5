"""The engine once more, in plain Python: the oracle that the compiled one is compared with.

Lists, `sorted`, `min` and a scan for every question, so that each rule reads as it is stated. It validates nothing
but what an event can get wrong; bad arguments are told in `test_stories.py`. The cost model repeats the documented sums
in the documented order instead of asking the engine: predictions decide when a batch leaves, and they are meant to be
the same bit for bit on every machine, so the comparison is exact.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from batchcore.engine import AGING_NS
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import OUTCOMES, REASONS, Decision, Histogram, Reason, Stats

LONG_AGO = -(2**63)


@dataclass(eq=False, slots=True)
class ReferenceRequest:
    number: int
    arrival_ns: int
    deadline_ns: int | None
    priority: int
    due_ns: int
    status: str = "queued"


class ReferenceCost:
    """Least squares on (size, service time), older batches counting 1.5 % less with each new one."""

    def __init__(self) -> None:
        self.sums = [0.0] * 5

    def learn(self, size: int, service_ns: int) -> None:
        x, y = float(size), float(service_ns)
        self.sums = [old * 0.985 + new for old, new in zip(self.sums, (1.0, x, y, x * x, x * y), strict=True)]

    def predict(self, size: int) -> int | None:
        w, sx, sy, sxx, sxy = self.sums
        if w == 0:
            return None
        slope, intercept = 0.0, sy / w
        det = w * sxx - sx * sx
        if det > 1e-9 * w * sxx:
            slope = (w * sxy - sx * sy) / det
            intercept = (sy - slope * sx) / w
            if slope < 0:
                slope, intercept = 0.0, sy / w
            elif intercept < 0:
                slope, intercept = sxy / sxx, 0.0
        return int(slope * size + intercept)


class Reference:
    def __init__(
        self,
        *,
        policy: str = "immediate",
        max_batch_size: int = 32,
        max_wait_ns: int | None = None,
        max_latency_ns: int | None = None,
        max_queue_size: int = 65536,
        capacity: int = 1,
        aging_ns: int = AGING_NS,
        batch_size_bounds: tuple[int, ...],
        delay_bounds_ns: tuple[int, ...],
    ) -> None:
        self.policy, self.max_batch_size, self.max_queue_size = policy, max_batch_size, max_queue_size
        self.max_wait_ns, self.max_latency_ns = max_wait_ns, max_latency_ns
        self.capacity, self.aging_ns = capacity, aging_ns
        self.batch_size_bounds, self.delay_bounds_ns = batch_size_bounds, delay_bounds_ns
        self.now = LONG_AGO
        self.queue: list[ReferenceRequest] = []
        self.flying: list[Decision] = []
        self.closed = False
        self.flushed: set[ReferenceRequest] = set()
        self.cost = ReferenceCost()
        self.submitted = 0
        self.ended: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.delays: list[int] = []
        self.services: list[int] = []
        self.last_progress_at_ns: int | None = None

    def pass_time(self, now_ns: int) -> None:
        self.now = max(self.now, now_ns)

    def submit(self, now_ns: int, *, priority: int = 0, deadline_ns: int | None = None) -> ReferenceRequest:
        if self.closed:
            raise SchedulerClosed
        now = max(self.now, now_ns)
        late = deadline_ns is not None and deadline_ns <= now
        self.submitted += 1
        if not late and len(self.queue) >= self.max_queue_size:
            self.ended["rejected"] += 1
            raise QueueFull
        self.now = now
        soon = now + self.aging_ns // 2
        due = (soon if deadline_ns is None else min(soon, deadline_ns)) + priority * self.aging_ns
        request = ReferenceRequest(self.submitted, now, deadline_ns, priority, due)
        if late:
            request.status = "expired"
            self.ended["expired"] += 1
        else:
            self.queue.append(request)
        return request

    def cancel(self, now_ns: int, request: ReferenceRequest) -> bool:
        if request not in self.queue:
            return False
        self.pass_time(now_ns)
        self._end([request], "cancelled")
        return True

    def decide(self, now_ns: int) -> Decision:
        self.pass_time(now_ns)
        late = [r for r in self.queue if r.deadline_ns is not None and r.deadline_ns <= self.now]
        late.sort(key=lambda r: (r.deadline_ns, r.number))
        self._end(late, "expired")
        expired: Any = tuple(late)
        departure = self._departure()
        if departure is not None and departure[0] <= self.now:
            return self._dispatch(departure[1], expired)
        wake = self.next_wakeup_ns()
        return Decision("idle" if wake is None else "wait", self.now, None, wake, None, (), expired)

    def complete(self, now_ns: int, decision: Decision, *, failed: int = 0) -> None:
        if not any(decision is flying for flying in self.flying) or not 0 <= failed <= len(decision.batch):
            raise ValueError
        self.pass_time(now_ns)
        self.flying = [flying for flying in self.flying if flying is not decision]
        for i, request in enumerate(decision.batch):
            request.status = "completed" if i < len(decision.batch) - failed else "failed"
            self.ended[request.status] += 1
        self.cost.learn(len(decision.batch), self.now - decision.at_ns)
        self.services.append(self.now - decision.at_ns)
        self.last_progress_at_ns = self.now

    def set_capacity(self, now_ns: int, capacity: int) -> None:
        self.pass_time(now_ns)
        self.capacity = capacity

    def reconfigure(self, now_ns: int, **changes: Any) -> None:
        wanted = {"policy": self.policy, "max_wait_ns": self.max_wait_ns} | changes
        if wanted["policy"] == "fixed" and wanted["max_wait_ns"] is None:
            raise ValueError
        self.pass_time(now_ns)
        vars(self).update(changes)
        if self.max_batch_size > self.batch_size_bounds[-1] >= max(self.sizes, default=0):
            self.batch_size_bounds += (self.max_batch_size,)

    def flush(self, now_ns: int) -> None:
        self.pass_time(now_ns)
        self.flushed = set(self.queue)

    def close(self, now_ns: int) -> None:
        self.pass_time(now_ns)
        self.closed = True

    def next_wakeup_ns(self) -> int | None:
        instants = [r.deadline_ns for r in self.queue if r.deadline_ns is not None]
        departure = self._departure()
        if departure is not None:
            instants.append(departure[0])
        return max(self.now, min(instants)) if instants else None

    def predict_ns(self, batch_size: int) -> int | None:
        return self.cost.predict(batch_size)

    def stats(self) -> Stats:
        return Stats(
            submitted=self.submitted,
            **{outcome: self.ended[outcome] for outcome in OUTCOMES},
            queued=len(self.queue),
            running=sum(len(decision.batch) for decision in self.flying),
            in_flight_batches=len(self.flying),
            batches=len(self.sizes),
            batches_by_reason={reason: self.reasons[reason] for reason in REASONS},
            batch_size=_histogram(self.batch_size_bounds, self.sizes),
            queue_delay_ns=_histogram(self.delay_bounds_ns, self.delays),
            service_ns=_histogram(self.delay_bounds_ns, self.services),
            last_progress_at_ns=self.last_progress_at_ns,
            capacity=self.capacity,
            policy=self.policy,
            max_batch_size=self.max_batch_size,
            max_queue_size=self.max_queue_size,
            max_wait_ns=self.max_wait_ns,
            max_latency_ns=self.max_latency_ns,
        )

    def _departure(self) -> tuple[int, Reason] | None:
        """When and why the next batch leaves if no event comes; None while there is none or no worker to take it."""
        if not self.queue or len(self.flying) >= self.capacity:
            return None
        if len(self.queue) >= self.max_batch_size:
            return self.now, "full"
        if any(request in self.flushed for request in self.queue):
            return self.now, "flush"
        if self.closed:
            return self.now, "drain"
        if self.policy == "immediate":
            return self.now, "idle_worker"
        return min(self._limits(), key=lambda limit: limit[0])  # the first of equals, as the rule wants it

    def _limits(self) -> list[tuple[int, Reason]]:
        oldest = min(request.arrival_ns for request in self.queue)
        deadlines = [request.deadline_ns for request in self.queue if request.deadline_ns is not None]
        prediction = self.predict_ns(len(self.queue))
        margin = None if prediction is None else prediction * 5 // 4 + 1_000_000
        assert self.max_wait_ns is not None
        limits: list[tuple[int, Reason]] = [(oldest + self.max_wait_ns, "window")]
        if self.max_latency_ns is not None:
            limits.append((oldest if margin is None else oldest + self.max_latency_ns - margin, "latency"))
        if deadlines:
            limits.append((oldest if margin is None else min(deadlines) - margin, "deadline"))
        return limits

    def _dispatch(self, reason: Reason, expired: Any) -> Decision:
        batch: Any = tuple(sorted(self.queue, key=lambda r: (r.due_ns, r.number))[: self.max_batch_size])
        self.queue = [request for request in self.queue if request not in batch]
        for request in batch:
            request.status = "running"
            self.delays.append(self.now - request.arrival_ns)
        self.reasons[reason] += 1
        self.sizes.append(len(batch))
        decision = Decision("dispatch", self.now, reason, None, len(self.sizes), batch, expired)
        self.flying.append(decision)
        return decision

    def _end(self, requests: list[ReferenceRequest], outcome: str) -> None:
        for request in requests:
            request.status = outcome
        self.ended[outcome] += len(requests)
        self.queue = [request for request in self.queue if request.status == "queued"]


def _histogram(bounds: tuple[int, ...], values: list[int]) -> Histogram:
    edges = [LONG_AGO, *bounds, 2**63]
    counts = tuple(sum(low < v <= high for v in values) for low, high in pairwise(edges))
    return Histogram(bounds, counts, sum(values))
