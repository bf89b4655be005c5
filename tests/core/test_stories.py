"""The engine's rules, one story each, in virtual time: bare numbers are nanoseconds, `MS` makes milliseconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from batchcore.engine import (
    AGING_NS,
    MAX_BATCH_SIZE,
    MAX_CAPACITY,
    MAX_DURATION_NS,
    MAX_PRIORITY,
    MAX_QUEUE_SIZE,
    Engine,
    Request,
)
from batchcore.errors import QueueFull, SchedulerClosed
from batchcore.records import REASONS, Decision

MS = 1_000_000
IDLE = ("idle",)

Make = Callable[..., Engine]


def told(decision: Decision) -> tuple[Any, ...]:
    """A decision in short: ``("dispatch", reason, *batch)``, ``("wait", until)`` or ``("idle",)``."""
    if decision.kind == "dispatch":
        assert decision.wake_at_ns is None
        assert decision.batch_id is not None
        return ("dispatch", decision.reason, *decision.batch)
    assert (decision.reason, decision.batch_id, decision.batch) == (None, None, ())
    return IDLE if decision.wake_at_ns is None else (decision.kind, decision.wake_at_ns)


def statuses(requests: Iterable[Request]) -> list[str]:
    return [request.status for request in requests]


def learned(engine: Engine, service_ns: int) -> int:
    """Run a batch of one that takes `service_ns`, so that the engine knows of that; return when it ended."""
    engine.submit(0)
    engine.flush(0)
    engine.complete(service_ns, engine.decide(0))
    return service_ns


# Immediate dispatch


def test_an_empty_engine_is_idle(make_engine: Make) -> None:
    engine = make_engine()
    assert engine.next_wakeup_ns() is None
    assert told(engine.decide(0)) == IDLE


def test_a_request_into_an_idle_engine_leaves_at_once(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(3)
    decision = engine.decide(3)
    assert told(decision) == ("dispatch", "idle_worker", request)
    assert (decision.batch_id, decision.at_ns, decision.expired) == (1, 3, ())


def test_a_batch_closes_only_when_a_worker_can_take_it(make_engine: Make) -> None:
    engine = make_engine()
    engine.submit(0)
    running = engine.decide(0)
    late = [engine.submit(now) for now in (1, 2, 3)]
    assert told(engine.decide(3)) == IDLE
    late.append(engine.submit(4))
    engine.complete(5, running)
    assert told(engine.decide(5)) == ("dispatch", "idle_worker", *late)


def test_a_batch_takes_no_more_than_its_size_and_leaves_the_rest(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=2, capacity=3)
    requests = [engine.submit(0) for _ in range(5)]
    assert told(engine.decide(0)) == ("dispatch", "full", *requests[:2])
    assert told(engine.decide(0)) == ("dispatch", "full", *requests[2:4])
    assert told(engine.decide(0)) == ("dispatch", "idle_worker", requests[4])


def test_one_decide_dispatches_one_batch_and_the_wakeup_says_that_there_is_more(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1, capacity=2)
    first, second = engine.submit(7), engine.submit(7)
    assert told(engine.decide(7)) == ("dispatch", "full", first)
    wake = engine.next_wakeup_ns()
    assert wake is not None
    assert wake <= 7
    assert told(engine.decide(7)) == ("dispatch", "full", second)
    assert engine.next_wakeup_ns() is None


def test_with_batches_of_one_every_batch_is_full(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=1)
    request = engine.submit(0)
    assert told(engine.decide(0)) == ("dispatch", "full", request)


def test_batches_are_numbered_from_one(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1, capacity=3)
    for _ in range(3):
        engine.submit(0)
    assert [engine.decide(0).batch_id for _ in range(3)] == [1, 2, 3]


# The window


def test_a_lone_request_waits_for_company_until_its_window_ends(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5)
    first = engine.submit(0)
    assert told(engine.decide(0)) == ("wait", 5)
    second = engine.submit(2)
    assert told(engine.decide(4)) == ("wait", 5)
    assert told(engine.decide(5)) == ("dispatch", "window", first, second)


def test_the_window_is_measured_from_arrival_and_not_from_when_a_worker_came(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=2)
    engine.submit(0)
    engine.submit(0)
    running = engine.decide(0)
    waiting = engine.submit(1)
    engine.complete(4, running)
    assert told(engine.decide(4)) == ("wait", 6)
    assert told(engine.decide(6)) == ("dispatch", "window", waiting)


def test_a_window_that_ended_while_all_workers_were_busy_does_not_begin_again(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=2)
    engine.submit(0)
    engine.submit(0)
    running = engine.decide(0)
    waiting = [engine.submit(1)]
    assert told(engine.decide(6)) == IDLE
    assert engine.next_wakeup_ns() is None
    engine.complete(20, running)
    assert told(engine.decide(20)) == ("dispatch", "window", *waiting)


def test_a_full_batch_does_not_wait_for_its_window(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=2)
    first = engine.submit(0)
    assert told(engine.decide(0)) == ("wait", 5)
    second = engine.submit(1)
    assert told(engine.decide(1)) == ("dispatch", "full", first, second)


def test_what_a_full_batch_left_behind_waits_for_its_own_window(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=2, capacity=2)
    engine.submit(0)
    engine.submit(0)
    left = engine.submit(3)
    assert engine.decide(3).reason == "full"
    assert told(engine.decide(3)) == ("wait", 8)
    assert told(engine.decide(8)) == ("dispatch", "window", left)


def test_the_window_follows_the_oldest_request_and_not_the_first_to_be_served(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=10, aging_ns=100)
    patient = engine.submit(0, priority=1)
    urgent = engine.submit(4, priority=0)
    assert told(engine.decide(4)) == ("wait", 10)
    assert told(engine.decide(10)) == ("dispatch", "window", urgent, patient)


def test_the_window_moves_on_when_the_oldest_request_is_cancelled(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=10)
    oldest = engine.submit(0)
    engine.submit(3)
    assert told(engine.decide(3)) == ("wait", 10)
    assert engine.cancel(4, oldest)
    assert engine.next_wakeup_ns() == 13
    assert told(engine.decide(10)) == ("wait", 13)


def test_without_a_wait_a_window_is_over_when_it_begins(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=0)
    request = engine.submit(9)
    assert told(engine.decide(9)) == ("dispatch", "window", request)


def test_the_longest_window_is_waited_for_to_the_nanosecond(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=MAX_DURATION_NS)
    engine.submit(11)
    assert told(engine.decide(11)) == ("wait", 11 + MAX_DURATION_NS)


# Exact wake-ups


def test_a_wakeup_is_exact(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=1_000)
    request = engine.submit(0)
    assert [told(engine.decide(now)) for now in (0, 1, 998, 999)] == [("wait", 1_000)] * 4
    assert told(engine.decide(1_000)) == ("dispatch", "window", request)


def test_the_next_wakeup_is_known_without_a_decision(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5)
    engine.submit(1)
    assert engine.next_wakeup_ns() == 6
    engine.flush(2)
    wake = engine.next_wakeup_ns()
    assert wake is not None
    assert wake <= 2


def test_a_wait_ends_at_the_first_of_its_limits(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50 * MS)
    now = learned(engine, 0)
    engine.submit(now)
    assert told(engine.decide(now)) == ("wait", 50 * MS)
    engine.submit(now, deadline_ns=20 * MS)
    assert told(engine.decide(now)) == ("wait", 19 * MS - 1)  # 1 ms for the way, and no batch takes less than 1 ns


# Order of service


def test_equals_are_served_first_in_first_out(make_engine: Make) -> None:
    engine = make_engine()
    requests = [engine.submit(5) for _ in range(20)]
    assert told(engine.decide(5)) == ("dispatch", "idle_worker", *requests)


def test_lower_priority_numbers_are_sooner(make_engine: Make) -> None:
    engine = make_engine()
    by_priority = {priority: engine.submit(0, priority=priority) for priority in (0, 5, -3, 1, -MAX_PRIORITY)}
    assert told(engine.decide(0))[2:] == tuple(by_priority[p] for p in (-MAX_PRIORITY, -3, 0, 1, 5))


def test_a_priority_is_a_head_start_of_the_aging_time_and_no_more(make_engine: Make) -> None:
    engine = make_engine(aging_ns=100, max_batch_size=1, capacity=4)
    background = engine.submit(0, priority=1)
    in_time = engine.submit(99, priority=0)
    too_late = engine.submit(101, priority=0)
    order = [engine.decide(101).batch[0] for _ in range(3)]
    assert order == [in_time, background, too_late]


def test_when_aging_makes_two_requests_equal_the_earlier_goes_first(make_engine: Make) -> None:
    engine = make_engine(aging_ns=100)
    background = engine.submit(0, priority=1)
    equal = engine.submit(100, priority=0)
    assert told(engine.decide(100))[2:] == (background, equal)


def test_the_aging_time_is_two_seconds_unless_said(make_engine: Make) -> None:
    assert AGING_NS == 2_000 * MS
    engine = make_engine(capacity=0)
    background = engine.submit(0, priority=1)
    in_time = engine.submit(AGING_NS - 1)
    equal = engine.submit(AGING_NS)
    engine.set_capacity(AGING_NS, 1)
    assert told(engine.decide(AGING_NS))[2:] == (in_time, background, equal)


def test_without_aging_priorities_do_not_matter(make_engine: Make) -> None:
    engine = make_engine(aging_ns=0)
    requests = [engine.submit(0, priority=priority) for priority in (3, -3, 0)]
    assert told(engine.decide(0))[2:] == tuple(requests)


def test_the_longest_aging_keeps_the_farthest_priorities_in_order(make_engine: Make) -> None:
    engine = make_engine(aging_ns=MAX_DURATION_NS // MAX_PRIORITY)
    priorities = (MAX_PRIORITY, 0, MAX_PRIORITY - 1, 1_000, -MAX_PRIORITY, 999, 1 - MAX_PRIORITY)
    by_priority = {priority: engine.submit(0, priority=priority) for priority in priorities}
    assert told(engine.decide(0))[2:] == tuple(by_priority[p] for p in sorted(priorities))


def test_the_earliest_deadline_goes_first(make_engine: Make) -> None:
    engine = make_engine()
    by_deadline = {deadline: engine.submit(0, deadline_ns=deadline) for deadline in (30, 10, 20, 11)}
    assert told(engine.decide(0))[2:] == tuple(by_deadline[d] for d in (10, 11, 20, 30))


def test_equal_deadlines_are_served_first_in_first_out(make_engine: Make) -> None:
    engine = make_engine()
    requests = [engine.submit(now, deadline_ns=500) for now in (0, 1, 2)]
    assert told(engine.decide(2))[2:] == tuple(requests)


def test_a_request_without_deadline_counts_as_due_after_half_the_aging_time(make_engine: Make) -> None:
    engine = make_engine(aging_ns=100)
    far = engine.submit(0, deadline_ns=51)
    none = engine.submit(0)
    near = engine.submit(0, deadline_ns=49)
    farther = engine.submit(0, deadline_ns=1_000)
    assert told(engine.decide(0))[2:] == (near, far, none, farther)


def test_deadlines_order_within_a_priority_and_not_across(make_engine: Make) -> None:
    engine = make_engine(aging_ns=100)
    hurried_background = engine.submit(0, priority=1, deadline_ns=1)
    relaxed = engine.submit(0, priority=0, deadline_ns=60)
    hurried = engine.submit(0, priority=0, deadline_ns=40)
    assert told(engine.decide(0))[2:] == (hurried, relaxed, hurried_background)


# Expiry


def test_a_request_expires_at_its_deadline_and_not_before(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    request = engine.submit(0, deadline_ns=10)
    assert told(engine.decide(9)) == ("wait", 10)
    assert request.status == "queued"
    decision = engine.decide(10)
    assert told(decision) == IDLE
    assert decision.expired == (request,)
    assert request.status == "expired"


def test_a_request_expires_while_all_workers_are_busy(make_engine: Make) -> None:
    engine = make_engine()
    engine.submit(0)
    running = engine.decide(0)
    hurried, patient = engine.submit(1, deadline_ns=10), engine.submit(1)
    assert told(engine.decide(1)) == ("wait", 10)
    decision = engine.decide(12)
    assert told(decision) == IDLE
    assert decision.expired == (hurried,)
    engine.complete(13, running)
    assert told(engine.decide(13)) == ("dispatch", "idle_worker", patient)


def test_the_expired_are_listed_by_deadline_then_by_submission(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    requests = [engine.submit(0, deadline_ns=deadline, priority=-deadline) for deadline in (30, 10, 20, 10, 30, 99)]
    decision = engine.decide(30)
    assert decision.expired == tuple(requests[i] for i in (1, 3, 2, 0, 4))
    assert told(decision) == ("wait", 99)


def test_a_decision_can_expire_some_and_dispatch_others(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    late, in_time = engine.submit(0, deadline_ns=5), engine.submit(0, deadline_ns=6)
    engine.set_capacity(5, 1)
    decision = engine.decide(5)
    assert decision.expired == (late,)
    assert told(decision) == ("dispatch", "idle_worker", in_time)


def test_an_expired_request_does_not_make_a_batch_full(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100, max_batch_size=2, capacity=0)
    engine.submit(0, deadline_ns=5)
    engine.submit(0)
    engine.set_capacity(5, 1)
    assert told(engine.decide(5)) == ("wait", 100)


def test_a_request_that_comes_too_late_ends_at_once(make_engine: Make) -> None:
    engine = make_engine()
    for deadline in (4, 5):
        request = engine.submit(5, deadline_ns=deadline)
        assert (request.status, request.deadline_ns) == ("expired", deadline)
    stats = engine.stats()
    assert (stats.submitted, stats.expired, stats.queued) == (2, 2, 0)
    decision = engine.decide(5)
    assert told(decision) == IDLE
    assert decision.expired == ()


def test_a_request_that_comes_too_late_needs_no_place_in_the_queue(make_engine: Make) -> None:
    engine = make_engine(max_queue_size=1)
    engine.submit(0)
    assert engine.submit(5, deadline_ns=5).status == "expired"
    assert engine.stats().rejected == 0


def test_a_running_request_does_not_expire(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(0, deadline_ns=10)
    running = engine.decide(0)
    assert told(engine.decide(50)) == IDLE
    engine.complete(60, running)
    assert request.status == "completed"
    assert engine.stats().expired == 0


# Cancellation


def test_a_cancelled_request_is_not_run(make_engine: Make) -> None:
    engine = make_engine()
    first, second, third = (engine.submit(0) for _ in range(3))
    assert engine.cancel(1, second) is True
    assert second.status == "cancelled"
    assert told(engine.decide(1)) == ("dispatch", "idle_worker", first, third)


def test_cancelling_frees_the_place(make_engine: Make) -> None:
    engine = make_engine(max_queue_size=1)
    request = engine.submit(0)
    with pytest.raises(QueueFull):
        engine.submit(0)
    engine.cancel(0, request)
    assert engine.submit(0).status == "queued"


def test_cancelling_the_earliest_deadline_moves_the_wakeup(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    requests = [engine.submit(0, deadline_ns=deadline) for deadline in (10, 20, 30)]
    engine.cancel(0, requests[0])
    assert engine.next_wakeup_ns() == 20
    engine.cancel(0, requests[2])
    assert engine.next_wakeup_ns() == 20
    engine.cancel(0, requests[1])
    assert engine.next_wakeup_ns() is None


def test_cancelling_makes_a_full_batch_wait_again(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=2)
    engine.submit(0)
    engine.cancel(1, engine.submit(1))
    assert told(engine.decide(1)) == ("wait", 5)


def test_only_a_queued_request_can_be_cancelled(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(0)
    running = engine.decide(0)
    before = engine.stats()
    assert engine.cancel(1, request) is False
    assert request.status == "running"
    assert engine.stats() == before
    engine.complete(2, running)
    late = engine.submit(2, deadline_ns=2)
    cancelled = engine.submit(2)
    assert engine.cancel(2, cancelled) is True
    before = engine.stats()
    assert [engine.cancel(3, ended) for ended in (request, late, cancelled)] == [False, False, False]
    assert statuses((request, late, cancelled)) == ["completed", "expired", "cancelled"]
    assert engine.stats() == before


def test_a_request_made_by_hand_is_new_and_cannot_be_cancelled(make_engine: Make) -> None:
    engine = make_engine()
    request = Request()
    assert request.status == "new"
    assert engine.cancel(0, request) is False
    assert request.status == "new"


# The bound of the queue


def test_a_full_queue_rejects_and_counts_it(make_engine: Make) -> None:
    engine = make_engine(max_queue_size=2, capacity=0)
    requests = [engine.submit(0), engine.submit(0)]
    with pytest.raises(QueueFull):
        engine.submit(0, priority=-1)
    stats = engine.stats()
    assert (stats.submitted, stats.rejected, stats.queued) == (3, 1, 2)
    assert statuses(requests) == ["queued", "queued"]


def test_running_requests_take_no_place_in_the_queue(make_engine: Make) -> None:
    engine = make_engine(max_queue_size=1)
    engine.submit(0)
    engine.decide(0)
    assert engine.submit(0).status == "queued"


# Capacity


def test_capacity_bounds_the_batches_in_flight(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1, capacity=2)
    for _ in range(3):
        engine.submit(0)
    kinds = [engine.decide(0).kind for _ in range(3)]
    assert kinds == ["dispatch", "dispatch", "idle"]
    assert engine.stats().in_flight_batches == 2


def test_more_capacity_lets_waiting_work_go(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1)
    engine.submit(0)
    waiting = engine.submit(0)
    engine.decide(0)
    assert told(engine.decide(1)) == IDLE
    engine.set_capacity(2, 2)
    assert told(engine.decide(2)) == ("dispatch", "full", waiting)


def test_less_capacity_lets_running_batches_end_and_starts_none_until_then(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1, capacity=3)
    for _ in range(4):
        engine.submit(0)
    running = [engine.decide(0) for _ in range(3)]
    engine.set_capacity(1, 1)
    kinds = []
    for now, decision in enumerate(running, start=2):
        kinds.append(engine.decide(now).kind)
        engine.complete(now, decision)
    assert kinds == ["idle", "idle", "idle"]
    assert engine.decide(5).kind == "dispatch"


def test_no_capacity_is_a_pause(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, capacity=0)
    request = engine.submit(0)
    assert told(engine.decide(100)) == IDLE
    assert engine.next_wakeup_ns() is None
    engine.set_capacity(200, 1)
    assert told(engine.decide(200)) == ("dispatch", "window", request)


# Flush


def test_a_flush_ends_the_window_of_what_is_queued(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    request = engine.submit(0)
    engine.flush(1)
    assert told(engine.decide(1)) == ("dispatch", "flush", request)


def test_a_flush_does_not_touch_what_comes_after(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50, capacity=2)
    engine.submit(0)
    engine.flush(1)
    engine.decide(1)
    engine.submit(2)
    assert told(engine.decide(2)) == ("wait", 52)


def test_a_flush_of_nothing_is_nothing(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    engine.flush(0)
    engine.submit(0)
    assert told(engine.decide(0)) == ("wait", 50)


def test_a_flush_lasts_until_the_last_of_its_requests_has_left(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50, max_batch_size=2, capacity=1)
    flushed = [engine.submit(0) for _ in range(3)]
    engine.flush(1)
    running = engine.decide(1)
    assert told(running) == ("dispatch", "full", *flushed[:2])
    engine.complete(2, running)
    assert told(engine.decide(2)) == ("dispatch", "flush", flushed[2])


def test_a_latecomer_with_a_better_priority_does_not_end_a_flush(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50 * MS, max_batch_size=2, capacity=2)
    flushed = engine.submit(0)
    engine.flush(1)
    urgent = [engine.submit(2, priority=-1), engine.submit(2, priority=-1)]
    assert told(engine.decide(2)) == ("dispatch", "full", *urgent)
    assert told(engine.decide(2)) == ("dispatch", "flush", flushed)


def test_cancelling_what_was_flushed_ends_the_flush(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    flushed = engine.submit(0)
    engine.flush(1)
    engine.submit(2)
    engine.cancel(2, flushed)
    assert told(engine.decide(2)) == ("wait", 52)


def test_the_expiry_of_what_was_flushed_ends_the_flush(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50, capacity=0)
    engine.submit(0, deadline_ns=10)
    engine.flush(1)
    engine.submit(2)
    engine.set_capacity(10, 1)
    assert told(engine.decide(10)) == ("wait", 52)


def test_an_immediate_engine_says_flush_while_it_flushes(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(0)
    engine.flush(0)
    assert told(engine.decide(0)) == ("dispatch", "flush", request)


# Closing


def test_a_closed_engine_takes_nothing_and_counts_nothing(make_engine: Make) -> None:
    engine = make_engine()
    engine.close(0)
    before = engine.stats()
    with pytest.raises(SchedulerClosed):
        engine.submit(1)
    with pytest.raises(SchedulerClosed):
        engine.submit(1, deadline_ns=0)
    assert engine.stats() == before


def test_what_was_accepted_before_the_close_leaves_without_waiting(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50, max_batch_size=2, capacity=2)
    requests = [engine.submit(0) for _ in range(3)]
    engine.close(1)
    assert told(engine.decide(1)) == ("dispatch", "full", *requests[:2])
    assert told(engine.decide(1)) == ("dispatch", "drain", requests[2])


def test_a_closed_engine_still_expires_and_cancels(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    late, unwanted = engine.submit(0, deadline_ns=5), engine.submit(0)
    engine.close(0)
    assert engine.decide(5).expired == (late,)
    assert engine.cancel(6, unwanted) is True
    assert told(engine.decide(6)) == IDLE


def test_a_closed_engine_completes_what_runs(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(0)
    running = engine.decide(0)
    engine.close(1)
    engine.complete(2, running)
    assert request.status == "completed"


def test_a_flush_is_named_before_a_drain(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    engine.submit(0)
    engine.flush(0)
    engine.close(0)
    assert engine.decide(0).reason == "flush"


def test_closing_twice_is_closing_once(make_engine: Make) -> None:
    engine = make_engine()
    engine.submit(0)
    engine.close(1)
    before = engine.stats()
    engine.close(2)
    assert engine.stats() == before
    assert engine.decide(2).reason == "drain"


# Completion


def test_a_completed_batch_counts_its_failures(make_engine: Make) -> None:
    engine = make_engine()
    for _ in range(5):
        engine.submit(0)
    decision = engine.decide(0)
    assert statuses(decision.batch) == ["running"] * 5
    assert engine.stats().running == 5
    engine.complete(7, decision, failed=2)
    stats = engine.stats()
    assert (stats.completed, stats.failed, stats.running, stats.in_flight_batches) == (3, 2, 0, 0)
    assert stats.last_progress_at_ns == 7


def test_the_last_of_a_batch_are_marked_as_failed(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=3, capacity=3)
    requests = [engine.submit(0) for _ in range(9)]
    for failed in (0, 2, 3):
        engine.complete(1, engine.decide(0), failed=failed)
    assert statuses(requests) == ["completed"] * 4 + ["failed"] * 5


def test_batches_may_end_in_any_order(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=1, capacity=2)
    requests = [engine.submit(0), engine.submit(0)]
    first, second = engine.decide(0), engine.decide(0)
    engine.complete(1, second)
    assert statuses(requests) == ["running", "completed"]
    engine.complete(2, first)
    assert statuses(requests) == ["completed", "completed"]


def test_a_batch_ends_once(make_engine: Make) -> None:
    engine = make_engine()
    engine.submit(0)
    decision = engine.decide(0)
    engine.complete(1, decision)
    before = engine.stats()
    with pytest.raises(ValueError, match=r"."):
        engine.complete(2, decision)
    assert engine.stats() == before


def test_only_a_dispatch_of_this_engine_can_be_completed(make_engine: Make) -> None:
    engine, other = make_engine(), make_engine()
    for each in (engine, other):
        each.submit(0)
    foreign = other.decide(0)
    engine.decide(0)
    for decision in (engine.decide(0), foreign):
        before = engine.stats(), other.stats()
        with pytest.raises(ValueError, match=r"."):
            engine.complete(1, decision)
        assert (engine.stats(), other.stats()) == before


def test_a_request_of_another_engine_is_not_cancelled(make_engine: Make) -> None:
    engine, other = make_engine(), make_engine()
    engine.submit(0)
    foreign = other.submit(0)
    before = engine.stats(), other.stats()
    assert engine.cancel(1, foreign) is False
    assert (engine.stats(), other.stats()) == before
    assert foreign.status == "queued"


def test_a_request_whose_engine_is_gone_is_not_cancelled_by_another() -> None:
    orphans = [Engine().submit(0) for _ in range(3)]
    for engine in [Engine() for _ in range(3)]:  # in the very places of those that are gone
        engine.submit(0)
        assert [engine.cancel(1, orphan) for orphan in orphans] == [False] * 3
        engine.check()


# Live changes


def test_a_smaller_batch_size_holds_for_what_is_queued(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    requests = [engine.submit(0) for _ in range(3)]
    assert told(engine.decide(0)) == ("wait", 50)
    engine.reconfigure(1, max_batch_size=2)
    assert told(engine.decide(1)) == ("dispatch", "full", *requests[:2])


def test_a_window_changes_for_what_is_queued(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50)
    engine.submit(10)
    engine.reconfigure(11, max_wait_ns=5)
    assert engine.next_wakeup_ns() == 15
    engine.reconfigure(12, max_wait_ns=500)
    assert engine.next_wakeup_ns() == 510


def test_the_policy_changes_live(make_engine: Make) -> None:
    engine = make_engine()
    engine.reconfigure(0, policy="fixed", max_wait_ns=5)
    request = engine.submit(0)
    assert told(engine.decide(0)) == ("wait", 5)
    engine.reconfigure(1, policy="immediate", max_wait_ns=None)
    assert told(engine.decide(1)) == ("dispatch", "idle_worker", request)
    stats = engine.stats()
    assert (stats.policy, stats.max_wait_ns) == ("immediate", None)


def test_a_smaller_queue_keeps_what_it_holds_and_rejects_the_rest(make_engine: Make) -> None:
    engine = make_engine(capacity=0)
    requests = [engine.submit(0) for _ in range(3)]
    engine.reconfigure(0, max_queue_size=2)
    with pytest.raises(QueueFull):
        engine.submit(0)
    assert statuses(requests) == ["queued"] * 3
    for request in requests[:2]:
        engine.cancel(0, request)
    assert engine.submit(0).status == "queued"


def test_what_is_not_named_stays(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_latency_ns=7, max_batch_size=3, max_queue_size=9)
    before = engine.stats()
    engine.reconfigure(0)
    assert engine.stats() == before
    engine.reconfigure(0, max_latency_ns=None)
    after = engine.stats()
    assert (after.max_latency_ns, after.max_wait_ns, after.max_batch_size, after.max_queue_size) == (None, 5, 3, 9)


def test_a_reconfiguration_happens_whole_or_not_at_all(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5)
    before = engine.stats()
    with pytest.raises(ValueError, match="max_queue_size"):
        engine.reconfigure(0, max_batch_size=2, max_wait_ns=6, max_latency_ns=7, policy="immediate", max_queue_size=0)
    assert engine.stats() == before


# The caps of the fixed policy


def test_before_the_first_completion_a_deadline_does_not_wait(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50 * MS)
    first = engine.submit(0)
    assert told(engine.decide(0)) == ("wait", 50 * MS)
    second = engine.submit(1, deadline_ns=1_000 * MS)
    assert told(engine.decide(1)) == ("dispatch", "deadline", first, second)


def test_before_the_first_completion_a_latency_target_does_not_wait(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50 * MS, max_latency_ns=1_000 * MS)
    request = engine.submit(3)
    assert told(engine.decide(3)) == ("dispatch", "latency", request)


def test_the_latency_cap_leaves_room_for_the_predicted_service(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100 * MS, max_latency_ns=50 * MS)
    now = learned(engine, 8 * MS)
    request = engine.submit(now)
    limit = now + 50 * MS - (10 * MS + 1 * MS)  # 8 ms and a quarter more, and one for the way
    assert told(engine.decide(now)) == ("wait", limit)
    assert told(engine.decide(limit)) == ("dispatch", "latency", request)


def test_a_latency_target_shorter_than_the_service_means_at_once(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100 * MS, max_latency_ns=5 * MS)
    now = learned(engine, 8 * MS)
    request = engine.submit(now)
    assert told(engine.decide(now)) == ("dispatch", "latency", request)


def test_a_window_shorter_than_the_latency_target_counts(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=20 * MS, max_latency_ns=50 * MS)
    now = learned(engine, 8 * MS)
    request = engine.submit(now)
    assert told(engine.decide(now)) == ("wait", now + 20 * MS)
    assert told(engine.decide(now + 20 * MS)) == ("dispatch", "window", request)


def test_the_deadline_cap_follows_the_earliest_deadline_of_all(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100 * MS, aging_ns=1_000 * MS)
    now = learned(engine, 8 * MS)
    served_first = engine.submit(now, deadline_ns=now + 60 * MS)
    served_last = engine.submit(now, deadline_ns=now + 40 * MS, priority=1)
    company = engine.predict_ns(3)  # the batch if one more comes
    assert company is not None
    limit = now + 40 * MS - (company + 1 * MS)
    assert told(engine.decide(now)) == ("wait", limit)
    assert told(engine.decide(limit)) == ("dispatch", "deadline", served_first, served_last)


def test_the_margin_grows_with_the_batch(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100 * MS, max_latency_ns=100 * MS, max_batch_size=64)
    now = learned(engine, 4 * MS)
    for _ in range(20):
        engine.submit(now)
    engine.flush(now)
    engine.complete(now + 80 * MS, engine.decide(now))  # 4 ms a request
    now += 80 * MS
    requests = [engine.submit(now) for _ in range(10)]
    limit = now + 100 * MS - (50 * MS + 1 * MS)
    decision = engine.decide(now)
    assert decision.wake_at_ns == pytest.approx(limit, abs=2)
    assert told(engine.decide(limit + 2)) == ("dispatch", "latency", *requests)


def test_when_limits_coincide_the_window_is_named_then_the_latency_then_the_deadline(make_engine: Make) -> None:
    reasons = []
    for max_wait, max_latency in ((19 * MS - 1, 20 * MS), (50 * MS, 20 * MS), (50 * MS, 21 * MS)):
        engine = make_engine(policy="fixed", max_wait_ns=max_wait, max_latency_ns=max_latency)
        learned(engine, 0)
        engine.submit(0, deadline_ns=20 * MS)
        assert told(engine.decide(0)) == ("wait", 19 * MS - 1)
        reasons.append(engine.decide(19 * MS).reason)
    assert reasons == ["window", "latency", "deadline"]


def test_without_prediction_latency_is_named_before_deadline_and_no_window_before_both(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=50, max_latency_ns=50 * MS)
    engine.submit(0, deadline_ns=20 * MS)
    assert engine.decide(0).reason == "latency"
    engine = make_engine(policy="fixed", max_wait_ns=0, max_latency_ns=50 * MS)
    engine.submit(0, deadline_ns=20 * MS)
    assert engine.decide(0).reason == "window"


def test_the_reason_is_the_limit_that_was_reached_first_however_late_we_look(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=100 * MS, max_latency_ns=50 * MS)
    learned(engine, 0)
    engine.submit(0)
    assert engine.decide(500 * MS).reason == "latency"


def test_an_immediate_engine_has_no_caps(make_engine: Make) -> None:
    engine = make_engine(max_latency_ns=50 * MS)
    engine.submit(0, deadline_ns=20 * MS)
    assert engine.decide(0).reason == "idle_worker"


# Time


def test_time_does_not_run_backwards(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5)
    engine.decide(10)
    request = engine.submit(4)
    assert request.arrival_ns == 10
    assert told(engine.decide(3)) == ("wait", 15)
    decision = engine.decide(15)
    engine.complete(2, decision)
    stats = engine.stats()
    assert stats.last_progress_at_ns == 15
    assert stats.service_ns.sum == 0
    assert engine.submit(0, deadline_ns=15).status == "expired"


def test_every_event_moves_the_clock(make_engine: Make) -> None:
    engine = make_engine(capacity=2)
    events: list[Callable[[int], object]] = [
        engine.submit,
        engine.decide,
        engine.flush,
        lambda now: engine.set_capacity(now, 1),
        lambda now: engine.reconfigure(now, max_batch_size=9),
        lambda now: engine.cancel(now, engine.submit(0)),
        lambda now: engine.complete(now, running),
        engine.close,
    ]
    engine.submit(0)
    running = engine.decide(0)
    seen = []
    for now, event in enumerate(events, start=1):
        event(now)
        seen.append(engine.decide(0).at_ns)
    assert seen == list(range(1, len(events) + 1))


def test_a_clock_may_start_below_zero(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5)
    request = engine.submit(-100, deadline_ns=MAX_DURATION_NS)
    assert request.arrival_ns == -100
    assert engine.decide(-100).reason == "deadline"


# Requests and statistics


def test_a_request_tells_what_it_was_submitted_with(make_engine: Make) -> None:
    engine = make_engine()
    request = engine.submit(3, priority=-2, deadline_ns=50)
    assert (request.status, request.arrival_ns, request.priority, request.deadline_ns) == ("queued", 3, -2, 50)
    assert engine.submit(4).deadline_ns is None


def test_a_request_cannot_be_written_to(make_engine: Make) -> None:
    request: Any = make_engine().submit(0)
    for name in ("status", "arrival_ns", "deadline_ns", "priority"):
        with pytest.raises(AttributeError):
            setattr(request, name, 0)


PLAIN_REASONS = ("full", "idle_worker", "window", "latency", "deadline", "flush", "drain")
"""Those that need no lesson; the others are in `test_adaptive.py`, `test_deadlines.py` and `test_custom.py`."""


def test_every_reason_is_counted(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=2, capacity=len(PLAIN_REASONS))
    assert engine.stats().batches_by_reason == dict.fromkeys(REASONS, 0)
    engine.submit(0)
    engine.submit(0)
    assert engine.decide(0).reason == "full"
    engine.submit(0)
    assert engine.decide(0).reason == "idle_worker"
    engine.submit(0)
    engine.flush(0)
    assert engine.decide(0).reason == "flush"
    engine.reconfigure(0, policy="fixed", max_wait_ns=0)
    engine.submit(0)
    assert engine.decide(0).reason == "window"
    engine.reconfigure(0, max_wait_ns=5)
    engine.submit(0, deadline_ns=1_000)
    assert engine.decide(0).reason == "deadline"
    engine.reconfigure(0, max_latency_ns=1_000)
    engine.submit(0)
    assert engine.decide(0).reason == "latency"
    engine.reconfigure(0, max_latency_ns=None)
    engine.submit(0)
    engine.close(0)
    assert engine.decide(0).reason == "drain"
    assert engine.stats().batches_by_reason == dict.fromkeys(REASONS, 0) | dict.fromkeys(PLAIN_REASONS, 1)
    assert engine.stats().batches == len(PLAIN_REASONS)


def test_histograms_count_up_to_and_with_their_bounds(make_engine: Make) -> None:
    engine = make_engine(batch_size_bounds=(1, 2, 4), delay_bounds_ns=(0, 10))
    for size in (1, 2, 3, 4, 5):
        for _ in range(size):
            engine.submit(0)
        engine.complete(0, engine.decide(0))
    engine.submit(0)
    engine.submit(1)
    engine.complete(22, engine.decide(11))
    stats = engine.stats()
    assert (stats.batch_size.bounds, stats.batch_size.counts, stats.batch_size.sum) == ((1, 2, 4), (1, 2, 2, 1), 17)
    assert (stats.queue_delay_ns.counts, stats.queue_delay_ns.sum) == ((15, 1, 1), 21)
    assert (stats.service_ns.counts, stats.service_ns.sum) == ((5, 0, 1), 11)


def test_a_sum_of_delays_outgrows_64_bits(make_engine: Make) -> None:
    engine = make_engine()
    for _ in range(10):
        engine.submit(0)
    engine.decide(2**61)
    assert engine.stats().queue_delay_ns.sum == 10 * 2**61


def test_the_bounds_of_batch_sizes_grow_with_the_batches(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=2, batch_size_bounds=(1, 2))
    engine.submit(0)
    engine.complete(0, engine.decide(0))
    engine.reconfigure(0, max_batch_size=4)
    for _ in range(4):
        engine.submit(0)
    engine.decide(0)
    histogram = engine.stats().batch_size
    assert (histogram.bounds, histogram.counts, histogram.sum) == ((1, 2, 4), (1, 0, 1, 0), 5)


def test_the_bounds_stay_where_a_new_one_would_falsify_what_was_counted(make_engine: Make) -> None:
    engine = make_engine(max_batch_size=4, batch_size_bounds=(1, 2))
    for _ in range(4):
        engine.submit(0)
    engine.decide(0)
    engine.reconfigure(0, max_batch_size=9)
    assert engine.stats().batch_size.bounds == (1, 2)


def test_a_fresh_engine_has_counted_nothing(make_engine: Make) -> None:
    stats = make_engine(max_batch_size=3, max_queue_size=7, capacity=2, max_latency_ns=9).stats()
    assert stats.submitted == stats.queued == stats.batches == stats.batch_size.count == 0
    assert stats.last_progress_at_ns is None
    assert (stats.capacity, stats.policy, stats.max_batch_size, stats.max_queue_size) == (2, "immediate", 3, 7)
    assert (stats.max_wait_ns, stats.max_latency_ns) == (None, 9)


# Bad options and arguments


class Indexable:
    """What numpy's integers are: no int, but with an `__index__`."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


NO_INTEGERS: list[Any] = [True, 1.0, "1", [1]]
NO_INTEGERS_OR_NONE: list[Any] = [*NO_INTEGERS, None]

LIMITS = {
    "max_batch_size": (1, MAX_BATCH_SIZE),
    "max_queue_size": (1, MAX_QUEUE_SIZE),
    "max_wait_ns": (0, MAX_DURATION_NS),
    "max_latency_ns": (0, MAX_DURATION_NS),
    "capacity": (0, MAX_CAPACITY),
    "aging_ns": (0, MAX_DURATION_NS // MAX_PRIORITY),
}
OPTIONAL = {"max_wait_ns", "max_latency_ns"}


def test_the_limits_are_what_the_documents_say() -> None:
    assert (MAX_BATCH_SIZE, MAX_QUEUE_SIZE, MAX_CAPACITY) == (1_048_576, 2**31 - 1, 4096)
    assert (MAX_DURATION_NS, MAX_PRIORITY) == (10**16, 1_000_000)


@pytest.mark.parametrize("name", LIMITS)
def test_an_option_at_its_limits_is_taken(name: str) -> None:
    for value in LIMITS[name]:
        Engine(**{name: value}).check()


@pytest.mark.parametrize("name", LIMITS)
def test_an_option_beyond_its_limits_is_refused_by_name(name: str) -> None:
    low, high = LIMITS[name]
    for value in (low - 1, high + 1, 2**63, -(2**63) - 1, 10**40):
        with pytest.raises(ValueError, match=name):
            Engine(**{name: value})


@pytest.mark.parametrize("name", LIMITS)
def test_an_option_of_the_wrong_type_is_refused_by_name(name: str) -> None:
    for value in NO_INTEGERS if name in OPTIONAL else NO_INTEGERS_OR_NONE:
        with pytest.raises(TypeError, match=name):
            Engine(**{name: value})


def test_what_has_an_index_is_an_integer() -> None:
    engine: Any = Engine(max_batch_size=Indexable(2), policy="fixed", max_wait_ns=Indexable(5))
    engine.submit(Indexable(3), priority=Indexable(-1), deadline_ns=Indexable(2))
    assert engine.submit(Indexable(3)).arrival_ns == 3
    assert told(engine.decide(Indexable(3))) == ("wait", 8)
    engine.set_capacity(Indexable(4), Indexable(2))
    assert engine.stats().capacity == 2


def test_a_policy_is_known_by_name() -> None:
    with pytest.raises(ValueError, match="fastest"):
        Engine(policy="fastest")


def test_a_fixed_policy_needs_a_wait(make_engine: Make) -> None:
    with pytest.raises(ValueError, match="max_wait"):
        Engine(policy="fixed")
    engine = make_engine()
    with pytest.raises(ValueError, match="max_wait"):
        engine.reconfigure(0, policy="fixed")
    engine = make_engine(policy="fixed", max_wait_ns=5)
    with pytest.raises(ValueError, match="max_wait"):
        engine.reconfigure(0, max_wait_ns=None)
    assert engine.stats().max_wait_ns == 5


@pytest.mark.parametrize("bounds", [(1, 1), (2, 1), (1, 2, 2)])
def test_the_bounds_of_a_histogram_increase(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="batch_size_bounds"):
        Engine(batch_size_bounds=bounds)
    with pytest.raises(ValueError, match="delay_bounds_ns"):
        Engine(delay_bounds_ns=bounds)


REFUSED: dict[str, tuple[type[Exception], Callable[[Any, Any], object]]] = {
    "submit, instant a text": (TypeError, lambda engine, _: engine.submit("99")),
    "submit, instant a float": (TypeError, lambda engine, _: engine.submit(99.0)),
    "submit, instant a bool": (TypeError, lambda engine, _: engine.submit(True)),
    "submit, instant beyond 64 bits": (ValueError, lambda engine, _: engine.submit(2**63)),
    "submit, deadline beyond 64 bits": (ValueError, lambda engine, _: engine.submit(99, deadline_ns=2**63 - 1)),
    "submit, priority a float": (TypeError, lambda engine, _: engine.submit(99, priority=1.0)),
    "submit, priority a bool": (TypeError, lambda engine, _: engine.submit(99, priority=True)),
    "submit, priority None": (TypeError, lambda engine, _: engine.submit(99, priority=None)),
    "submit, priority too low": (ValueError, lambda engine, _: engine.submit(99, priority=-MAX_PRIORITY - 1)),
    "submit, priority too high": (ValueError, lambda engine, _: engine.submit(99, priority=MAX_PRIORITY + 1)),
    "submit, priority enormous": (ValueError, lambda engine, _: engine.submit(99, priority=2**70)),
    "submit, late but priority wrong": (ValueError, lambda e, _: e.submit(99, deadline_ns=0, priority=2**40)),
    "submit, deadline a float": (TypeError, lambda engine, _: engine.submit(99, deadline_ns=1.0)),
    "submit, deadline a bool": (TypeError, lambda engine, _: engine.submit(99, deadline_ns=True)),
    "cancel, no request": (TypeError, lambda engine, _: engine.cancel(99, None)),
    "cancel, instant a text": (TypeError, lambda engine, _: engine.cancel("99", Request())),
    "decide, instant None": (TypeError, lambda engine, _: engine.decide(None)),
    "complete, no decision": (TypeError, lambda engine, _: engine.complete(99, None)),
    "complete, a wait": (ValueError, lambda engine, _: engine.complete(99, engine.decide(0))),
    "complete, too many failed": (ValueError, lambda engine, running: engine.complete(99, running, failed=2)),
    "complete, fewer than none failed": (ValueError, lambda engine, running: engine.complete(99, running, failed=-1)),
    "complete, failed a bool": (TypeError, lambda engine, running: engine.complete(99, running, failed=True)),
    "complete, instant a float": (TypeError, lambda engine, running: engine.complete(9.9, running)),
    "capacity negative": (ValueError, lambda engine, _: engine.set_capacity(99, -1)),
    "capacity too high": (ValueError, lambda engine, _: engine.set_capacity(99, MAX_CAPACITY + 1)),
    "capacity a bool": (TypeError, lambda engine, _: engine.set_capacity(99, True)),
    "capacity, instant a text": (TypeError, lambda engine, _: engine.set_capacity("99", 3)),
    "reconfigure, batch size 0": (ValueError, lambda engine, _: engine.reconfigure(99, max_batch_size=0)),
    "reconfigure, batch size None": (TypeError, lambda engine, _: engine.reconfigure(99, max_batch_size=None)),
    "reconfigure, batch size a bool": (TypeError, lambda engine, _: engine.reconfigure(99, max_batch_size=True)),
    "reconfigure, queue too large": (ValueError, lambda e, _: e.reconfigure(99, max_queue_size=MAX_QUEUE_SIZE + 1)),
    "reconfigure, wait negative": (ValueError, lambda engine, _: engine.reconfigure(99, max_wait_ns=-1)),
    "reconfigure, latency too long": (ValueError, lambda e, _: e.reconfigure(99, max_latency_ns=MAX_DURATION_NS + 1)),
    "reconfigure, unknown policy": (ValueError, lambda engine, _: engine.reconfigure(99, policy="fastest")),
    "reconfigure, unknown option": (TypeError, lambda engine, _: engine.reconfigure(99, max_size=3)),
    "reconfigure, first good then bad": (
        ValueError,
        lambda engine, _: engine.reconfigure(99, max_batch_size=1, max_queue_size=1, max_wait_ns=-1),
    ),
    "reconfigure, instant a bool": (TypeError, lambda engine, _: engine.reconfigure(True, max_batch_size=1)),
    "flush, instant None": (TypeError, lambda engine, _: engine.flush(None)),
    "close, instant None": (TypeError, lambda engine, _: engine.close(None)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_argument_changes_nothing(make_engine: Make, case: str) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_batch_size=8, capacity=2)
    engine.submit(0)
    running = engine.decide(5)
    engine.submit(6)
    before = engine.stats()
    error, call = REFUSED[case]
    with pytest.raises(error):
        call(engine, running)
    assert engine.stats() == before
    assert engine.next_wakeup_ns() == 11
    assert engine.decide(0).at_ns == 6  # nor did the clock move
    engine.complete(7, running)


def test_a_rejection_changes_nothing_but_its_counters(make_engine: Make) -> None:
    engine = make_engine(policy="fixed", max_wait_ns=5, max_queue_size=1)
    engine.submit(0)
    with pytest.raises(QueueFull):
        engine.submit(4)
    assert engine.next_wakeup_ns() == 5
    assert engine.decide(1).at_ns == 1
    stats = engine.stats()
    assert (stats.submitted, stats.rejected, stats.queued) == (2, 1, 1)
