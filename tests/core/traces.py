"""Random traces of events, and a world in which one engine lives through them.

A trace names nothing that only one engine could know (the i-th request, not a `Request`), so that several engines can
live through the same one and be compared.
"""

from __future__ import annotations

import operator
import random
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from batchcore.custom import View
from batchcore.engine import Engine, Request
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import Decision, Drop, Wait

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Event:
    """`after_ns` after the one before, `kind` happens; `pick` chooses what to cancel, to complete, or a capacity."""

    kind: str
    after_ns: int
    pick: int
    priority: int
    timeout_ns: int | None
    key: int | None = None
    weight: int = 1


KINDS = [*["submit"] * 8, *["decide"] * 4, *["complete"] * 4, *["cancel"] * 2, "flush", "set_capacity"]

events = st.builds(
    Event,
    kind=st.sampled_from(KINDS),
    after_ns=st.sampled_from([0, 0, 0, 1, MS, 5 * MS, 20 * MS]),
    pick=st.integers(0, 30),
    priority=st.sampled_from([0, 0, 0, 1, -1, 7]),
    timeout_ns=st.sampled_from([None, None, None, 0, 1, 3 * MS, 8 * MS, 100 * MS]),
    key=st.sampled_from([None, None, 1, 2]),
    weight=st.sampled_from([1, 1, 2, 3, 7, 9]),
)
traces = st.lists(events, min_size=20, max_size=80)

options = st.fixed_dictionaries(
    {
        "max_batch_size": st.integers(1, 6),
        "max_queue_size": st.sampled_from([3, 1_000, 1_000]),
        "max_latency_ns": st.sampled_from([None, None, 30 * MS]),
        "cost_model": st.sampled_from([(), (), [(1, 2 * MS), (4, 9 * MS)], [(1, 6 * MS), (6, 7 * MS)]]),
        "capacity": st.integers(0, 3),
        "aging_ns": st.sampled_from([0, 10 * MS, 2_000 * MS]),
    }
)
immediate = options.map(lambda common: common | {"policy": "immediate"})
fixed = st.builds(
    lambda common, wait: common | {"policy": "fixed", "max_wait_ns": wait},
    options,
    st.sampled_from([0, 1, 5 * MS, 10 * MS]),
)
adaptive = options.map(lambda common: common | {"policy": "adaptive"})
plain = immediate | fixed | adaptive
own = options.map(lambda common: common | {"policy": Fickle})
extras = st.fixed_dictionaries(
    {},
    optional={
        "max_batch_weight": st.sampled_from([9, 10, 16]),
        "padded": st.booleans(),
        "allowed_batch_sizes": st.sampled_from([[6], [1, 2, 4, 8], [3, 5, 7]]),
        "batch_padding_policy": st.sampled_from(["min_cost", "pad_up", "batch_down"]),
        "shares": st.sampled_from([{}, {None: 1, 1: 4, 2: 0.01}]),
    },
)


def with_extras(options: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Half of them weigh requests, pad to sizes, or share by key."""
    return options | st.builds(operator.or_, options, extras)


ours = with_extras(plain)
anything = with_extras(plain | own)


class Fickle:
    """A policy of somebody's own that answers at random, and remembers what it was shown."""

    def __init__(self, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.seen: list[list[Any]] = []

    def __call__(self, view: Any) -> int | Wait | Drop:
        count = self.chance.randint(1, 12)
        names = [name for name in dir(View) if not name.startswith("_")]
        shown = [value for value in (getattr(view, name) for name in names) if not callable(value)]
        shown += [view.predict_ns(count), view.deadlines(count), view.arrivals(count), view.busy_until_ns()]
        self.seen.append(shown)
        until = view.now_ns + self.chance.choice([1, MS, 7 * MS])
        return self.chance.choice([count, count, Wait(), Wait(until), Wait(until), Drop(count)])


@dataclass
class World:
    options: dict[str, Any]
    now: int = 0
    requests: list[Request] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    running: list[Decision] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = {"policy": Fickle()} if self.options["policy"] is Fickle else {}
        self.engine = Engine(**self.options | own)
        self.numbers: dict[Request, int] = {}
        self.keys: dict[Request, int | None] = {}

    def live_through(self, trace: list[Event]) -> World:
        for _ in self.events(trace):
            pass
        return self

    def events(self, trace: list[Event]) -> Iterator[Event]:
        """Let each event of the trace happen, and stop after each for a look."""
        for event in trace:
            self.now += event.after_ns
            getattr(self, event.kind)(event)
            yield event
        self.engine.check()

    def submit(self, event: Event) -> None:
        deadline = None if event.timeout_ns is None else self.now + event.timeout_ns
        with suppress(QueueFull, SchedulerClosed):
            request = self.engine.submit(
                self.now, priority=event.priority, deadline_ns=deadline, key=event.key, weight=event.weight
            )
            self.numbers[request] = len(self.requests)
            self.keys[request] = event.key
            self.requests.append(request)

    def cancel(self, event: Event) -> None:
        if self.requests:
            self.engine.cancel(self.now, self.requests[-1 - event.pick % len(self.requests)])

    def decide(self, event: Event | None = None) -> Decision:
        decision = self.engine.decide(self.now)
        self.decisions.append(decision)
        if decision.kind == "dispatch":
            self.running.append(decision)
        return decision

    def settle(self) -> Decision:
        """Dispatch all that goes now; return the answer that ends it."""
        while (decision := self.decide()).kind == "dispatch":
            pass
        return decision

    def complete(self, event: Event) -> None:
        if self.running:
            decision = self.running.pop(event.pick % len(self.running))
            self.engine.complete(self.now, decision, failed=event.pick % (len(decision.batch) + 1))

    def flush(self, event: Event) -> None:
        self.engine.flush(self.now)

    def set_capacity(self, event: Event) -> None:
        self.engine.set_capacity(self.now, event.pick % 4)

    def story(self, shift_ns: int = 0) -> list[tuple[Any, ...]]:
        """All decisions, requests by number and instants moved by `shift_ns`."""
        return [
            (
                decision.kind,
                decision.at_ns + shift_ns,
                decision.reason,
                decision.wake_at_ns if decision.wake_at_ns is None else decision.wake_at_ns + shift_ns,
                decision.batch_id,
                [self.numbers[request] for request in decision.batch],
                [self.numbers[request] for request in decision.expired],
            )
            for decision in self.decisions
        ]
