"""The engine once more, in plain Python: the oracle that the compiled one is compared with.

Lists, `sorted`, `min` and a scan for every question, so that each rule reads as it is stated. It validates nothing
but what an event can get wrong; bad arguments are told in `test_stories.py`. What it learns is in
`reference_learning.py`, what it makes of that in `reference_policies.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from reference_learning import ReferenceCost, ReferenceTraffic
from reference_policies import NEVER, Departure, Plan, adaptive, departure, fixed, immediate

from batchcore.engine import AGING_NS
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import OUTCOMES, REASONS, Decision, Drop, Histogram, Stats, Wait

LONG_AGO = -(2**63)
POLICIES = {"immediate": immediate, "fixed": fixed, "adaptive": adaptive}


@dataclass(eq=False, slots=True)
class ReferenceRequest:
    number: int
    arrival_ns: int
    deadline_ns: int | None
    priority: int
    due_ns: int
    status: str = "queued"

    @property
    def until(self) -> int:
        return NEVER if self.deadline_ns is None else self.deadline_ns


class Reference:
    def __init__(
        self,
        *,
        policy: str | Callable[[Any], Any] = "immediate",
        max_batch_size: int = 32,
        max_wait_ns: int | None = None,
        max_latency_ns: int | None = None,
        max_queue_size: int = 65536,
        capacity: int = 1,
        aging_ns: int = AGING_NS,
        cost_model: Sequence[tuple[int, int]] = (),
        batch_size_bounds: tuple[int, ...] = (1,),
        delay_bounds_ns: tuple[int, ...] = (0,),
    ) -> None:
        self.policy, self.max_batch_size, self.max_queue_size = policy, max_batch_size, max_queue_size
        self.max_wait_ns, self.max_latency_ns = max_wait_ns, max_latency_ns
        self.capacity, self.aging_ns = capacity, aging_ns
        self.batch_size_bounds, self.delay_bounds_ns = batch_size_bounds, delay_bounds_ns
        self.now = LONG_AGO
        self.queue: list[ReferenceRequest] = []
        self.flying: list[Decision] = []
        self.ends_at: dict[int | None, int] = {}  # by batch, as predicted when it left
        self.closed = False
        self.flushed: set[ReferenceRequest] = set()
        self.plan: Plan | None = None  # of the latest event, once somebody asked for it
        self.planned_at = 0
        self.moment = "completion"
        self.waits_since: int | None = None  # when the batch that is forming was first let wait
        self.dispatched_at: int | None = None
        self.probe_at = LONG_AGO
        self.lost = self.kept = 0.0
        self.cost, self.traffic = ReferenceCost(), ReferenceTraffic()
        for size, service_ns in cost_model:
            for _ in range(3):
                self.cost.learn(size, service_ns)
        self.submitted = 0
        self.ended: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.sizes: list[int] = []
        self.delays: list[int] = []
        self.services: list[int] = []
        self.last_progress_at_ns: int | None = None

    @property
    def largest(self) -> int:
        return min(len(self.queue), self.max_batch_size)

    @property
    def running(self) -> int:
        return sum(len(decision.batch) for decision in self.flying)

    @property
    def ready(self) -> bool:
        return bool(self.queue) and len(self.flying) < self.capacity

    @property
    def lets_go(self) -> bool:
        return self.closed or any(request in self.flushed for request in self.queue)

    def soonest(self) -> list[ReferenceRequest]:
        return sorted(self.queue, key=lambda request: (request.due_ns, request.number))

    # Events

    def pass_time(self, now_ns: int) -> None:
        self.now = max(self.now, now_ns)

    def happen(self, now_ns: int) -> None:
        """Something that a plan may depend on."""
        self.pass_time(now_ns)
        self.plan = None

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
            return request
        self.moment = "further" if self.queue else "into idle"
        self.queue.append(request)
        self.happen(now)
        self.traffic.arrive(now, len(self.queue) + self.running)
        return request

    def cancel(self, now_ns: int, request: ReferenceRequest) -> bool:
        if request not in self.queue:
            return False
        self.pass_time(now_ns)
        self._end(request, "cancelled")
        return True

    def complete(self, now_ns: int, decision: Decision, *, failed: int = 0) -> None:
        if not any(decision is flying for flying in self.flying) or not 0 <= failed <= len(decision.batch):
            raise ValueError
        self.happen(now_ns)
        self.moment = "completion"
        self.flying = [flying for flying in self.flying if flying is not decision]
        for i, request in enumerate(decision.batch):
            request.status = "completed" if i < len(decision.batch) - failed else "failed"
            self.ended[request.status] += 1
        service_ns = self.now - decision.at_ns
        if failed < len(decision.batch):
            self.cost.learn(len(decision.batch), service_ns)
        cycle_ns = service_ns // max(self.capacity, 1)
        self.traffic.complete(self.now, cycle_ns, len(decision.batch), len(self.queue) + self.running)
        self.services.append(service_ns)
        self.last_progress_at_ns = self.now

    def set_capacity(self, now_ns: int, capacity: int) -> None:
        self.happen(now_ns)
        self.capacity = capacity

    def reconfigure(self, now_ns: int, **changes: Any) -> None:
        wanted = {"policy": self.policy, "max_wait_ns": self.max_wait_ns} | changes
        if wanted["policy"] == "fixed" and wanted["max_wait_ns"] is None:
            raise ValueError
        self.happen(now_ns)
        vars(self).update(changes)
        if self.max_batch_size > self.batch_size_bounds[-1] >= max(self.sizes, default=0):
            self.batch_size_bounds += (self.max_batch_size,)

    def flush(self, now_ns: int) -> None:
        self.happen(now_ns)
        self.flushed = set(self.queue)

    def close(self, now_ns: int) -> None:
        self.happen(now_ns)
        self.closed = True

    # Decisions

    def decide(self, now_ns: int) -> Decision:
        self.pass_time(now_ns)
        expired = []
        for request in sorted(self.queue, key=lambda r: (r.until, r.number)):
            if request.until - self._hopeless() > self.now:
                break
            expired.append(self._end(request, "expired"))
        while self.ready:
            if self._asks():
                expired += self._ask()
            elif (leaves := departure(self, self._plan())).until > self.now:
                break
            else:
                late, batch = self._depart(leaves)
                expired += late
                if batch:
                    return self._dispatch(batch, leaves, expired)
        wake = self.next_wakeup_ns()
        return Decision("idle" if wake is None else "wait", self.now, None, wake, None, (), self._tuple(expired))

    def next_wakeup_ns(self) -> int | None:
        if self.ready and self._asks():
            return self.now
        instants = [request.until - self._hopeless() for request in self.queue if request.until < NEVER]
        if self.ready:
            plan = self._plan()
            instants += [departure(self, plan).until, plan.until if plan.size == 0 else NEVER]
        wake = min(instants, default=NEVER)
        return None if wake == NEVER else max(self.now, wake)

    def predict_ns(self, batch_size: int) -> int | None:
        return self.cost.predict(batch_size)

    def _hopeless(self) -> int:
        """How long before its deadline a request is sure to be late, while every worker is busy."""
        busy = 0 < len(self.flying) >= self.capacity
        return int(min(self.cost.fastest_ns, self.cost.expect(1))) if busy else 0

    def _asks(self) -> bool:
        over = self.plan is None or (self.plan.size == 0 and self.plan.until <= self.now)
        return not isinstance(self.policy, str) and not self.lets_go and over

    def _ask(self) -> list[ReferenceRequest]:
        """Ask the user's policy; return whom it gave up."""
        assert not isinstance(self.policy, str)
        answer = self.policy(self._view())
        if isinstance(answer, Drop):
            return [self._end(request, "expired") for request in self.soonest()[: answer.count]]
        if isinstance(answer, Wait):
            self.plan = Plan(NEVER if answer.until_ns is None else answer.until_ns, 0, "chosen")
        else:
            self.plan = Plan(self.now, min(answer, self.largest), "chosen")
        return []

    def _view(self) -> SimpleNamespace:
        arrivals = [request.arrival_ns for request in self.queue]
        return SimpleNamespace(
            key=None,
            now_ns=self.now,
            queued=len(self.queue),
            running=self.running,
            in_flight=len(self.flying),
            capacity=self.capacity,
            max_batch_size=self.max_batch_size,
            max_wait_ns=self.max_wait_ns,
            max_latency_ns=self.max_latency_ns,
            oldest_arrival_ns=min(arrivals),
            newest_arrival_ns=max(arrivals),
            earliest_deadline_ns=min((r.deadline_ns for r in self.queue if r.deadline_ns is not None), default=None),
            last_completion_ns=self.last_progress_at_ns,
            arrivals_per_second=self.traffic.rate(self.now) * 1e9,
            predict_ns=self.predict_ns,
            deadlines=lambda n: [request.deadline_ns for request in self.soonest()[:n]],
            arrivals=lambda n: [request.arrival_ns for request in self.soonest()[:n]],
            busy_until_ns=lambda: sorted(max(self.now, self.ends_at[d.batch_id]) for d in self.flying),
        )

    def _plan(self) -> Plan:
        """What the policy wants; decided once after each event, so that an announced wake-up is exact."""
        if self.plan is None:
            self.planned_at = self.now
            self.traffic.moment = self.moment, self.now
            self.plan = self._make_plan()
            if self.plan.until > self.now and self.waits_since is None:
                self.waits_since = self.now
        return self.plan

    def _make_plan(self) -> Plan:
        if not self.lets_go:
            return POLICIES[self.policy](self)  # type: ignore[index]
        plan = immediate(self)
        flushed = any(request in self.flushed for request in self.queue)
        return plan if plan.reason == "full" else Plan(plan.until, plan.size, "flush" if flushed else "drain")

    def _depart(self, leaves: Departure) -> tuple[list[ReferenceRequest], list[ReferenceRequest]]:
        """Whom to give up of those passed over, and who runs."""
        order = self.soonest()
        late = [request for request in order[: leaves.skip] if request.until < leaves.give_up]
        return [self._end(request, "expired") for request in late], order[leaves.skip : leaves.skip + leaves.size]

    def _dispatch(self, batch: list[ReferenceRequest], leaves: Departure, expired: list[ReferenceRequest]) -> Decision:
        if leaves.reason == "probe":
            self.probe_at = self.now + 2 * (self.cost.predict(1) or 0)
        for request in batch:
            self._leave(request, "running")
            self.delays.append(self.now - request.arrival_ns)
        self.reasons[leaves.reason] += 1
        self.sizes.append(len(batch))
        self.dispatched_at, self.waits_since = self.now, None
        self.lost, self.kept = self.lost * 0.9, self.kept * 0.9 + len(batch)
        number = len(self.sizes)
        self.ends_at[number] = self.now + (self.cost.predict(len(batch)) or 0)
        decision = Decision(
            "dispatch",
            self.now,
            leaves.reason,
            None,
            number,
            self._tuple(batch),
            self._tuple(expired),
            None,
            len(batch),
        )
        self.flying.append(decision)
        return decision

    def _end(self, request: ReferenceRequest, outcome: str) -> ReferenceRequest:
        self._leave(request, outcome)
        self.ended[outcome] += 1
        self.lost += outcome == "expired"
        return request

    def _leave(self, request: ReferenceRequest, status: str) -> None:
        request.status = status
        self.queue.remove(request)
        self.plan = None
        if not self.queue:
            self.waits_since = None

    @staticmethod
    def _tuple(requests: list[ReferenceRequest]) -> tuple[Any, ...]:
        return tuple(requests)

    def stats(self) -> Stats:
        return Stats(
            submitted=self.submitted,
            **{outcome: self.ended[outcome] for outcome in OUTCOMES},
            queued=len(self.queue),
            running=self.running,
            in_flight_batches=len(self.flying),
            batches=len(self.sizes),
            batches_by_reason={reason: self.reasons[reason] for reason in REASONS},
            batch_size=_histogram(self.batch_size_bounds, self.sizes),
            queue_delay_ns=_histogram(self.delay_bounds_ns, self.delays),
            service_ns=_histogram(self.delay_bounds_ns, self.services),
            last_progress_at_ns=self.last_progress_at_ns,
            capacity=self.capacity,
            policy=self.policy if isinstance(self.policy, str) else type(self.policy).__name__,
            max_batch_size=self.max_batch_size,
            max_queue_size=self.max_queue_size,
            max_wait_ns=self.max_wait_ns,
            max_latency_ns=self.max_latency_ns,
        )


def _histogram(bounds: tuple[int, ...], values: list[int]) -> Histogram:
    edges = [LONG_AGO, *bounds, 2**63]
    counts = tuple(sum(low < v <= high for v in values) for low, high in pairwise(edges))
    return Histogram(bounds, counts, sum(values))
