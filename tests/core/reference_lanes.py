"""What is queued under one key, once more in plain Python: what a policy sees of it, and which of it go together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reference_policies import NEVER, Departure, Plan

if TYPE_CHECKING:
    from reference import Reference

FURTHER_LOOKS = 64
MOST_PASSED = 16
GROUP_LOOK = 256


@dataclass(eq=False, slots=True)
class ReferenceRequest:
    number: int
    arrival_ns: int
    deadline_ns: int | None
    priority: int
    due_ns: int
    weight: int
    lane: ReferenceLane
    status: str = "queued"
    passed: int = 0

    @property
    def until(self) -> int:
        return NEVER if self.deadline_ns is None else self.deadline_ns


class ReferenceLane:
    """Policies are shown a lane as if it were the whole engine: what it has not itself, it has from there."""

    def __init__(self, engine: Reference, key: Any) -> None:
        self.engine, self.key = engine, key
        self.queue: list[ReferenceRequest] = []
        self.plan: Plan | None = None  # of the latest event, once somebody asked for it
        self.planned_at = self.planned_after = -1  # when, and of which change
        self.waits_since: int | None = None  # when the batch that is forming was first let wait
        self.waits_until: int | None = None  # None: its batch is to be thought about

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)

    @property
    def largest(self) -> int:
        return min(len(self.queue), self.max_batch_size)

    @property
    def heavy(self) -> bool:
        return sum(request.weight for request in self.queue) >= self.max_batch_weight

    @property
    def flushed(self) -> bool:
        return any(request.number <= self.engine.flushed for request in self.queue)

    @property
    def lets_go(self) -> bool:
        return self.closed or self.flushed

    @property
    def rank(self) -> tuple[float, int]:
        soonest = self.soonest()[0]
        return self.used[self.key] if self.shares is not None else soonest.due_ns, soonest.number

    def soonest(self) -> list[ReferenceRequest]:
        return sorted(self.queue, key=lambda request: (request.due_ns, request.number))

    # Which go together

    def take(self, leaves: Departure) -> list[ReferenceRequest]:
        """The batch, in order of service."""
        order = self.soonest()[leaves.skip :]
        size = self.fit(leaves.size, len(order)) if self.allowed and leaves.size else leaves.size
        if self.padded and leaves.skip == 0 and 0 < size <= GROUP_LOOK // 2:
            batch = self.take_alike(order[: min(GROUP_LOOK, 4 * size)], size)
        else:
            batch = self.take_soonest(order, size)
        for i, request in enumerate(order):
            request.passed += request not in batch and any(other in batch for other in order[i + 1 :])
        return [request for request in order if request in batch]

    def fit(self, size: int, queued: int) -> int:
        """How many to take, where the model accepts certain sizes only and `size` was wanted."""
        up = min(other for other in self.allowed if other >= size)
        down = max((other for other in self.allowed if other <= size), default=0)
        if up <= min(queued, self.max_batch_size):
            return up
        if not down or self.fitting == "pad_up":
            return size
        expect = self.cost.expect
        cheaper = self.cost.known and expect(down) * size <= expect(up) * down
        return down if self.fitting == "batch_down" or cheaper else size

    def weighs(self, batch: list[ReferenceRequest]) -> int:
        weights = [request.weight for request in batch]
        return len(weights) * max(weights) if self.padded else sum(weights)

    def take_soonest(self, order: list[ReferenceRequest], size: int) -> list[ReferenceRequest]:
        """In order of service, past a few that are too heavy for what is left; not past those that others passed."""
        batch: list[ReferenceRequest] = []
        looks = FURTHER_LOOKS
        for request in order:
            if len(batch) == size or not looks:
                break
            if not batch or self.weighs([*batch, request]) <= self.max_batch_weight:
                batch.append(request)
            elif request.passed < MOST_PASSED:
                looks -= 1
            else:
                break
        return batch

    def take_alike(self, order: list[ReferenceRequest], size: int) -> list[ReferenceRequest]:
        """A window of the order by weight that wastes little; if it may be, with all that are overdue."""
        overdue = [i for i, request in enumerate(order) if i and request.passed >= MOST_PASSED]
        batch = self.window(order, order[: overdue[-1] + 1] if overdue else order[:1], size)
        return batch or self.as_they_come(order, size)

    def as_they_come(self, order: list[ReferenceRequest], size: int) -> list[ReferenceRequest]:
        batch = order[:1]
        for request in order[1:size]:
            if self.weighs([*batch, request]) > self.max_batch_weight:
                break
            batch.append(request)
        return batch

    def window(self, order: list[ReferenceRequest], must: list[ReferenceRequest], size: int) -> list[ReferenceRequest]:
        ascending = sorted(order, key=lambda request: (request.weight, order.index(request)))
        fewer: list[ReferenceRequest] = []  # all up to a weight at which more would be allowed
        whole: list[list[ReferenceRequest]] = []
        for i, heaviest in enumerate(ascending):
            count = min(size, len(order), max(int(self.max_batch_weight // heaviest.weight), 1))
            window = ascending[max(i + 1 - count, 0) : i + 1]
            if all(request in window for request in must):
                if len(window) < count:
                    fewer = window
                else:
                    whole.append(window)
        if not fewer and not whole:
            return must if len(must) == 1 else []
        # Windows of equal use: the lightest.  A full one takes the place of all there are if it is larger, or no worse.
        best = max([fewer] if fewer else whole[:1], key=self.use)
        for window in whole:
            if self.use(window) > self.use(best) or (best is fewer and len(window) > len(fewer)):
                best = window
        return best

    def use(self, batch: list[ReferenceRequest]) -> float:
        """The share of a padded batch that is no padding."""
        return float(sum(request.weight for request in batch)) / (float(len(batch)) * float(batch[-1].weight))
