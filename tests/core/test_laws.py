"""The laws: what holds for every engine and every trace, each by its name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from traces import MS, Event, World, adaptive, anything, fixed, immediate, ours, own, plain, traces, with_extras

from batchcore.engine import MAX_PRIORITY, Engine, Request
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import OUTCOMES, Decision

Options = dict[str, Any]
Trace = list[Event]

LIVING = {"queued", "running"}


@given(anything, traces)
def test_every_request_is_counted_exactly_once(options: Options, trace: Trace) -> None:
    world, offered = World(options), 0
    for event in world.events(trace):
        offered += event.kind == "submit"
        stats = world.engine.stats()
        seen = Counter(request.status for request in world.requests)
        seen["rejected"] = offered - len(world.requests)
        answered = seen.pop("completed", 0) + seen.pop("failed", 0)
        assert answered == stats.completed + stats.failed
        assert seen == Counter({name: getattr(stats, name) for name in seen})
        assert stats.submitted == offered
        assert offered == stats.queued + stats.running + sum(getattr(stats, outcome) for outcome in OUTCOMES)


@given(anything, traces)
def test_a_request_ends_once(options: Options, trace: Trace) -> None:
    world = World(options)
    before: list[str] = []
    for _ in world.events(trace):
        after = [request.status for request in world.requests]
        for old, new in zip(before, after, strict=False):
            assert old in LIVING or new == old
            assert old != "running" or new != "queued"
        before = after


@given(anything, traces)
def test_every_accepted_request_of_a_closed_engine_ends(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    world.engine.close(world.now)
    world.engine.set_capacity(world.now, 4)
    while world.engine.stats().queued or world.running:
        world.settle()
        world.complete(trace[0])
        world.now += MS
    assert LIVING.isdisjoint(request.status for request in world.requests)


@given(anything, traces)
def test_no_request_is_in_two_batches(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    taken = Counter(request for decision in world.decisions for request in (*decision.batch, *decision.expired))
    assert set(taken.values()) <= {1}


@given(anything, traces)
def test_no_batch_is_over_its_size(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    for decision in world.decisions:
        if decision.kind == "dispatch":
            assert 1 <= len(decision.batch) <= options["max_batch_size"]
            if "max_batch_weight" not in options:
                assert len(decision.batch) == options["max_batch_size"] or decision.reason != "full"


@given(plain, traces)
def test_a_batch_that_has_its_size_says_so_unless_a_deadline_made_it(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    for decision in world.decisions:
        if len(decision.batch) == options["max_batch_size"]:
            assert decision.reason in {"full", "deadline", "probe"}


@given(anything, traces)
def test_no_more_batches_run_than_there_are_workers(options: Options, trace: Trace) -> None:
    world = World(options)
    capacity, before = options["capacity"], 0
    for event in world.events(trace):
        if event.kind == "set_capacity":
            capacity = event.pick % 4
        running = world.engine.stats().in_flight_batches
        assert running <= max(before, capacity)
        assert running == len(world.running)
        before = running


@given(plain | own, traces)
def test_first_in_first_out_within_key_and_priority(options: Options, trace: Trace) -> None:
    """Where nobody has a deadline and nothing is weighed: else there may be a better order."""
    world = World(options).live_through([replace(event, timeout_ns=None) for event in trace])
    last: dict[tuple[int | None, int], int] = {}
    for decision in world.decisions:
        for request in decision.batch:
            place = decision.key, request.priority
            assert last.get(place, -1) < world.numbers[request]
            last[place] = world.numbers[request]


@given(anything, traces)
def test_no_batch_mixes_keys(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    for decision in world.decisions:
        assert {world.keys[request] for request in decision.batch} <= {decision.key}


@given(anything, traces)
def test_no_batch_is_over_its_weight(options: Options, trace: Trace) -> None:
    """Unless it is a single request that is heavier alone, and such are taken."""
    world = World(options | {"overweight": True}).live_through(trace)
    for decision in world.decisions:
        weights = [request.weight for request in decision.batch]
        if len(weights) > 1 and "max_batch_weight" in options:
            weight = len(weights) * max(weights) if options.get("padded") else sum(weights)
            assert weight <= options["max_batch_weight"]


@given(anything, traces)
def test_the_model_is_given_a_size_that_it_accepts(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    sizes = options.get("allowed_batch_sizes") or range(1, 7)
    for decision in world.decisions:
        if decision.batch:
            assert decision.model_size == min(size for size in sizes if size >= len(decision.batch))


@given(anything, traces)
def test_a_key_is_known_while_something_is_queued_under_it(options: Options, trace: Trace) -> None:
    world = World(options)
    for _ in world.events(trace):
        queued = {world.keys[request] for request in world.requests if request.status == "queued"}
        assert len(world.engine.keys) == len(queued - {None})


@given(plain | own, traces)
def test_a_batch_leaves_nothing_behind_that_is_due_sooner(options: Options, trace: Trace) -> None:
    """Of its key; unless that is too late, or would make others so."""
    aging = options["aging_ns"]

    def due(request: Request) -> tuple[int, int]:
        soon = request.arrival_ns + aging // 2
        within = soon if request.deadline_ns is None else min(soon, request.deadline_ns)
        return within + request.priority * aging, world.numbers[request]

    world = World(options)
    for event in world.events(trace):
        if event.kind == "decide" and world.decisions[-1].kind == "dispatch":
            taken = [due(request) for request in world.decisions[-1].batch]
            queued = [request for request in world.requests if request.status == "queued"]
            left = [due(request) for request in queued if world.keys[request] == world.decisions[-1].key]
            assert taken == sorted(taken)
            if world.decisions[-1].reason not in {"deadline", "probe"}:
                assert not left or taken[-1] < min(left)


@given(anything, traces)
def test_nothing_expired_is_run(options: Options, trace: Trace) -> None:
    world = World(options)
    expired: set[Request] = set()
    for event in world.events(trace):
        if event.kind == "decide":
            decision = world.decisions[-1]
            expired.update(decision.expired)
            assert expired.isdisjoint(decision.batch)
            assert all(r.deadline_ns is None or r.deadline_ns > decision.at_ns for r in decision.batch)


@given(plain, traces)
def test_nobody_is_given_up_who_could_make_it(options: Options, trace: Trace) -> None:
    """Alone at once, or after the batch that left in its place, by what was believed."""
    world = World(options)
    for event in world.events(trace):
        if event.kind == "decide" and world.decisions[-1].expired:
            decision = world.decisions[-1]
            margin = 1.0 + 0.5 * world.engine.learned(world.now).deviation
            sizes = [1, len(decision.batch)] if decision.batch else [1]
            needed = sum(int((world.engine.predict_ns(size) or 0) * margin) + 2 for size in sizes)
            assert all(request.deadline_ns <= decision.at_ns + needed for request in decision.expired)


@given(anything, traces)
def test_nothing_queued_outlives_its_deadline(options: Options, trace: Trace) -> None:
    world = World(options)
    for event in world.events(trace):
        if event.kind == "decide":
            queued = [request for request in world.requests if request.status == "queued"]
            assert all(request.deadline_ns is None or request.deadline_ns > world.now for request in queued)


@given(anything, traces)
def test_nothing_run_expires_later(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    world.now += 1_000 * MS
    expired = {request for decision in (*world.decisions, world.settle()) for request in decision.expired}
    for decision in world.decisions:
        assert expired.isdisjoint(decision.batch)
        assert {request.status for request in decision.batch} <= {"running", "completed", "failed"}


def hopeful(world: World) -> list[Request]:
    """Those queued who would still make it if they left now and alone, by what is believed."""
    margin = 1.0 + 0.5 * world.engine.learned(world.now).deviation
    end = world.now + int((world.engine.predict_ns(1) or 0) * margin)
    queued = [request for request in world.requests if request.status == "queued"]
    return [request for request in queued if request.deadline_ns is None or request.deadline_ns > end + 1]


@given(with_extras(immediate), traces)
def test_nobody_waits_in_vain_while_a_worker_is_free_under_immediate(options: Options, trace: Trace) -> None:
    world = World(options)
    for _ in world.events(trace):
        world.settle()
        stats = world.engine.stats()
        assert not hopeful(world) or stats.in_flight_batches >= stats.capacity


windows = st.builds(
    lambda options, wait: options | {"max_wait_ns": wait},
    with_extras(fixed | adaptive),
    st.sampled_from([0, 1, 5 * MS, 10 * MS]),
)


@given(windows, traces)
def test_nobody_waits_in_vain_past_max_wait_while_a_worker_is_free(options: Options, trace: Trace) -> None:
    world = World(options)
    for _ in world.events(trace):
        world.settle()
        stats = world.engine.stats()
        if stats.in_flight_batches < stats.capacity:
            waiting = hopeful(world)
            assert all(request.arrival_ns + options["max_wait_ns"] > world.now for request in waiting)
            assert all(n < options["max_batch_size"] for n in Counter(world.keys[r] for r in waiting).values())


@given(fixed, traces)
def test_without_deadlines_and_targets_nobody_leaves_early(options: Options, trace: Trace) -> None:
    patient = [replace(event, timeout_ns=None) for event in trace if event.kind != "flush"]
    world = World(options | {"max_latency_ns": None}).live_through(patient)
    for decision in world.decisions:
        if decision.kind == "dispatch" and decision.reason != "full":
            oldest = min(request.arrival_ns for request in decision.batch)
            assert decision.reason == "window"
            assert decision.at_ns >= oldest + options["max_wait_ns"]


@given(ours, traces, st.floats(0, 1))
def test_nothing_happens_between_now_and_the_announced_wakeup(options: Options, trace: Trace, part: float) -> None:
    world = World(options)
    for event in world.events(trace):
        wake = world.settle().wake_at_ns
        if wake is None:
            continue
        assert wake > world.now
        assert world.engine.next_wakeup_ns() == wake
        before = world.engine.stats()
        last = world.now + int((wake - 1 - world.now) * part) if event.pick % 2 else wake - 1
        for now in (world.now, last):
            assert world.engine.decide(now) == Decision("wait", now, None, wake, None, (), ())
            assert world.engine.stats() == before
        world.now = last
        if last == wake - 1:
            world.now = wake
            awake = world.decide()
            assert awake.kind == "dispatch" or awake.expired


@given(with_extras(own), traces)
def test_a_policy_of_ones_own_is_asked_only_when_something_is_up(options: Options, trace: Trace) -> None:
    """Between now and the announced wake-up it is not; then it is, or something happens without it."""
    world = World(options)
    for _ in world.events(trace):
        wake = world.settle().wake_at_ns
        if wake is None:
            continue
        before = world.engine.stats()
        asked = len(world.engine.decider.seen)
        assert world.engine.decide(wake - 1) == Decision("wait", wake - 1, None, wake, None, (), ())
        assert (world.engine.stats(), len(world.engine.decider.seen)) == (before, asked)
        world.now = wake
        awake = world.decide()
        assert awake.kind == "dispatch" or awake.expired or len(world.engine.decider.seen) > asked


@given(anything, traces)
def test_an_idle_engine_stays_idle_until_an_event(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    answer = world.settle()
    assume(answer.kind == "idle")
    before = world.engine.stats()
    assert world.engine.next_wakeup_ns() is None
    for now in (world.now + 1, world.now + 10_000_000 * MS):
        assert world.engine.decide(now) == Decision("idle", now, None, None, None, (), ())
    assert world.engine.stats() == before


@given(anything, traces, st.integers(-(10**17), 10**17))
def test_shifting_all_times_shifts_all_decisions(options: Options, trace: Trace, shift: int) -> None:
    here, there = World(options).live_through(trace), World(options, now=shift).live_through(trace)
    assert there.story() == here.story(shift)


@given(anything, traces)
def test_replay_gives_the_same_decisions(options: Options, trace: Trace) -> None:
    once, again = World(options).live_through(trace), World(options).live_through(trace)
    assert once.story() == again.story()
    assert once.engine.stats() == again.engine.stats()


REFUSED: list[Callable[[World], object]] = [
    lambda world: world.engine.submit(10**18, priority=MAX_PRIORITY + 1),
    lambda world: world.engine.submit(10**18, deadline_ns="soon"),  # type: ignore[arg-type]
    lambda world: world.engine.complete(10**18, world.engine.decide(world.now)),
    lambda world: [world.engine.complete(10**18, decision, failed=-1) for decision in world.running] or int("none"),
    lambda world: world.engine.set_capacity(10**18, -1),
    lambda world: world.engine.reconfigure(10**18, max_batch_size=1, max_queue_size=1, max_latency_ns=-1),
]


@given(anything, traces, traces, st.sampled_from(REFUSED))
def test_a_refused_call_changes_nothing(
    options: Options, trace: Trace, rest: Trace, refused: Callable[[World], object]
) -> None:
    """Two engines live the same life, but one is bothered in the middle of it: nobody could tell which."""
    bothered, left_alone = World(options).live_through(trace), World(options).live_through(trace)
    for world in (bothered, left_alone):
        world.settle()
    with pytest.raises((TypeError, ValueError)):
        refused(bothered)
    assert bothered.engine.stats() == left_alone.engine.stats()
    assert bothered.engine.next_wakeup_ns() == left_alone.engine.next_wakeup_ns()
    assert bothered.live_through(rest).story() == left_alone.live_through(rest).story()


@given(anything, traces, traces)
def test_a_rejected_request_changes_nothing_but_its_counters(options: Options, trace: Trace, rest: Trace) -> None:
    bothered, left_alone = World(options).live_through(trace), World(options).live_through(trace)
    queued = bothered.engine.stats().queued
    assume(queued)
    for world in (bothered, left_alone):
        world.engine.reconfigure(world.now, max_queue_size=queued)
    with pytest.raises(QueueFull):
        bothered.engine.submit(bothered.now + MS, priority=-1)
    stats = left_alone.engine.stats()
    assert bothered.engine.stats() == replace(stats, submitted=stats.submitted + 1, rejected=stats.rejected + 1)
    assert bothered.live_through(rest).story() == left_alone.live_through(rest).story()


@given(anything, traces)
def test_a_closed_engine_refuses_without_a_trace(options: Options, trace: Trace) -> None:
    world = World(options).live_through(trace)
    world.engine.close(world.now)
    before, wake = world.engine.stats(), world.engine.next_wakeup_ns()
    for deadline in (None, world.now, world.now + MS):
        with pytest.raises(SchedulerClosed):
            world.engine.submit(world.now + MS, deadline_ns=deadline)
    assert (world.engine.stats(), world.engine.next_wakeup_ns()) == (before, wake)
    assert world.engine.decide(world.now).at_ns == world.now


@given(st.integers(1, 5), st.integers(1, 50), st.integers(1, 1_000))
def test_a_worse_priority_is_overtaken_for_a_bounded_time_only(worse: int, aging: int, rounds: int) -> None:
    """However many better ones keep coming, one each nanosecond and one served each nanosecond."""
    engine = Engine(max_batch_size=1, capacity=1, aging_ns=aging)
    engine.submit(0)
    patient = engine.submit(0, priority=worse)
    for now in range(worse * aging + 1):
        engine.complete(now, engine.decide(now))
        engine.submit(now)
    assert patient.status == "completed" or engine.decide(worse * aging + 1).batch == (patient,)
