"""Deadlines in front of the policies: who is passed over, who is given up, and what is tried all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batchcore.engine import Engine, Request
from batchcore.records import Decision

MS = 1_000_000

Make = Callable[..., Engine]

TEN = [(1, 10 * MS), (2, 10 * MS), (32, 10 * MS)]  # any batch takes 10 ms
AFFINE = [(1, 6 * MS), (2, 7 * MS), (8, 13 * MS), (32, 37 * MS)]  # 5 ms, and 1 ms a request


def submit(engine: Engine, now: int, *deadlines_ms: float | None) -> list[Request]:
    return [engine.submit(now, deadline_ns=None if ms is None else int(ms * MS)) for ms in deadlines_ms]


def told(decision: Decision) -> tuple[Any, ...]:
    return decision.kind, decision.reason, *decision.batch


# Whom a batch is made of


@pytest.mark.parametrize("policy", ["immediate", "adaptive"])
def test_a_batch_that_bears_its_deadlines_is_left_alone(make_engine: Make, policy: str) -> None:
    engine = make_engine(policy=policy, cost_model=TEN)
    requests = submit(engine, 0, 11, 20, None)
    assert told(engine.decide(0)) == ("dispatch", "idle_worker", *requests)


def test_the_first_is_passed_over_where_that_lets_the_others_make_it(make_engine: Make) -> None:
    engine = make_engine(cost_model=AFFINE, max_batch_size=8)
    first, *others = submit(engine, 0, 7, *[13] * 6)
    decision = engine.decide(0)
    assert told(decision) == ("dispatch", "deadline", *others)
    assert decision.expired == (first,)  # nobody could answer it after that batch
    assert first.status == "expired"


def test_where_timeouts_differ_a_small_batch_saves_those_in_a_hurry(make_engine: Make) -> None:
    engine = make_engine(cost_model=AFFINE, max_batch_size=8)
    requests = submit(engine, 0, 7.5, 7.5, 200, 200, 200, 200)
    decision = engine.decide(0)
    assert told(decision) == ("dispatch", "deadline", *requests[:2])
    assert decision.expired == ()


def test_who_is_passed_over_but_could_still_make_it_stays(make_engine: Make) -> None:
    engine = make_engine(cost_model=AFFINE, max_batch_size=8, capacity=0)
    first, *others = submit(engine, 0, 30, 31, 32, 33, 34, 34)
    engine.set_capacity(20 * MS, 2)
    decision = engine.decide(20 * MS)
    assert (told(decision), decision.expired) == (("dispatch", "deadline", *others), ())
    assert told(engine.decide(20 * MS)) == ("dispatch", "idle_worker", first)


def test_a_priority_does_not_save_from_being_passed_over(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN)
    hurried = engine.submit(0, priority=-1, deadline_ns=5 * MS)
    patient = engine.submit(0)
    decision = engine.decide(0)
    assert told(decision) == ("dispatch", "deadline", patient)
    assert decision.expired == (hurried,)


def test_more_than_can_be_looked_at_are_given_up_in_one_go(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN, max_batch_size=8)
    hopeless = submit(engine, 0, *[5] * 700)
    patient = submit(engine, 0, *[50] * 3)
    decision = engine.decide(0)
    assert told(decision) == ("dispatch", "deadline", *patient)
    assert decision.expired == tuple(hopeless)


def test_several_workers_and_a_hopeless_one_behind_many_without_a_deadline(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN, max_batch_size=8, capacity=4)
    engine.submit(0, priority=1, deadline_ns=5 * MS)
    patient = submit(engine, 0, *[None] * 300)
    assert told(engine.decide(0)) == ("dispatch", "full", *patient[:8])


def test_the_longest_timeouts_do_not_overflow(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN, max_batch_size=8, capacity=0)
    first, last = 2**62 - 1 - 20 * MS, 2**62 - 1
    engine.submit(-last, deadline_ns=first)
    others = [engine.submit(-last, deadline_ns=last) for _ in range(7)]
    engine.set_capacity(first - 5 * MS, 4096)
    assert told(engine.decide(first - 5 * MS)) == ("dispatch", "deadline", *others)


# The end of a wait


@pytest.mark.parametrize("cost_model", [AFFINE, [(1, 5 * MS), (2, 30 * MS), (3, 5 * MS), (8, 5 * MS)]])
def test_a_deadline_ends_a_wait_at_the_announced_instant(make_engine: Make, cost_model: list[tuple[int, int]]) -> None:
    """Also where one request more would make the batch faster."""
    engine = make_engine(policy="fixed", max_wait_ns=500 * MS, cost_model=cost_model, max_batch_size=8)
    requests = submit(engine, 0, 100, 100)
    wake = engine.decide(0).wake_at_ns
    assert wake is not None
    assert engine.decide(wake - 1).wake_at_ns == wake
    assert told(engine.decide(wake)) == ("dispatch", "deadline", *requests)
    service = engine.predict_ns(2)
    assert service is not None
    assert wake + service < 100 * MS


def test_a_wait_that_a_newcomer_in_a_hurry_ends_says_so(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=500 * MS, cost_model=TEN)
    patient = engine.submit(0)
    assert engine.decide(0).kind == "wait"
    engine.submit(MS, priority=1, deadline_ns=6 * MS)
    decision = engine.decide(MS)
    assert (decision.reason, decision.batch[0]) == ("deadline", patient)


# Giving up while all workers are busy


def test_who_is_sure_to_be_late_is_told_while_all_workers_are_busy(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN)
    engine.submit(0)
    running = engine.decide(0)
    late, in_time = submit(engine, MS, 25, 60)
    wake = engine.decide(MS).wake_at_ns
    assert wake == pytest.approx(15 * MS, abs=2)  # the fastest batch takes 10 ms
    assert engine.decide(wake - 1).expired == ()
    assert engine.decide(wake).expired == (late,)
    engine.complete(20 * MS, running)
    assert told(engine.decide(20 * MS)) == ("dispatch", "idle_worker", in_time)


def test_nobody_is_given_up_early_while_a_worker_is_free(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN, capacity=2)
    engine.submit(0)
    engine.decide(0)
    (request,) = submit(engine, MS, 25)
    assert told(engine.decide(14 * MS)) == ("dispatch", "idle_worker", request)


def test_with_nothing_learned_nobody_is_given_up_early(make_engine: Make) -> None:
    engine = make_engine()
    engine.submit(0)
    engine.decide(0)
    submit(engine, 0, 25)
    assert engine.decide(0).wake_at_ns == 25 * MS


def test_large_batches_do_not_make_believe_that_a_small_one_is_slow(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=32)
    now = 0
    for size in [1] + [32] * 200:
        for _ in range(size):
            engine.submit(now)
        running = engine.decide(now)
        now += 10 * MS if size == 1 else 100 * MS
        engine.complete(now, running)
    for _ in range(32):
        engine.submit(now)
    running = engine.decide(now)
    engine.submit(now, deadline_ns=now + 120 * MS)
    wake = engine.decide(now).wake_at_ns
    assert wake is not None
    assert wake >= now + 105 * MS
    engine.complete(now + 100 * MS, running)
    assert len(engine.decide(now + 100 * MS).batch) == 1


# The probe


def test_when_nobody_seems_to_make_it_the_last_one_is_tried(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN)
    *given_up, last = submit(engine, 0, 5, 6, 7)
    decision = engine.decide(0)
    assert told(decision) == ("dispatch", "probe", last)
    assert decision.expired == tuple(given_up)


def test_the_next_one_is_not_tried_before_twice_the_time_of_a_batch(make_engine: Make) -> None:
    engine = make_engine(cost_model=TEN)
    submit(engine, 0, 5)
    probe = engine.decide(0)
    assert probe.reason == "probe"
    engine.complete(10 * MS, probe)
    early, late = submit(engine, 11 * MS, 18, 25)
    assert engine.decide(17 * MS).wake_at_ns == 18 * MS
    decision = engine.decide(18 * MS)
    wake = decision.wake_at_ns
    assert decision.expired == (early,)
    assert wake == pytest.approx(20 * MS, abs=4)
    assert told(engine.decide(wake)) == ("dispatch", "probe", late)


def test_a_wrong_belief_does_not_drop_everything_for_ever(make_engine: Make) -> None:
    """The first batch took 100 times as long as all others will; every request has half of that."""
    engine = make_engine(max_batch_size=8)
    now, reasons, outcomes = 0, [], []
    for i in range(20):
        requests = submit(engine, now, *[now / MS + 50] * (1 if i == 0 else 2))
        decision = engine.decide(now)
        reasons.append(decision.reason)
        if decision.kind == "dispatch":
            engine.complete(now + (100 * MS if i == 0 else MS), decision)
        now += 100 * MS
        engine.decide(now)
        outcomes.append([request.status for request in requests])
    assert reasons[1] == "probe"
    assert outcomes[1] == ["expired", "completed"]
    assert set(reasons[5:]) == {"idle_worker"}
    assert all(each == ["completed", "completed"] for each in outcomes[5:])


# Deferral, where several workers share the load


def busy(policy: str, **options: Any) -> tuple[Engine, int]:
    """Two workers and 0.1 requests a ms, which needs batches of at least two."""
    engine = Engine(policy=policy, capacity=2, max_batch_size=8, cost_model=TEN, **options)
    now = 0
    for i in range(300):
        now = i * 5 * MS // 2
        engine.submit(now)
        decision = engine.decide(now)
        if decision.kind == "dispatch":
            engine.complete(now, decision, failed=len(decision.batch))
    engine.flush(now)
    while (decision := engine.decide(now)).kind == "dispatch":
        engine.complete(now, decision, failed=len(decision.batch))
    return engine, now + 40 * MS  # no longer anybody's turn


def test_a_batch_that_is_smaller_than_needed_waits_for_as_long_as_one_takes() -> None:
    engine, now = busy("adaptive")
    request = engine.submit(now, deadline_ns=now + 2_000 * MS)
    wake = engine.decide(now).wake_at_ns
    assert wake is not None
    assert 9 * MS < wake - now <= 10 * MS
    assert engine.decide(wake - 1).wake_at_ns == wake
    assert told(engine.decide(wake)) == ("dispatch", "idle_worker", request)


def test_max_wait_and_max_latency_hold_for_such_a_wait() -> None:
    engine, now = busy("adaptive", max_wait_ns=5 * MS)
    engine.submit(now, deadline_ns=now + 100 * MS)
    assert engine.decide(now).wake_at_ns == now + 5 * MS
    assert engine.decide(now + 5 * MS).reason == "window"
    engine, now = busy("adaptive", max_latency_ns=16 * MS)
    engine.submit(now, deadline_ns=now + 100 * MS)
    wake = engine.decide(now).wake_at_ns
    assert wake is not None
    assert now < wake < now + 5 * MS
    assert engine.decide(wake).reason == "latency"


def test_only_the_default_policy_defers() -> None:
    engine, now = busy("immediate")
    request = engine.submit(now, deadline_ns=now + 100 * MS)
    assert told(engine.decide(now)) == ("dispatch", "idle_worker", request)


def test_a_flush_ends_a_deferral() -> None:
    engine, now = busy("adaptive")
    engine.submit(now, deadline_ns=now + 100 * MS)
    assert engine.decide(now).kind == "wait"
    engine.flush(now)
    assert engine.decide(now).reason == "flush"
