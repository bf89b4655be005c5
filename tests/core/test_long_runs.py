"""Engine and reference model serve the same clients for a while and must give the same answers.

What the engine learns shows only after dozens of batches of a kind, which no sequence of random events ever is: here
Hypothesis draws a service and its clients, and a small event loop lets them live.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reference import Reference

from batchcore.engine import Engine
from batchcore.records import Decision, Drop, Wait

MS = 1_000_000

SERVICES: dict[str, Callable[[int], float]] = {  # ms by batch size
    "batches pay": lambda n: 10.2 + 0.05 * n,
    "batches pay a little": lambda n: 5.072 + 1.053 * n,
    "batches do not pay": lambda n: 0.05 + 1.0 * n,
    "batches hurt": lambda n: 5.0 if n == 1 else 30.0 + n,
    "a cliff": lambda n: 4.0 + 0.2 * n + (20.0 if n > 6 else 0.0),
    "as fast as can be": lambda n: 1e-6,
}
SPIKES = [1.0] * 30 + [4.0]


class Watchful:
    """A policy of somebody's own that uses all that it is shown."""

    def __call__(self, view: Any) -> int | Wait | Drop:
        late = [d for d in view.deadlines(3) if d is not None and d < view.now_ns + (view.predict_ns(1) or 0)]
        if late:
            return Drop(1)
        if view.queued >= 4 or view.in_flight:
            return int(view.queued * 0.8) + 1
        wait_ns = min(int(1e9 / (view.arrivals_per_second + 1.0)), 3 * MS)
        return Wait(view.oldest_arrival_ns + wait_ns) if view.now_ns < view.oldest_arrival_ns + wait_ns else 9


@dataclass
class Clients:
    """`callers` come back once they are answered; the others come in groups, whatever happens."""

    callers: int
    gap_ms: float  # between groups; 0: there are none
    group: int
    timeouts_ms: tuple[float | None, ...]


@dataclass
class Life:
    """Both, side by side."""

    chance: random.Random
    clients: Clients
    service: Callable[[int], float]
    noise: float
    options: dict[str, Any]
    events: list[tuple[int, int, str, Any]] = field(default_factory=list)
    order: Iterator[int] = field(default_factory=count)
    numbers: dict[Any, int] = field(default_factory=dict)
    arrived: int = 0

    def __post_init__(self) -> None:
        own = self.options["policy"] == "watchful"
        self.engine, self.reference = (
            kind(**self.options | ({"policy": Watchful()} if own else {})) for kind in (Engine, Reference)
        )

    def expect(self, instant: int, kind: str, what: Any = None) -> None:
        heappush(self.events, (instant, next(self.order), kind, what))

    def live(self, arrivals: int) -> None:
        for _ in range(self.clients.callers):
            self.expect(int(self.chance.expovariate(1 / MS)), "call")
        if self.clients.gap_ms:
            self.expect(0, "group")
        while self.events and self.arrived < arrivals:
            now, _, kind, what = heappop(self.events)
            getattr(self, kind)(now, what)
            while self.events and self.events[0][0] == now:
                _, _, kind, what = heappop(self.events)
                getattr(self, kind)(now, what)
            self.decide(now)
        self.engine.check()
        ours, theirs = self.engine.stats(), self.reference.stats()
        assert replace(ours, **dict.fromkeys(UNCOMPARED)) == replace(theirs, **dict.fromkeys(UNCOMPARED))
        for size in (1, 2, 7, 63, 64, 70, 1_000):
            assert self.engine.predict_ns(size) == self.reference.predict_ns(size)

    def call(self, now: int, _: Any) -> None:
        """One of those who wait for their answer."""
        self.offer(now, calls_again=True)

    def group(self, now: int, _: Any) -> None:
        for i in range(self.chance.randint(1, self.clients.group)):
            self.expect(now + i * self.chance.choice([0, 11_000, 150_000]), "come")
        self.expect(now + 1 + int(self.chance.expovariate(1 / (self.clients.gap_ms * MS))), "group")

    def come(self, now: int, _: Any) -> None:
        self.offer(now, calls_again=False)

    def wake(self, now: int, _: Any) -> None:
        """Nothing but time has passed."""

    def offer(self, now: int, *, calls_again: bool) -> None:
        timeout = self.chance.choice(self.clients.timeouts_ms)
        deadline = None if timeout is None else now + int(timeout * MS)
        request = self.engine.submit(now, deadline_ns=deadline)
        self.reference.submit(now, deadline_ns=deadline)
        self.arrived += 1
        self.numbers[request] = self.arrived if calls_again else -self.arrived

    def decide(self, now: int) -> None:
        while True:
            ours, theirs = self.engine.decide(now), self.reference.decide(now)
            assert self.told(ours) == (
                theirs.kind,
                theirs.reason,
                theirs.wake_at_ns,
                [request.number for request in theirs.batch],
                [request.number for request in theirs.expired],
            )
            for request in ours.expired:
                self.answer(now, request)
            if ours.kind != "dispatch":
                break
            oddness = self.chance.choice(SPIKES) * self.chance.lognormvariate(0, self.noise)
            self.expect(now + int(self.service(len(ours.batch)) * oddness * MS), "complete", (ours, theirs))
        if ours.wake_at_ns is not None:
            self.expect(ours.wake_at_ns, "wake")

    def told(self, decision: Decision) -> tuple[Any, ...]:
        batch, expired = ([abs(self.numbers[r]) for r in who] for who in (decision.batch, decision.expired))
        return decision.kind, decision.reason, decision.wake_at_ns, batch, expired

    def complete(self, now: int, both: tuple[Decision, Decision]) -> None:
        failed = self.chance.choice([0] * 20 + [1, len(both[0].batch)])
        self.engine.complete(now, both[0], failed=failed)
        self.reference.complete(now, both[1], failed=failed)
        for request in both[0].batch:
            self.answer(now, request)

    def answer(self, now: int, request: Any) -> None:
        if self.numbers[request] > 0:
            self.expect(now + 50_000 + int(self.chance.expovariate(1 / (0.3 * MS))), "call")


UNCOMPARED = ("policy", "batch_size", "queue_delay_ns", "service_ns")


@settings(max_examples=4 * settings().max_examples)
@given(
    policy=st.sampled_from(["adaptive", "adaptive", "adaptive", "immediate", "fixed", "watchful"]),
    service=st.sampled_from(sorted(SERVICES)),
    noise=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
    clients=st.builds(
        Clients,
        callers=st.sampled_from([0, 0, 2, 5, 12]),
        gap_ms=st.sampled_from([0.8, 2.0, 7.0, 40.0]),
        group=st.sampled_from([1, 1, 8]),
        timeouts_ms=st.sampled_from([(None,), (None,), (40.0,), (25.0,), (12.0, 99.0), (12.0, 99.0, None), (8.0, 9.0)]),
    ),
    limits=st.fixed_dictionaries(
        {"max_batch_size": st.sampled_from([1, 4, 8, 16, 90]), "capacity": st.sampled_from([1, 1, 2, 3, 4])},
        optional={
            "max_wait_ns": st.sampled_from([0, 2 * MS, 30 * MS]),
            "max_latency_ns": st.sampled_from([15 * MS, 60 * MS]),
            "cost_model": st.sampled_from([[(1, 9 * MS)], [(1, 5 * MS), (8, 9 * MS), (70, 90 * MS)]]),
        },
    ),
    seed=st.integers(0, 2**32),
)
def test_a_long_life_is_the_same(
    *, policy: str, service: str, noise: float, clients: Clients, limits: dict[str, Any], seed: int
) -> None:
    window = {"max_wait_ns": 5 * MS} if policy == "fixed" else {}
    options = window | limits | {"policy": policy}
    Life(random.Random(seed), clients, SERVICES[service], noise, options).live(300)


def test_a_very_long_life_is_the_same() -> None:
    """Long enough for the weights of the oldest gaps to leave the range of what can be added to, and with a night."""
    clients = Clients(callers=0, gap_ms=60.0, group=1, timeouts_ms=(None,))
    life = Life(random.Random(1), clients, SERVICES["batches pay"], 0.0, {"policy": "adaptive"})
    life.live(12_000)
    assert max(gaps.unit for gaps in life.reference.traffic.gaps.values()) < 1e100
    night = max(event[0] for event in life.events) + 60_000 * MS
    life.expect(night, "come")
    life.events = [event for event in life.events if event[2] != "group"]
    life.live(12_001)
    assert life.arrived == 12_001
