"""Engine and reference model live through the same events and must give the same answers."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from reference import Reference, ReferenceRequest
from traces import Fickle

from batchcore.engine import Engine, Request
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import Decision

MS = 1_000_000
BOUNDS = {"batch_size_bounds": (1, 2, 4, 8), "delay_bounds_ns": (0, MS, 5 * MS, 20 * MS)}

# Few different values, so that ties and exact hits are common; some of them off the grid, so that nothing relies on it.
steps = st.sampled_from([0, 0, 1, 20_001, 300_000, MS - 1, MS, 5 * MS, 5 * MS + 1, 30 * MS, -1, -7 * MS])
timeouts = st.sampled_from([None, None, 0, 1, MS, 4 * MS, 5 * MS, 6 * MS, 20 * MS, 500 * MS])
long_timeouts = st.sampled_from([None, 12 * MS, 30 * MS, 30 * MS, 200 * MS])
priorities = st.sampled_from([0, 0, 0, -1, 1, 2, -9, 9])
waits = st.sampled_from([0, 1, 5 * MS, 20 * MS])
targets = st.sampled_from([None, 0, 10 * MS, 40 * MS])
sizes = st.integers(1, 9)
costs = st.sampled_from([(), (), [(1, 6 * MS), (8, 14 * MS)], [(1, 10 * MS), (8, 11 * MS)], [(1, 2 * MS), (4, 9 * MS)]])
policies = st.sampled_from(
    [
        {"policy": "immediate"},
        {"policy": "fixed", "max_wait_ns": 10 * MS},
        {"policy": "adaptive"},
        {"policy": "adaptive"},
        {"policy": "adaptive", "max_wait_ns": 4 * MS},
        {"policy": Fickle},
    ]
)


class SameAnswers(RuleBasedStateMachine):
    @initialize(
        policy=policies,
        costs=costs,
        latency=targets,
        size=sizes,
        queue_size=st.sampled_from([1, 5, 500, 500]),
        capacity=st.integers(0, 4),
        aging=st.sampled_from([0, 1, 10 * MS, 2_000 * MS]),
    )
    def begin(
        self,
        *,
        policy: dict[str, Any],
        costs: list[tuple[int, int]],
        latency: int | None,
        size: int,
        queue_size: int,
        capacity: int,
        aging: int,
    ) -> None:
        options = {
            "max_batch_size": size,
            "max_latency_ns": latency,
            "max_queue_size": queue_size,
            "capacity": capacity,
            "aging_ns": aging,
            "cost_model": costs,
        }
        self.start(policy, options)

    def start(self, policy: dict[str, Any], options: dict[str, Any]) -> None:
        self.policies = Fickle(0), Fickle(0)
        ours, theirs = self.for_each(policy)
        self.engine = Engine(**ours, **options, **BOUNDS)
        self.reference = Reference(**theirs, **options, **BOUNDS)
        self.now = 0
        self.requests: list[tuple[Request, ReferenceRequest]] = []
        self.numbers: dict[Request, int] = {}
        self.batches: list[tuple[Decision, Decision]] = []

    def for_each(self, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The options for the engine and for the reference: a policy of somebody's own is not shared."""
        if options.get("policy") is not Fickle:
            return options, options
        self.policies = Fickle(7), Fickle(7)
        return options | {"policy": self.policies[0]}, options | {"policy": self.policies[1]}

    def terms(self) -> dict[str, Any]:
        """What else the next request is submitted with."""
        return {}

    def pass_time(self, step: int) -> int:
        """The instant of the next event; it may lie in the past."""
        instant = self.now + step
        self.now = max(self.now, instant)
        return instant

    def offer(self, now: int, priority: int, timeout: int | None) -> None:
        options: dict[str, Any] = {"priority": priority, "deadline_ns": None if timeout is None else self.now + timeout}
        options |= self.terms()
        try:
            expected = self.reference.submit(now, **options)
        except (QueueFull, SchedulerClosed, ValueError) as error:
            with pytest.raises(type(error)):
                self.engine.submit(now, **options)
        else:
            request = self.engine.submit(now, **options)
            self.requests.append((request, expected))
            self.numbers[request] = expected.number
            assert request.arrival_ns == expected.arrival_ns

    def decide_at(self, now: int) -> str:
        decision, expected = self.engine.decide(now), self.reference.decide(now)
        assert self.numbered(decision) == replace(
            expected,
            batch=tuple(request.number for request in expected.batch),
            expired=tuple(request.number for request in expected.expired),
        )
        if decision.kind == "dispatch":
            self.batches.append((decision, expected))
        return decision.kind

    def numbered(self, decision: Decision) -> Decision:
        batch: Any = tuple(self.numbers[request] for request in decision.batch)
        expired: Any = tuple(self.numbers[request] for request in decision.expired)
        return replace(decision, batch=batch, expired=expired)

    @rule(step=steps, priority=priorities, timeout=timeouts)
    def submit(self, step: int, priority: int, timeout: int | None) -> None:
        self.offer(self.pass_time(step), priority, timeout)

    @rule(step=steps, count=st.integers(1, 12), gap=st.sampled_from([0, 20_000, 400_000]), timeout=long_timeouts)
    def submit_alike(self, step: int, count: int, gap: int, timeout: int | None) -> None:
        now = self.pass_time(step)
        for _ in range(count):
            self.offer(now, 0, timeout)
            now = self.pass_time(gap)

    @rule(
        rounds=st.integers(1, 12),
        count=st.integers(1, 8),
        service=st.sampled_from([MS, 9 * MS, 14 * MS]),
        lag=st.sampled_from([10_000, 500_000, 4 * MS, 20 * MS]),
        timeout=st.sampled_from([None, None, 40 * MS]),
    )
    def serve_callers_who_come_back(self, rounds: int, count: int, service: int, lag: int, timeout: int | None) -> None:
        """So that there is something to learn: as many as were answered ask again, at once or after a while."""
        for i in range(rounds):
            self.complete_all(service + i)
            for j in range(count):
                self.offer(self.pass_time(lag + 1_000 * j if j == 0 else 10_000), 0, timeout)
            self.sleep_until_the_wakeup(0)
            self.dispatch_all_that_goes(0)

    @rule(count=st.integers(2, 30), falling=st.booleans(), seed=st.integers(0, 2**16), step=steps)
    def submit_a_burst(self, count: int, falling: bool, seed: int, step: int) -> None:
        """Each more urgent than all before it, or in no order at all: both leave the ground of sorted runs."""
        chance = random.Random(seed)
        now = self.pass_time(step)
        for i in range(count):
            priority = count - i if falling else chance.choice([0, 0, 1, 5, -5, -6, chance.randint(-50, 50)])
            self.offer(now, priority, chance.choice([None, 100 * MS, (count - i) * MS, chance.randint(1, 50 * MS)]))

    @rule(step=steps, data=st.data())
    def cancel(self, step: int, data: st.DataObject) -> None:
        if self.requests:
            request, expected = data.draw(st.sampled_from(self.requests))
            now = self.pass_time(step)
            assert self.engine.cancel(now, request) == self.reference.cancel(now, expected)

    @rule(every=st.integers(1, 4), backwards=st.booleans())
    def cancel_many(self, every: int, backwards: bool) -> None:
        queued = [pair for pair in self.requests if pair[1].status == "queued"]
        for request, expected in queued[:: -every if backwards else every]:
            assert self.engine.cancel(self.now, request) is self.reference.cancel(self.now, expected) is True

    @rule(step=steps)
    def decide(self, step: int) -> None:
        self.decide_at(self.pass_time(step))

    @rule(step=steps)
    def dispatch_all_that_goes(self, step: int) -> None:
        now = self.pass_time(step)
        while self.decide_at(now) == "dispatch":
            pass

    @rule(early=st.integers(0, 2))
    def sleep_until_the_wakeup(self, early: int) -> None:
        self.both_would_wake_at_the_same_instant()
        wake = self.reference.next_wakeup_ns()
        if wake is not None:
            self.now = max(self.now, wake - early)
            self.decide_at(self.now)

    @rule(step=steps, failed=st.sampled_from([0, 0, 1, 9]), data=st.data())
    def complete(self, step: int, failed: int, data: st.DataObject) -> None:
        if not self.batches:
            return
        decision, expected = data.draw(st.sampled_from(self.batches[:-5:-1]))
        now = self.pass_time(step)
        try:
            self.reference.complete(now, expected, failed=failed)
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                self.engine.complete(now, decision, failed=failed)
        else:
            self.engine.complete(now, decision, failed=failed)

    @rule(step=steps)
    def complete_all(self, step: int) -> None:
        now = self.pass_time(step)
        for decision, expected in self.batches:
            if any(expected is flying for flying in self.reference.flying):
                self.reference.complete(now, expected)
                self.engine.complete(now, decision)

    @rule(step=steps, capacity=st.integers(0, 4))
    def set_capacity(self, step: int, capacity: int) -> None:
        now = self.pass_time(step)
        self.reference.set_capacity(now, capacity)
        self.engine.set_capacity(now, capacity)

    @rule(
        step=steps,
        changes=st.fixed_dictionaries(
            {},
            optional={
                "policy": st.sampled_from(["immediate", "fixed", "adaptive", Fickle]),
                "max_batch_size": sizes,
                "max_wait_ns": waits,
                "max_latency_ns": targets,
                "max_queue_size": st.sampled_from([1, 5, 500]),
            },
        ),
    )
    def reconfigure(self, step: int, changes: dict[str, Any]) -> None:
        now = self.pass_time(step)
        ours, theirs = self.for_each(changes)
        try:
            self.reference.reconfigure(now, **theirs)
        except ValueError:
            with pytest.raises(ValueError, match=r"max_wait|max_batch_size"):
                self.engine.reconfigure(now, **ours)
        else:
            self.engine.reconfigure(now, **ours)

    @rule(step=steps)
    def flush(self, step: int) -> None:
        now = self.pass_time(step)
        self.reference.flush(now)
        self.engine.flush(now)

    @precondition(lambda self: len(self.batches) > 5)  # or little would ever happen
    @rule(step=steps)
    def close(self, step: int) -> None:
        now = self.pass_time(step)
        self.reference.close(now)
        self.engine.close(now)

    @invariant()
    def the_engine_is_sound(self) -> None:
        self.engine.check()

    @invariant()
    def both_count_the_same(self) -> None:
        assert self.engine.stats() == self.reference.stats()

    @invariant()
    def a_policy_of_ones_own_is_shown_the_same(self) -> None:
        assert self.policies[0].seen == self.policies[1].seen

    @invariant()
    def both_would_wake_at_the_same_instant(self) -> None:
        wake, expected = self.engine.next_wakeup_ns(), self.reference.next_wakeup_ns()
        assert (wake if wake is None else max(wake, self.reference.now)) == expected

    @invariant()
    def both_predict_the_same(self) -> None:
        assert [self.engine.predict_ns(n) for n in (1, 9)] == [self.reference.predict_ns(n) for n in (1, 9)]

    @invariant()
    def every_request_has_the_same_status(self) -> None:
        for request, expected in self.requests:
            assert request.status == expected.status


TestSameAnswers = SameAnswers.TestCase
TestSameAnswers.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=50)


class SameAnswersByKey(SameAnswers):
    """The same with a few keys, weights, sizes and shares."""

    @initialize(
        policy=policies,
        costs=costs,
        latency=targets,
        size=sizes,
        capacity=st.integers(0, 4),
        aging=st.sampled_from([0, 10 * MS, 2_000 * MS]),
        keys=st.integers(0, 4),
        weights=st.sampled_from([(1,), (1, 2, 3), (1, 5, 9, 10), (3, 4, 20), (1, 2**31 - 1)]),
        options=st.fixed_dictionaries(
            {},
            optional={
                "max_batch_weight": st.sampled_from([1, 10, 12, 40, 2**31 - 1]),
                "overweight": st.booleans(),
                "padded": st.booleans(),
                "allowed_batch_sizes": st.sampled_from([[9], [1, 2, 4, 8, 16], [3, 9], [2, 3, 5, 7, 11]]),
                "batch_padding_policy": st.sampled_from(["min_cost", "pad_up", "batch_down"]),
                "shares": st.sampled_from([{}, {1: 4.0}, {None: 0.1, 1: 1e-3, 2: 1e3}, {0: 1e6, 1: 1e-6}]),
            },
        ),
        seed=st.integers(0, 2**16),
    )
    def begin(  # type: ignore[override]
        self,
        *,
        policy: dict[str, Any],
        costs: list[tuple[int, int]],
        latency: int | None,
        size: int,
        capacity: int,
        aging: int,
        keys: int,
        weights: tuple[int, ...],
        options: dict[str, Any],
        seed: int,
    ) -> None:
        self.chance = random.Random(seed)
        self.keys, self.weights = [None, *range(keys)], weights
        limits = {"max_batch_size": size, "max_latency_ns": latency, "capacity": capacity, "aging_ns": aging}
        self.start(policy, limits | options | {"cost_model": costs})

    def terms(self) -> dict[str, Any]:
        return {"key": self.chance.choice(self.keys), "weight": self.chance.choice(self.weights)}

    @invariant()
    def lanes_are_those_with_something_queued(self) -> None:
        assert len(self.engine.keys) == len(self.reference.lanes.keys() - {None})


TestSameAnswersByKey = SameAnswersByKey.TestCase
TestSameAnswersByKey.settings = settings(max_examples=4 * settings().max_examples, stateful_step_count=50)

KEYS = {
    "equal": lambda i, chance: (0, None),
    "falling priorities": lambda i, chance: (1_000 - i, None),
    "falling deadlines": lambda i, chance: (0, 10_000 - i),
    "a saw": lambda i, chance: (i % 13, 10_000 - i % 17),
    "few priorities": lambda i, chance: (chance.randint(-2, 2), None),
    "any priority": lambda i, chance: (chance.randint(-1_000, 1_000), None),
    "any deadline": lambda i, chance: (0, chance.choice([None, chance.randint(1, 9_999)])),
    "anything": lambda i, chance: (chance.randint(-9, 9), chance.choice([None, 5_000, chance.randint(1, 9_999)])),
}
"""(priority, deadline) of the i-th request: the ways a queue may fill."""


@settings(max_examples=4 * settings().max_examples)
@given(
    kinds=st.lists(st.sampled_from(sorted(KEYS)), min_size=1, max_size=4),
    count=st.integers(1, 300),
    aging=st.sampled_from([0, 1, 100, 5_000, 50_000]),
    cancelled=st.sampled_from([0.0, 0.1, 0.5, 0.95]),
    size=st.sampled_from([1, 7, 64]),
    pause=st.sampled_from([0, 100, 5_000]),
    seed=st.integers(0, 2**32),
)
def test_hundreds_of_requests_are_served_in_sorted_order(
    *, kinds: list[str], count: int, aging: int, cancelled: float, size: int, pause: int, seed: int
) -> None:
    """Fill, cancel, serve a little, fill more, and so on; at any time the order is what `sorted` says."""
    chance = random.Random(seed)
    engine = Engine(max_batch_size=size, capacity=0, aging_ns=aging)
    queue: list[tuple[int, int, Request]] = []
    number = now = 0
    for kind in kinds:
        for i in range(count):
            number, now = number + 1, now + chance.choice([0, 0, 1])
            priority, timeout = KEYS[kind](i, chance)
            deadline = None if timeout is None else now + timeout
            request = engine.submit(now, priority=priority, deadline_ns=deadline)
            soon = now + aging // 2
            due = (soon if deadline is None else min(soon, deadline)) + priority * aging
            queue.append((due, number, request))
        unwanted = chance.sample(queue, int(len(queue) * cancelled))
        for _, _, request in unwanted:
            assert engine.cancel(now, request)
        queue = sorted(set(queue) - set(unwanted), key=lambda entry: entry[:2])
        engine.check()
        now += pause
        late = [e for e in queue if e[2].deadline_ns is not None and e[2].deadline_ns <= now]
        late.sort(key=lambda entry: (entry[2].deadline_ns, entry[1]))
        assert engine.decide(now).expired == tuple(request for _, _, request in late)
        queue = [entry for entry in queue if entry[2].status == "queued"]
        engine.check()
        for _ in range(chance.randint(0, len(queue) // size)):
            batch = serve(engine, now)
            assert batch == tuple(request for _, _, request in queue[:size])
            queue = queue[size:]
        engine.check()
    while queue:
        assert serve(engine, now) == tuple(request for _, _, request in queue[:size])
        queue = queue[size:]
    assert engine.stats().queued == 0


def serve(engine: Engine, now: int) -> tuple[Request, ...]:
    engine.set_capacity(now, 1)
    decision = engine.decide(now)
    engine.complete(now, decision)
    engine.set_capacity(now, 0)
    return decision.batch
