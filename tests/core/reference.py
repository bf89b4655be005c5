"""The engine once more, in plain Python: the oracle that the compiled one is compared with.

Lists, `sorted`, `min` and a scan for every question, so that each rule reads as it is stated. It validates nothing
but what an event can get wrong; bad arguments are told in `test_stories.py`. What it learns is in
`reference_learning.py`, what it makes of that in `reference_policies.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from reference_lanes import ReferenceLane, ReferenceRequest
from reference_learning import MOST_LOAD, ReferenceCost, ReferenceTraffic
from reference_policies import NEVER, Departure, Plan, adaptive, departure, fixed, immediate

from batchcore.engine import AGING_NS
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import OUTCOMES, REASONS, Decision, Drop, Histogram, Stats, Wait

LONG_AGO = -(2**63)
POLICIES = {"immediate": immediate, "fixed": fixed, "adaptive": adaptive}


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
        max_batch_weight: int | None = None,
        overweight: bool = False,
        padded: bool = False,
        allowed_batch_sizes: Sequence[int] = (),
        batch_padding_policy: str = "min_cost",
        shares: dict[Any, float] | None = None,
    ) -> None:
        self.policy, self.max_batch_size, self.max_queue_size = policy, max_batch_size, max_queue_size
        self.max_wait_ns, self.max_latency_ns = max_wait_ns, max_latency_ns
        self.capacity, self.aging_ns = capacity, aging_ns
        self.batch_size_bounds, self.delay_bounds_ns = batch_size_bounds, delay_bounds_ns
        self.max_batch_weight = NEVER if max_batch_weight is None else max_batch_weight
        self.weighed, self.overweight, self.padded = padded or max_batch_weight is not None, overweight, padded
        self.allowed, self.fitting, self.shares = allowed_batch_sizes, batch_padding_policy, shares
        self.now = LONG_AGO
        self.lanes: dict[Any, ReferenceLane] = {}  # by key; those with something queued
        self.used: dict[Any, float] = {}  # of the workers' time, by the share, for ever
        self.level = self.active = 0.0  # what one that was idle for long has used; the sum of the shares of the others
        self.flying: list[Decision] = []
        self.ends_at: dict[int | None, int] = {}  # by batch, as predicted when it left
        self.loads: dict[int | None, int] = {}  # by batch
        self.closed = False
        self.flushed = 0  # number of the latest request that a flush lets go
        self.changes = 0  # after each, plans are made anew
        self.moment = "completion"
        self.dispatched_at: int | None = None
        self.probe_at = LONG_AGO
        self.lost = self.kept = 0.0
        self.cost, self.traffic = ReferenceCost(allowed_batch_sizes), ReferenceTraffic()
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
    def queue(self) -> list[ReferenceRequest]:
        return [request for lane in self.lanes.values() for request in lane.queue]

    @property
    def alone(self) -> bool:
        return len(self.lanes) == 1

    @property
    def running(self) -> int:
        return sum(len(decision.batch) for decision in self.flying)

    @property
    def free(self) -> bool:
        return len(self.flying) < self.capacity

    # Events

    def pass_time(self, now_ns: int) -> None:
        self.now = max(self.now, now_ns)

    def happen(self, now_ns: int) -> None:
        """Something that the plan of any lane may depend on."""
        self.pass_time(now_ns)
        self.changes += 1
        for lane in self.lanes.values():
            lane.waits_until = None

    def submit(
        self, now_ns: int, *, priority: int = 0, deadline_ns: int | None = None, key: Any = None, weight: int = 1
    ) -> ReferenceRequest:
        if weight > self.max_batch_weight and not self.overweight:
            raise ValueError
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
        lane = self.lanes.get(key) or ReferenceLane(self, key)
        request = ReferenceRequest(self.submitted, now, deadline_ns, priority, due, weight, lane)
        if late:
            request.status = "expired"
            self.ended["expired"] += 1
            return request
        self.moment = "further" if self.queue else "into idle"
        lane.queue.append(request)
        if key not in self.lanes:
            self._fill(lane)
        lane.waits_until = None
        self.changes += 1
        if self.weighed and not self.cost.per_request:
            self.cost.per_request = float(weight)
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
            self.cost.learn(self.loads[decision.batch_id], service_ns)
        cycle_ns = service_ns // max(self.capacity, 1)
        self.traffic.complete(self.now, cycle_ns, len(decision.batch), len(self.queue) + self.running)
        self.services.append(service_ns)
        self.last_progress_at_ns = self.now

    def set_capacity(self, now_ns: int, capacity: int) -> None:
        self.happen(now_ns)
        self.capacity = capacity

    def reconfigure(self, now_ns: int, **changes: Any) -> None:
        wanted = {name: getattr(self, name) for name in ("policy", "max_wait_ns", "max_batch_size")} | changes
        if wanted["policy"] == "fixed" and wanted["max_wait_ns"] is None:
            raise ValueError
        if self.allowed and wanted["max_batch_size"] > max(self.allowed):
            raise ValueError
        self.happen(now_ns)
        vars(self).update(changes)
        if self.max_batch_size > self.batch_size_bounds[-1] >= max(self.sizes, default=0):
            self.batch_size_bounds += (self.max_batch_size,)

    def flush(self, now_ns: int) -> None:
        self.happen(now_ns)
        self.flushed = self.submitted

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
        while found := self._soonest():
            lane, leaves = found
            if leaves is None:
                expired += self._ask(lane)
                continue
            late = [request for request in lane.soonest()[: leaves.skip] if request.until < leaves.give_up]
            batch = lane.take(leaves)
            expired += [self._end(request, "expired") for request in late]
            lane.waits_since = None
            if batch:
                return self._dispatch(lane, batch, leaves, expired)
        wake = self._wakes()
        return Decision("idle" if wake is None else "wait", self.now, None, wake, None, (), self._tuple(expired))

    def next_wakeup_ns(self) -> int | None:
        return self.now if self._soonest() else self._wakes()

    def _wakes(self) -> int | None:
        instants = [request.until - self._hopeless() for request in self.queue if request.until < NEVER]
        if self.free:
            instants += [lane.waits_until for lane in self.lanes.values() if lane.waits_until is not None]
        wake = min(instants, default=NEVER)
        return None if wake == NEVER else max(self.now, wake)

    def predict_ns(self, batch_size: int) -> int | None:
        return self.cost.predict(batch_size)

    def _hopeless(self) -> int:
        """How long before its deadline a request is sure to be late, while every worker is busy."""
        busy = 0 < len(self.flying) >= self.capacity
        return int(min(self.cost.fastest_ns, self.cost.expect(1))) if busy else 0

    def _soonest(self) -> tuple[ReferenceLane, Departure | None] | None:
        """The lane to serve, and how; or to ask a policy of one's own about; None: all wait, or no worker is free."""
        if not self.free:
            return None
        for lane in self.lanes.values():
            if lane.waits_until is not None and lane.waits_until <= self.now:
                lane.waits_until = None
        for lane in sorted(self.lanes.values(), key=lambda lane: lane.rank):
            if lane.waits_until is None:
                if self._asks(lane):
                    return lane, None
                plan = self._plan(lane)
                leaves = departure(lane, plan)
                if leaves.until <= self.now:
                    return lane, leaves
                lane.waits_until = min(leaves.until, plan.until) if plan.size == 0 else leaves.until
        return None

    def _asks(self, lane: ReferenceLane) -> bool:
        plan = lane.plan if lane.planned_after == self.changes else None
        over = plan is None or (plan.size == 0 and plan.until <= self.now)
        return not isinstance(self.policy, str) and not lane.lets_go and over

    def _ask(self, lane: ReferenceLane) -> list[ReferenceRequest]:
        """Ask the user's policy; return whom it gave up."""
        assert not isinstance(self.policy, str)
        answer = self.policy(self._view(lane))
        if isinstance(answer, Drop):
            return [self._end(request, "expired") for request in lane.soonest()[: answer.count]]
        if isinstance(answer, Wait):
            lane.plan = Plan(NEVER if answer.until_ns is None else answer.until_ns, 0, "chosen")
        else:
            lane.plan = Plan(self.now, min(answer, lane.largest), "chosen")
        lane.planned_after = self.changes
        return []

    def _view(self, lane: ReferenceLane) -> SimpleNamespace:
        arrivals = [request.arrival_ns for request in lane.queue]
        return SimpleNamespace(
            key=lane.key,
            now_ns=self.now,
            queued=len(lane.queue),
            running=self.running,
            in_flight=len(self.flying),
            capacity=self.capacity,
            max_batch_size=self.max_batch_size,
            max_wait_ns=self.max_wait_ns,
            max_latency_ns=self.max_latency_ns,
            oldest_arrival_ns=min(arrivals),
            newest_arrival_ns=max(arrivals),
            earliest_deadline_ns=min((r.deadline_ns for r in lane.queue if r.deadline_ns is not None), default=None),
            last_completion_ns=self.last_progress_at_ns,
            arrivals_per_second=self.traffic.rate(self.now) * 1e9,
            predict_ns=self.predict_ns,
            deadlines=lambda n: [request.deadline_ns for request in lane.soonest()[:n]],
            arrivals=lambda n: [request.arrival_ns for request in lane.soonest()[:n]],
            busy_until_ns=lambda: sorted(max(self.now, self.ends_at[d.batch_id]) for d in self.flying),
        )

    def _plan(self, lane: ReferenceLane) -> Plan:
        """What the policy wants; decided once after each event, so that an announced wake-up is exact."""
        if lane.plan is None or lane.planned_after != self.changes:
            lane.planned_at, lane.planned_after = self.now, self.changes
            self.traffic.moment = self.moment, self.now
            lane.plan = self._make_plan(lane)
            if lane.plan.until > self.now and lane.waits_since is None:
                lane.waits_since = self.now
        return lane.plan

    def _make_plan(self, lane: ReferenceLane) -> Plan:
        if not lane.lets_go:
            return POLICIES[self.policy](lane)  # type: ignore[index]
        plan = immediate(lane)
        full = lane.largest == self.max_batch_size
        return plan if full else Plan(plan.until, plan.size, "flush" if lane.flushed else "drain")

    def _dispatch(
        self, lane: ReferenceLane, batch: list[ReferenceRequest], leaves: Departure, expired: list[ReferenceRequest]
    ) -> Decision:
        number = len(self.sizes) + 1
        model_size = min((size for size in self.allowed if size >= len(batch)), default=len(batch))
        load = min(lane.weighs(batch), MOST_LOAD) if self.weighed else model_size
        if self.weighed:
            self.cost.per_request += 0.1 * (load / len(batch) - self.cost.per_request)
        if leaves.reason == "probe":
            self.probe_at = self.now + 2 * (self.cost.predict(1) or 0)
        if not self.flying and self.probe_at > self.now:
            self.happen(self.now)  # others that wait for their turn to be tried will not get it while something runs
        if self.shares is not None:
            work = load if self.weighed else sum(request.weight for request in batch)
            share = self.shares.get(lane.key, 1.0)
            self.level = max(self.level, self.used[lane.key]) + work / max(self.active, share)
            self.used[lane.key] += work / share
        for request in batch:
            self._leave(request, "running")
            self.delays.append(self.now - request.arrival_ns)
        self.reasons[leaves.reason] += 1
        self.sizes.append(len(batch))
        self.dispatched_at = self.now
        self.lost, self.kept = self.lost * 0.9, self.kept * 0.9 + len(batch)
        self.loads[number], self.ends_at[number] = load, self.now + int(self.cost.expect_load(load))
        tuples = self._tuple(batch), self._tuple(expired)
        decision = Decision("dispatch", self.now, leaves.reason, None, number, *tuples, lane.key, model_size)
        self.flying.append(decision)
        return decision

    def _end(self, request: ReferenceRequest, outcome: str) -> ReferenceRequest:
        self._leave(request, outcome)
        self.ended[outcome] += 1
        self.lost += outcome == "expired"
        return request

    def _fill(self, lane: ReferenceLane) -> None:
        """Take up a lane that has got its first request."""
        self.lanes[lane.key] = lane
        if self.shares is not None:
            self.used[lane.key] = max(self.used.get(lane.key, 0.0), self.level)
            self.active += self.shares.get(lane.key, 1.0)
        if len(self.lanes) == 2:
            self.happen(self.now)  # one that was alone may have waited

    def _leave(self, request: ReferenceRequest, status: str) -> None:
        request.status = status
        lane = request.lane
        lane.queue.remove(request)
        lane.waits_until = None
        self.changes += 1
        if not lane.queue:
            del self.lanes[lane.key]
            if self.shares is not None:
                self.active -= self.shares.get(lane.key, 1.0)
            if not self.lanes:
                self.active = 0.0
            if self.alone:
                self.happen(self.now)

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
            max_batch_weight=None if self.max_batch_weight == NEVER else self.max_batch_weight,
            keys=sum(lane.key is not None for lane in self.lanes.values() if lane.queue),
        )


def _histogram(bounds: tuple[int, ...], values: list[int]) -> Histogram:
    edges = [LONG_AGO, *bounds, 2**63]
    counts = tuple(sum(low < v <= high for v in values) for low, high in pairwise(edges))
    return Histogram(bounds, counts, sum(values))
