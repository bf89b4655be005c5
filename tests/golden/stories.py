"""Stories of the engine alone: events drawn from a seed, and what it says to each, line by line."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import heappop, heappush
from typing import Any

from batchcore.custom import View
from batchcore.engine import Engine, Request
from batchcore.errors import QueueFull
from batchcore.records import Decision, Drop, Histogram, Stats, Wait

US = 1_000
MS = 1_000_000


class Chance:
    """Numbers from a seed that are the same with every Python, which promises that of `Random.random` alone."""

    def __init__(self, seed: int) -> None:
        self._share = random.Random(seed).random

    def below(self, limit: int) -> int:
        return int(self._share() * limit)

    def one_of(self, *values: Any) -> Any:
        return values[self.below(len(values))]


class Moody:
    """A policy of somebody's own that answers at random, and says what it was shown."""

    def __init__(self, seed: int) -> None:
        self.chance = Chance(seed)
        self.said: list[str] = []

    def decide(self, view: View) -> int | Wait | Drop:
        count = 1 + self.chance.below(6)
        rate, busy, expected = view.arrivals_per_second.hex(), view.busy_until_ns(), view.predict_ns(count)
        self.said.append(f"asked: {view.queued} queued, rate {rate}, busy until {busy}, {count} take {expected}")
        until = view.now_ns + self.chance.one_of(1, MS, 7 * MS)
        return self.chance.one_of(count, count, count, Wait(until), Wait(until), Drop(1))

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        self.said.append(f"told: {batch_size} took {service_ns} until {now_ns}")


class Story:
    """Requests come, by themselves or because others were answered; batches take what `service` says, give or take.

    Parameters
    ----------
    seed, requests : int
        Of all that is random; how many come.
    service : callable
        Nanoseconds of a batch of so much load.
    gaps : tuple of int
        One of them lies between two requests, ns.
    clients : int
        Instead: so many, each of which asks again one of the gaps after its answer.
    terms : callable
        What else a request is submitted with, from chance and the time.
    changes : mapping
        Method of the engine and its arguments, by the number of the request that it comes with.
    **options
        Of the engine; the policy "moody" is one of our own.
    """

    def __init__(
        self,
        seed: int,
        requests: int,
        service: Callable[[int], int],
        *,
        gaps: tuple[int, ...] = (20 * US, 300 * US, MS, 4 * MS),
        clients: int = 0,
        terms: Callable[[Chance, int], dict[str, Any]] = lambda chance, now: {},
        changes: Mapping[int, tuple[str, dict[str, Any]]] | None = None,
        **options: Any,
    ) -> None:
        self.moody = Moody(seed)
        self.engine = Engine(**options | ({"policy": self.moody} if options["policy"] == "moody" else {}))
        self.chance = Chance(seed)
        self.requests, self.service, self.gaps, self.clients = requests, service, gaps, clients
        self.terms, self.changes = terms, changes or {}
        self.now = self.events = 0
        self.wake_at: int | None = None
        self.agenda: list[tuple[int, int, Decision | None]] = []  # time, order, batch that ends or None: one comes
        self.names: dict[Request, int] = {}

    def expect(self, after_ns: int, batch: Decision | None = None) -> None:
        self.events += 1
        heappush(self.agenda, (self.now + after_ns, self.events, batch))

    def lines(self) -> Iterator[str]:
        for _ in range(self.clients or 1):
            self.expect(self.chance.below(MS))
        while self.agenda:
            if self.wake_at is None or self.agenda[0][0] <= self.wake_at:
                self.now, _, batch = heappop(self.agenda)
                yield from self.arrive() if batch is None else self.end(batch)
            else:
                self.now = self.wake_at
            yield from self.settle()
        self.engine.check()
        yield from figures_of(self.engine, self.now)

    def arrive(self) -> Iterator[str]:
        if (number := len(self.names)) >= self.requests:
            self.engine.close(self.now)
            return
        if number in self.changes:
            method, arguments = self.changes[number]
            getattr(self.engine, method)(self.now, **arguments)
            yield f"{self.now} {method} {arguments}"
        terms = self.terms(self.chance, self.now)
        try:
            self.names[self.engine.submit(self.now, **terms)] = number
            yield " ".join([f"{self.now} +{number}", *(f"{name}={value}" for name, value in terms.items())])
        except QueueFull:
            self.names[Request()] = number  # nobody's: so that numbers go on
            yield f"{self.now} +{number} rejected"
            self.come_back()
        if not self.clients:
            self.expect(self.chance.one_of(*self.gaps))
        if self.chance.below(40) == 0:
            cancelled = self.chance.one_of(*self.names)
            if self.engine.cancel(self.now, cancelled):
                yield f"{self.now} -{self.names[cancelled]}"
                self.come_back()

    def come_back(self) -> None:
        if self.clients:
            self.expect(self.chance.one_of(*self.gaps))

    def end(self, batch: Decision) -> Iterator[str]:
        failed = self.chance.below(len(batch.batch) + 1) if self.chance.below(30) == 0 else 0
        self.engine.complete(self.now, batch, failed=failed)
        yield f"{self.now} end of {batch.batch_id}" + (f", {failed} failed" if failed else "")
        for _ in batch.batch:
            self.come_back()

    def settle(self) -> Iterator[str]:
        """Ask what to do until there is nothing to do now."""
        while True:
            decision = self.engine.decide(self.now)
            yield from self.moody.said
            self.moody.said.clear()
            if decision.expired:
                yield f"{self.now} expired {self.numbers(decision.expired)}"
                for _ in decision.expired:
                    self.come_back()
            if decision.kind != "dispatch":
                break
            load = max(decision.model_size, sum(request.weight for request in decision.batch))
            self.expect(self.service(load) * (95 + self.chance.below(11)) // 100, decision)
            key = "" if decision.key is None else f" of {decision.key}"
            padded = "" if decision.model_size == len(decision.batch) else f" as {decision.model_size}"
            yield f"{self.now} batch {decision.batch_id} {decision.reason}{key}{padded}: {self.numbers(decision.batch)}"
        if decision.wake_at_ns is not None and decision.wake_at_ns != self.wake_at:
            yield f"{self.now} wait until {decision.wake_at_ns}"
        self.wake_at = decision.wake_at_ns

    def numbers(self, requests: tuple[Request, ...]) -> str:
        return " ".join(str(self.names[request]) for request in requests)


def figures_of(engine: Engine, now: int) -> Iterator[str]:
    """What the engine has counted and learned when all is over."""
    yield from counts_of(engine.stats())
    yield from learned_by(engine, now)
    for past in engine.past()[-3:]:
        yield f"remembered: {past}"


def counts_of(stats: Stats) -> Iterator[str]:
    counted = ("submitted", "completed", "failed", "rejected", "expired", "cancelled", "batches")
    yield " ".join(f"{name}={getattr(stats, name)}" for name in counted)
    yield " ".join(f"{reason}={count}" for reason, count in stats.batches_by_reason.items() if count)
    for name in ("batch_size", "queue_delay_ns", "service_ns"):
        yield f"{name}: {histogram(getattr(stats, name))}"


def histogram(found: Histogram) -> str:
    bounds = [*map(str, found.bounds), "inf"]
    filled = (f"{bound}:{count}" for bound, count in zip(bounds, found.counts, strict=True) if count)
    return f"sum={found.sum} mean={found.mean.hex()} {' '.join(filled)}"


def learned_by(engine: Engine, now: int) -> Iterator[str]:
    learned = engine.learned(now)
    yield f"law: {learned.per_item_ns.hex()} n + {learned.per_batch_ns.hex()}, deviation {learned.deviation.hex()}"
    yield "sizes: " + " ".join(f"{size}:{ns}" for size, ns in learned.sizes)
    yield "predictions: " + " ".join(f"{size}:{engine.predict_ns(size)}" for size in (1, 3, 10, 50, 500, 1_048_576))
    yield f"rate {learned.arrivals_per_second.hex()}, closed {learned.closed}, callers {learned.callers}"


def affine(load: int) -> int:
    return 5 * MS + load * MS


def flat(load: int) -> int:
    return 10 * MS + load * 50 * US


def hurting(load: int) -> int:
    return {1: 5 * MS, 2: 30 * MS, 3: 34 * MS}.get(load, 40 * MS)


def stepwise(load: int) -> int:
    return (load + 7) // 8 * 6 * MS


def mixed_deadlines(chance: Chance, now: int) -> dict[str, Any]:
    return {"deadline_ns": chance.one_of(None, now + 12 * MS, now + 20 * MS, now + 60 * MS, now + 200 * MS)}


def one_deadline(chance: Chance, now: int) -> dict[str, Any]:
    return {"deadline_ns": now + 30 * MS}


def hopeless_deadlines(chance: Chance, now: int) -> dict[str, Any]:
    return {"deadline_ns": now + chance.one_of(4, 5, 6) * MS}


def priorities(chance: Chance, now: int) -> dict[str, Any]:
    return {"priority": chance.one_of(0, 0, 0, -1, 1, 7), "deadline_ns": chance.one_of(None, None, now + 50 * MS)}


def keys(chance: Chance, now: int) -> dict[str, Any]:
    return {"key": chance.one_of(None, "a", "a", "b", 3)}


def weights(chance: Chance, now: int) -> dict[str, Any]:
    return {"weight": chance.one_of(1, 2, 3, 5, 8, 13, 40)}


def all_terms(chance: Chance, now: int) -> dict[str, Any]:
    return keys(chance, now) | weights(chance, now) | mixed_deadlines(chance, now)


DENSE = (0, 50 * US, 200 * US, 900 * US)
BURSTY = (*[30 * US] * 9, 40 * MS)
RETURNS = (100 * US, 400 * US, 2 * MS)

SETTINGS: dict[str, dict[str, Any]] = {
    "immediate": {"policy": "immediate", "service": affine},
    "immediate, full queue": {"policy": "immediate", "service": affine, "gaps": DENSE, "max_queue_size": 12},
    "immediate, clients": {"policy": "immediate", "service": stepwise, "clients": 20, "gaps": RETURNS},
    "fixed": {"policy": "fixed", "max_wait_ns": 6 * MS, "service": affine},
    "fixed, target": {"policy": "fixed", "max_wait_ns": 90 * MS, "max_latency_ns": 30 * MS, "service": affine},
    "adaptive": {"policy": "adaptive", "service": affine},
    "adaptive, clients": {"policy": "adaptive", "service": flat, "clients": 12, "gaps": RETURNS},
    "adaptive, clients, target": {
        **{"policy": "adaptive", "service": flat, "clients": 24, "gaps": RETURNS, "capacity": 2},
        **{"max_wait_ns": 3 * MS, "max_latency_ns": 40 * MS},
    },
    "adaptive, bursts": {"policy": "adaptive", "service": flat, "gaps": BURSTY},
    "adaptive, workers": {"policy": "adaptive", "service": flat, "capacity": 4, "gaps": (300 * US, MS)},
    "adaptive, batches hurt": {"policy": "adaptive", "service": hurting, "gaps": (MS, 4 * MS, 9 * MS)},
    "adaptive, steps": {"policy": "adaptive", "service": stepwise, "gaps": DENSE, "max_batch_size": 20},
    "deadlines": {"policy": "adaptive", "service": affine, "terms": mixed_deadlines},
    "deadlines, overload": {"policy": "adaptive", "service": affine, "gaps": DENSE, "terms": mixed_deadlines},
    "deadlines, overload, workers": {
        **{"policy": "adaptive", "service": affine, "gaps": (0, 50 * US, 400 * US), "terms": one_deadline},
        "capacity": 3,
    },
    "deadlines, hopeless": {"policy": "adaptive", "service": affine, "terms": hopeless_deadlines},
    "deadlines, fixed": {"policy": "fixed", "max_wait_ns": 15 * MS, "service": flat, "terms": mixed_deadlines},
    "priorities": {"policy": "immediate", "service": affine, "gaps": DENSE, "terms": priorities, "aging_ns": 10 * MS},
    "keys": {"policy": "adaptive", "service": affine, "gaps": DENSE, "terms": keys},
    "keys, shares": {
        **{"policy": "immediate", "service": affine, "gaps": DENSE, "terms": keys, "capacity": 2},
        "shares": {"a": 0.3, "b": 2.5, None: 1.0, 3: 1e-3},
    },
    "weights": {"policy": "adaptive", "service": affine, "terms": weights, "max_batch_weight": 40},
    "weights, overweight": {
        **{"policy": "adaptive", "service": affine, "terms": weights, "max_batch_weight": 30, "overweight": True},
        "max_latency_ns": 80 * MS,
    },
    "weights, padded": {
        **{"policy": "adaptive", "service": flat, "gaps": DENSE, "terms": weights, "padded": True},
        "max_batch_weight": 160,
    },
    "sizes, cheaper": {
        **{"policy": "adaptive", "service": affine, "gaps": DENSE, "allowed_batch_sizes": [1, 2, 4, 8, 16, 32]},
        "terms": mixed_deadlines,
    },
    "sizes, up": {
        **{"policy": "fixed", "max_wait_ns": 5 * MS, "service": flat, "allowed_batch_sizes": [3, 5, 11, 32]},
        "batch_padding_policy": "pad_up",
    },
    "sizes, down": {
        **{"policy": "adaptive", "service": stepwise, "gaps": DENSE, "allowed_batch_sizes": [4, 8, 32]},
        "batch_padding_policy": "batch_down",
    },
    "own policy": {"policy": "moody", "service": affine, "capacity": 2},
    "own policy, deadlines, keys": {"policy": "moody", "service": flat, "gaps": DENSE, "terms": all_terms},
    "cost model": {
        **{"policy": "adaptive", "service": affine, "terms": all_terms, "capacity": 2, "max_latency_ns": 40 * MS},
        **{"cost_model": [(1, 6 * MS), (8, 13 * MS), (32, 37 * MS), (700, 690 * MS)], "shares": {"a": 3, "b": 0.7}},
    },
    "changes": {
        **{"policy": "immediate", "service": affine, "terms": mixed_deadlines},
        "changes": {
            100: ("reconfigure", {"policy": "fixed", "max_wait_ns": 25 * MS}),
            **dict.fromkeys(range(130, 190, 5), ("flush", {})),
            200: ("reconfigure", {"policy": "adaptive", "max_wait_ns": None, "max_batch_size": 6}),
            300: ("set_capacity", {"capacity": 3}),
            400: ("reconfigure", {"max_latency_ns": 25 * MS, "max_batch_size": 64, "max_queue_size": 20}),
            500: ("set_capacity", {"capacity": 0}),
            520: ("set_capacity", {"capacity": 1}),
        },
    },
}


def tell(seed: int, settings: dict[str, Any]) -> Iterator[str]:
    return Story(seed, 600, **settings).lines()


STORIES = {name: partial(tell, seed, settings) for seed, (name, settings) in enumerate(SETTINGS.items())}
