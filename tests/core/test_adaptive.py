"""The default policy: what it waits for, what it does not, and why its batches leave."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count, pairwise
from typing import Any

import pytest

from batchcore.engine import Engine
from batchcore.records import Decision

US = 1_000
MS = 1_000_000

Make = Callable[..., Engine]

FLAT = [(1, 10 * MS), (32, 11 * MS)]  # a batch costs, a request hardly does
STEEP = [(1, 1 * MS), (32, 32 * MS)]  # the other way round


def flat(size: int) -> int:
    return 10 * MS + size * 32 * US


def live(
    engine: Engine,
    arrivals: Iterable[int],
    service: Callable[[int], int],
    *,
    returns: Callable[[], int] | None = None,
    until: int = 10**18,
) -> list[Decision]:
    """Serve those who come; with `returns`, who is answered comes again so much later. Return the batches."""
    order = count()
    events: list[tuple[int, int, Any]] = [(at, next(order), "come") for at in arrivals]
    heapify(events)
    batches = []
    while events and events[0][0] < until:
        now, _, what = heappop(events)
        if what == "come":
            engine.submit(now)
        elif what != "wake":
            engine.complete(now, what)
            for _ in what.batch if returns else ():
                heappush(events, (now + returns(), next(order), "come"))  # type: ignore[misc]
        if events and events[0][0] == now:
            continue
        while (decision := engine.decide(now)).kind == "dispatch":
            batches.append(decision)
            heappush(events, (now + service(len(decision.batch)), next(order), decision))
        if decision.wake_at_ns is not None:
            heappush(events, (decision.wake_at_ns, next(order), "wake"))
    return batches


def poisson(gap_ns: float, arrivals: int, seed: int = 1) -> list[int]:
    chance, now = random.Random(seed), 0
    return [now := now + int(chance.expovariate(1 / gap_ns)) for _ in range(arrivals)]


def reasons(batches: Iterable[Decision]) -> Counter[str | None]:
    return Counter(decision.reason for decision in batches)


def test_with_nothing_learned_nobody_waits(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", capacity=2)
    for _ in range(2):
        engine.submit(0)
        assert engine.decide(0).reason == "idle_worker"


def test_a_full_batch_is_full(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", max_batch_size=2, cost_model=FLAT)
    for _ in range(3):
        engine.submit(0)
    assert engine.decide(0).reason == "full"


# Arrivals that know nothing of each other


@pytest.mark.parametrize("gap_ms", [1.0, 8.0, 60.0])
def test_independent_arrivals_lose_nothing_to_waiting(make_engine: Make, gap_ms: float) -> None:
    """For Poisson arrivals no wait ever gains; what chance makes look like a burst must cost next to nothing."""
    latencies = []
    for policy in ("immediate", "adaptive"):
        batches = live(make_engine(policy=policy, cost_model=FLAT), poisson(gap_ms * MS, 4_000), flat)
        each = [d.at_ns + flat(len(d.batch)) - request.arrival_ns for d in batches for request in d.batch]
        latencies.append(sum(each) / len(each))
    assert latencies[1] < 1.01 * latencies[0]


# Callers who wait for their answers


def test_callers_who_come_back_together_are_gathered(make_engine: Make) -> None:
    """Or the first one back would leave alone, and the others wait for it, for ever."""
    chance = random.Random(1)
    engine = make_engine(policy="adaptive")
    batches = live(engine, range(8), flat, returns=lambda: 50 * US + chance.randint(0, 400 * US), until=3_000 * MS)
    late = batches[len(batches) // 2 :]
    assert sum(len(decision.batch) for decision in late) / len(late) > 7.9
    assert set(reasons(late)) == {"gathered"}
    learned = engine.learned(3_000 * MS)
    assert (learned.closed, learned.callers) == (True, 8)


def after_a_second_of_callers(engine: Engine, callers: int) -> int:
    """Let them come back 0.3 ms after each answer; return when the last batch of all ended."""
    batches = live(engine, range(callers), flat, returns=lambda: 300 * US, until=1_000 * MS)
    now = batches[-1].at_ns + flat(callers)
    assert len(batches[-1].batch) == callers
    if engine.stats().in_flight_batches:
        engine.complete(now, batches[-1])
        return now
    now = 1_000 * MS + flat(callers)
    engine.flush(1_000 * MS)
    engine.complete(now, engine.decide(1_000 * MS))
    return now


def test_the_announced_end_of_a_gathering_is_exact(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 4) + 100 * US
    one = engine.submit(now)
    wake = engine.decide(now).wake_at_ns
    assert wake is not None
    assert wake >= now + 200 * US
    assert engine.decide(wake - 1).wake_at_ns == wake
    decision = engine.decide(wake)
    assert (decision.reason, decision.batch) == ("gathered", (one,))


def test_a_gathering_ends_with_the_last_of_the_callers(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 4)
    for i in range(1, 4):
        engine.submit(now + i)
        assert engine.decide(now + i).kind == "wait"
    engine.submit(now + 4)
    decision = engine.decide(now + 4)
    assert (decision.reason, len(decision.batch)) == ("gathered", 4)


def test_callers_who_stay_away_are_waited_for_a_batch_at_most_and_then_forgotten(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 8)
    waits = []
    for _ in range(100):  # one of them is left
        now += 300 * US
        engine.submit(now)
        decision = engine.decide(now)
        waits.append(0 if decision.wake_at_ns is None else decision.wake_at_ns - now)
        now += waits[-1]
        if waits[-1]:
            decision = engine.decide(now)
        now += flat(1)
        engine.complete(now, decision)
    assert 0 < max(waits) <= flat(1)
    assert waits[-1] == 0


def test_max_wait_holds_for_a_gathering(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 4)
    engine.reconfigure(now, max_wait_ns=250 * US)
    engine.submit(now + 1)
    assert engine.decide(now + 1).wake_at_ns == now + 1 + 250 * US
    assert engine.decide(now + 1 + 250 * US).reason == "window"


def test_a_latency_target_holds_for_a_gathering(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 4)
    engine.reconfigure(now, max_latency_ns=13 * MS + 800 * US)
    engine.submit(now)
    wake = engine.decide(now).wake_at_ns
    company = engine.predict_ns(2)
    assert company is not None
    assert wake == now + 13 * MS + 800 * US - (company * 5 // 4 + MS)
    assert engine.decide(wake).reason == "latency"


def test_a_flush_ends_a_gathering(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    now = after_a_second_of_callers(engine, 4)
    engine.submit(now)
    assert engine.decide(now).kind == "wait"
    engine.flush(now)
    assert engine.decide(now).reason == "flush"


# Bursts


def test_the_first_of_a_burst_waits_for_the_others(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive")
    bursts = [burst * 60 * MS + i * 100 * US for burst in range(100) for i in range(8)]
    batches = live(engine, bursts, flat)
    late = batches[len(batches) // 2 :]
    assert sum(len(decision.batch) for decision in late) / len(late) > 6
    assert reasons(late)["gathered"] > 0.8 * len(late)


def test_a_wait_that_is_shorter_than_any_sleep_is_not_worth_the_sleep(make_engine: Make) -> None:
    """One in four completions is followed within 10 us by an arrival that the GIL had held up."""
    engine = make_engine(policy="adaptive", cost_model=[(1, 2_050 * US), (32, 3_600 * US)])
    now, running = 0, None
    for turn in range(100):
        for i in range(1, 6):
            engine.submit(now + i * 400 * US)
        now += 2_350 * US
        if running is not None:
            engine.complete(now, running)
        running = engine.decide(now)
        assert running.kind == "dispatch"
        engine.submit(now + (10 * US if turn % 4 == 0 else 350 * US))


# Sizes


def test_where_batches_hurt_the_queue_is_split(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", cost_model=[(1, 50 * MS), (2, 300 * MS), (3, 350 * MS), (8, 470 * MS)])
    requests = [engine.submit(0) for _ in range(3)]
    decision = engine.decide(0)
    assert (decision.reason, decision.batch) == ("split", (requests[0],))


def test_where_batches_save_little_they_are_small_while_that_keeps_up(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", cost_model=STEEP)
    for now in range(0, 160 * MS, 5 * MS):
        engine.submit(now)
    decision = engine.decide(160 * MS)
    assert decision.reason == "split"
    assert len(decision.batch) < 16


def test_where_batches_pay_all_leave_together(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", cost_model=FLAT)
    for _ in range(20):
        engine.submit(0)
    decision = engine.decide(0)
    assert (decision.reason, len(decision.batch)) == ("idle_worker", 20)


# Several workers


def test_workers_start_evenly_spaced_where_batches_take_the_same_whatever_their_size(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", capacity=2)
    batches = live(engine, range(0, 2_000 * MS, MS), flat)
    late = batches[len(batches) // 2 :]
    assert reasons(late)["spaced"] > 0.2 * len(late)
    gaps = [after.at_ns - before.at_ns for before, after in pairwise(late)]
    assert min(gaps) > 0.9 * flat(10) / 2


def test_workers_do_not_wait_for_their_turn_where_requests_cost(make_engine: Make) -> None:
    engine = make_engine(policy="adaptive", capacity=2)
    batches = live(engine, poisson(2.0 * MS, 1_000), lambda n: n * MS + MS // 20)
    assert reasons(batches)["spaced"] == 0
