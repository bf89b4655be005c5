"""The policies once more, in plain Python: when a batch leaves, how large it is, and whom a deadline leaves out.

Each function looks at a lane of a `Reference` (see `reference_lanes.py`) and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from reference_learning import BIN_ENDS_NS, Gaps

from batchcore.records import Reason

if TYPE_CHECKING:
    from reference_lanes import ReferenceLane

NEVER = 2**63 - 1
WAKE_MARGIN_NS = 1_000_000
SLEEP_NS = 80_000
SEEN_AT_MOST = 256


@dataclass(frozen=True)
class Plan:
    until: int
    size: int  # 0: a policy in Python waits
    reason: Reason


@dataclass(frozen=True)
class Departure:
    """A plan, once deadlines are taken into account: pass over some, fail the late ones of them, take the next."""

    until: int
    size: int
    reason: Reason
    skip: int = 0
    give_up: int = 0


def immediate(engine: ReferenceLane) -> Plan:
    full = engine.largest == engine.max_batch_size or engine.heavy
    return Plan(engine.now, engine.largest, "full" if full else "idle_worker")


def no_later(engine: ReferenceLane, plan: Plan, size: int) -> Plan:
    """The first of the plan, the window and the latency target; of equals, the first named."""
    oldest = min(request.arrival_ns for request in engine.queue)
    ends = [plan]
    if engine.max_wait_ns is not None:
        ends.append(Plan(oldest + engine.max_wait_ns, plan.size, "window"))
    if engine.max_latency_ns is not None:
        prediction = engine.cost.predict(size)
        slack = 0 if prediction is None else engine.max_latency_ns - (prediction * 5 // 4 + WAKE_MARGIN_NS)
        ends.append(Plan(oldest + slack, plan.size, "latency"))
    return min(ends, key=lambda end: end.until)


def fixed(engine: ReferenceLane) -> Plan:
    plan = immediate(engine)
    if plan.reason == "full":
        return plan
    return no_later(engine, Plan(NEVER, plan.size, "idle_worker"), len(engine.queue))


def adaptive(engine: ReferenceLane) -> Plan:
    plan, now = immediate(engine), engine.now
    waited = 0 if engine.waits_since is None else now - engine.waits_since
    if plan.reason == "idle_worker" and waited:
        plan = Plan(now, plan.size, "gathered")
    if not engine.cost.known:
        return plan
    size = best_size(engine)
    if size < plan.size:
        return Plan(now, size, "split")
    if plan.reason == "full" or not engine.alone:
        return plan
    saved = engine.cost.expect(size) + engine.cost.expect(1) - engine.cost.expect(size + 1)
    longest = int(saved) - waited
    gathered, spaced = 0, until_our_turn(engine) if engine.capacity > 1 else 0
    if longest > 0 and engine.traffic.closed:
        last = engine.capacity - len(engine.flying) == 1
        gathered = until_callers_return(engine, longest) if last else 0
    elif longest > 0 and engine.capacity == 1:
        gathered = until_more_come(engine, longest)
    if gathered <= 0 and spaced <= 0:
        return plan
    wait = Plan(now + max(gathered, spaced), size, "spaced" if spaced > gathered else "gathered")
    return no_later(engine, wait, len(engine.queue) + 1)


def best_size(engine: ReferenceLane) -> int:
    """The largest batch, unless a smaller one makes the mean latency of what is queued 8 % less."""
    queued, cost = len(engine.queue), engine.cost
    rate = engine.traffic.rate(engine.now) / engine.capacity
    sizes = [engine.largest]
    while sizes[-1] > 1:
        sizes.append(min(sizes[-1] * 4 // 5, sizes[-1] - 1))
    speeds = {size: size / cost.expect(size) for size in sizes}
    full = speeds[sizes[0]]
    slowest = (0.98 if engine.capacity - len(engine.flying) == 1 else 0.96) * full

    def latency(size: int) -> float:
        return queued / (speeds[size] - rate) + cost.expect(size)

    bearable = {size: latency(size) for size in sizes[1:] if speeds[size] > rate and speeds[size] >= slowest}
    if full > rate:
        bearable[sizes[0]] = 0.92 * latency(sizes[0])
    if bearable:
        return min(bearable, key=lambda size: (bearable[size], -size))
    fast = {size: speeds[size] for size in sizes[1:]} | {sizes[0]: 1.08 * full}
    return max(fast, key=lambda size: (fast[size], size))


def until_callers_return(engine: ReferenceLane, longest: int) -> int:
    """How long to wait so that most requests are answered a second; of waits within 3.5 % of that, the longest."""
    traffic, cost, queued = engine.traffic, engine.cost, len(engine.queue)
    missing = traffic.missing(queued + engine.running)
    if engine.capacity > 1:
        missing = min(missing, traffic.awaited)
    since = engine.now - traffic.completed_at
    first = Gaps.bin(since)
    tail = add(traffic.returns.weights[first:])
    if missing <= 0 or not traffic.returns.known or tail <= 0:
        return 0
    now = most = queued / cost.expect(queued)
    come = spent = before = 0.0
    start, speeds = 0, {}
    for i in range(first, len(BIN_ENDS_NS)):
        end = BIN_ENDS_NS[i] - since
        if end > longest:
            break
        come += traffic.returns.weights[i]
        all_back = power(come / tail, missing)
        spent += (1.0 - 0.5 * (before + all_back)) * (end - start)
        before, start = all_back, end
        size = min(queued + missing * come / tail, float(engine.max_batch_size))
        speeds[end] = size / (spent + cost.expect(int(size + 0.5)))
        most = max(most, speeds[end])
    if most <= now:
        return 0
    return max((end for end, speed in speeds.items() if speed >= (1.0 - 0.035) * most), default=0)


def until_more_come(engine: ReferenceLane, longest: int) -> int:
    """How long to wait for the next request, if on the gaps that were seen that gains anything."""
    gaps, cost, queued = engine.traffic.gaps[engine.moment], engine.cost, len(engine.queue)
    if not gaps.known:
        return 0
    service, grown = cost.expect(queued), cost.expect(queued + 1)
    merged, each = cost.expect(1) - grown, grown - service
    behind = max(engine.traffic.rate(engine.now) * service - 1.0, 0.0)
    missed, gain = 1.0, 0.0
    best, best_wait = 0.05 * (service + merged), 0
    for gap, weight in takewhile(lambda pair: pair[0] <= longest, zip(BIN_ENDS_NS, gaps.weights, strict=True)):
        if weight:
            share = weight / gaps.total
            takes = max(gap, SLEEP_NS)
            saved = max(service - takes, 0.0) + merged + each * behind - queued * (takes + each) - behind * takes
            gain += share * saved
            missed -= share
            value = gain - missed * (queued + behind) * takes
            if value > best:
                best, best_wait = value, gap
    return best_wait


def until_our_turn(engine: ReferenceLane) -> int:
    """How long to wait so that workers start evenly spaced, where all batches take much the same time."""
    cost, service = engine.cost, engine.cost.expect(engine.largest)
    rate = engine.traffic.rate(engine.now)
    if engine.dispatched_at is None or rate * service <= engine.capacity:
        return 0
    likely = max(float(len(engine.queue)), rate * service / engine.capacity)
    if cost.intercept < 0.66 * cost.law(cost.load(min(likely, float(engine.max_batch_size)))):
        return 0
    return engine.dispatched_at + int(service / engine.capacity) - engine.now


def departure(engine: ReferenceLane, plan: Plan) -> Departure:
    """What becomes of a plan in front of the deadlines of what is queued."""
    cost, now = engine.cost, engine.now
    size = plan.size or engine.largest
    as_planned = Departure(plan.until, size, plan.reason)
    first = min(engine.queue, key=lambda request: (request.until, request.number))
    if first.until == NEVER:
        return as_planned
    if not cost.known:
        teaches = plan.until > now and isinstance(engine.policy, str)
        return Departure(now, size, "deadline") if teaches else as_planned
    if first.until < now + cost.careful(size):
        return selection(engine, plan, size)
    more = min(len(engine.queue) + 1, engine.max_batch_size)
    latest = Plan(first.until - WAKE_MARGIN_NS - max(cost.careful(size), cost.careful(more)), size, "deadline")
    if now < plan.until and latest.until < plan.until:
        plan = latest
    elif (
        engine.policy == "adaptive"
        and (engine.capacity > 1 and engine.alone)
        and not (engine.lets_go or engine.traffic.closed)
    ):
        bearable = staggered_size(engine, engine.max_batch_size, first.until - first.arrival_ns)
        enough = needed_size(engine, bearable)
        oldest = min(request.arrival_ns for request in engine.queue)
        latest = Plan(min(latest.until, oldest + cost.careful(enough)), size, "deadline")
        if len(engine.queue) < enough and latest.until > max(plan.until, now):
            deferred = no_later(engine, latest, more)
            plan = deferred if deferred.until > plan.until or plan.until <= now else plan
    return Departure(plan.until, size, plan.reason)


def staggered_size(engine: ReferenceLane, limit: int, timeout: int) -> int:
    """The largest batch that bears its own service time and the wait for one of so many staggered workers."""
    return max(engine.cost.largest_within(timeout - timeout // (engine.capacity + 1), limit), 1)


def needed_size(engine: ReferenceLane, limit: int) -> int:
    """The size from which batches of it keep up with a fifth more than came when the plan was made."""
    wanted = 1.2 * engine.traffic.rate(engine.planned_at) / engine.capacity
    fails, keeps_up = 0, limit
    while fails + 1 < keeps_up:
        middle = (fails + keeps_up) // 2
        if middle >= wanted * engine.cost.expect(middle):
            keeps_up = middle
        else:
            fails = middle
    return keeps_up


def selection(engine: ReferenceLane, plan: Plan, wanted: int) -> Departure:
    """Whom to pass over and whom to take, when the first deadline does not bear the batch that was wanted."""
    cost, now, queued = engine.cost, engine.now, len(engine.queue)
    soonest = engine.soonest()[:SEEN_AT_MOST]
    timeouts = [NEVER if r.until == NEVER else r.until - r.arrival_ns for r in soonest]
    shortest, longest = min(timeouts), max(timeouts)
    limit = engine.max_batch_size if wanted >= queued else wanted
    if engine.capacity > 1:
        limit = staggered_size(engine, limit, shortest)
    mixed = engine.capacity == 1 and longest - shortest > shortest // 4
    skip, size = Outlook(engine, [request.until for request in soonest], limit).choose(mixed=mixed)
    give_up = now + cost.careful(1)
    if size:
        if engine.capacity - len(engine.flying) == 1:
            give_up += cost.careful(size)
        differs = skip > 0 or size != wanted or plan.until > now
        return Departure(now, size, "deadline" if differs else plan.reason, skip, give_up)
    if queued > SEEN_AT_MOST:
        return Departure(now, 0, "deadline", skip, give_up)
    until = NEVER if engine.flying else max(engine.probe_at, now)
    return Departure(until, 1, "probe", queued - 1, give_up)


class Outlook:
    """Compares choices of (requests passed over, requests taken after them) by what they lose."""

    def __init__(self, engine: ReferenceLane, deadlines: list[int], limit: int) -> None:
        self.engine, self.cost, self.now = engine, engine.cost, engine.now
        self.deadlines, self.limit = deadlines, limit
        self.single = engine.cost.careful(1)

    def size_after(self, skip: int) -> int:
        return min(len(self.engine.queue) - skip, self.limit)

    def fast_enough(self, skip: int) -> int:
        return self.cost.largest_within(self.deadlines[skip] - self.now, self.size_after(skip))

    def choose(self, *, mixed: bool) -> tuple[int, int]:
        suffix = self.suffix(self.now, 0)
        if suffix[0] == 0:
            return suffix
        first = self.first()
        if suffix[1] == 0 or not mixed:
            return suffix if suffix[1] else first
        return min(suffix, first, self.efficient(first, suffix), key=self.losses)

    def suffix(self, now: int, skip: int) -> tuple[int, int]:
        """As few as possible from `skip` on, so that the first one kept makes it in a batch of all the others."""
        for i in range(skip, len(self.deadlines)):
            if self.deadlines[i] >= now + self.cost.careful(self.size_after(i)):
                return i, self.size_after(i)
        return len(self.deadlines), 0

    def first(self) -> tuple[int, int]:
        """The first that can make it at all, in the largest batch that is fast enough for it."""
        for i, deadline in enumerate(self.deadlines):
            if deadline >= self.now + self.single:
                return i, self.fast_enough(i)
        return len(self.deadlines), 0

    def efficient(self, first: tuple[int, int], suffix: tuple[int, int]) -> tuple[int, int]:
        """From the one to the other, the batch that computes most a second."""
        choices = [(skip, self.fast_enough(skip)) for skip in range(first[0], suffix[0])]
        return max((c for c in choices if c[1]), key=lambda c: c[1] / self.cost.expect(c[1]), default=first)

    def losses(self, choice: tuple[int, int]) -> float:
        skip, size = choice
        now = self.now + self.cost.careful(size)
        lost = sum(deadline < now + self.single for deadline in self.deadlines[:skip])
        i = skip + size
        while i < len(self.deadlines):
            after, size = self.suffix(now, i)
            lost += after - i
            if not size:
                break
            now += self.cost.careful(size)
            i = after + size
        return lost + self.price(now - self.now)

    def price(self, spent: int) -> float:
        """What the time is worth: half of what could be computed in it, as far as requests are being lost."""
        lost, kept = self.engine.lost, self.engine.kept
        if not lost:
            return 0.0
        return 0.5 * lost / (lost + kept) * (self.limit / self.cost.expect(self.limit)) * spent


def add(values: list[float]) -> float:
    """From left to right, and rounded at each step; newer versions of `sum` are more exact."""
    total = 0.0
    for value in values:
        total += value
    return total


def power(x: float, n: int) -> float:
    """By squaring, from the lowest bit of n up."""
    result = 1.0
    while n:
        result, x, n = result * x if n & 1 else result, x * x, n >> 1
    return result
