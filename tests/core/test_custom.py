"""Policies of one's own, in Python: what they are shown, what they may answer, and what happens if they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from batchcore.custom import View
from batchcore.engine import MAX_BATCH_SIZE, Engine
from batchcore.errors import QueueFull
from batchcore.records import Drop, Wait

MS = 1_000_000

Make = Callable[..., Engine]


class Scripted:
    """Answers what it was given, one after another, and then never anything but Wait."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked_at: list[int] = []
        self.ended: list[tuple[int, int, int]] = []

    def decide(self, view: View) -> Any:
        self.asked_at.append(view.now_ns)
        answer = self.answers.pop(0) if self.answers else Wait()
        return answer(view) if callable(answer) else answer

    def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
        self.ended.append((now_ns, batch_size, service_ns))


# Answers


def test_a_number_dispatches_so_many_of_the_soonest(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(2))
    requests = [engine.submit(0, priority=priority) for priority in (1, 0, 0)]
    decision = engine.decide(0)
    assert (decision.kind, decision.reason, decision.batch) == ("dispatch", "chosen", tuple(requests[1:]))
    assert engine.stats().batches_by_reason["chosen"] == 1


@pytest.mark.parametrize(("answer", "taken"), [(3, 3), (9, 4), (10**30, 4)])
def test_a_number_is_cut_to_what_is_queued_and_to_the_batch_size(make_engine: Make, answer: int, taken: int) -> None:
    engine = make_engine(policy=lambda view: answer, max_batch_size=4)
    for _ in range(6):
        engine.submit(0)
    assert len(engine.decide(0).batch) == taken


def test_a_wait_ends_at_its_instant_and_is_asked_about_then(make_engine: Make) -> None:
    policy = Scripted(Wait(50), 1)
    engine = make_engine(policy=policy)
    request = engine.submit(0)
    assert engine.decide(0).wake_at_ns == 50
    assert engine.decide(49).wake_at_ns == 50
    assert policy.asked_at == [0]
    assert engine.decide(50).batch == (request,)
    assert policy.asked_at == [0, 50]


def test_a_wait_without_an_instant_lasts_until_an_event(make_engine: Make) -> None:
    policy = Scripted(Wait(), 2)
    engine = make_engine(policy=policy)
    engine.submit(0)
    assert engine.decide(0).kind == "idle"
    assert engine.next_wakeup_ns() is None
    engine.submit(7)
    wake = engine.next_wakeup_ns()
    assert wake is not None
    assert wake <= 7
    assert len(engine.decide(7).batch) == 2
    assert policy.asked_at == [0, 7]


def test_a_policy_is_asked_only_when_it_has_a_choice(make_engine: Make) -> None:
    policy = Scripted(1)
    engine = make_engine(policy=policy)
    engine.decide(0)
    engine.submit(1)
    running = engine.decide(1)
    engine.submit(2)
    engine.decide(2)
    assert policy.asked_at == [1]
    engine.complete(3, running)
    engine.decide(3)
    assert policy.asked_at == [1, 3]


def test_a_drop_fails_the_soonest_and_asks_again(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(Drop(2), 1))
    requests = [engine.submit(0) for _ in range(4)]
    decision = engine.decide(0)
    assert (decision.expired, decision.batch) == (tuple(requests[:2]), (requests[2],))
    assert engine.stats().expired == 2


def test_a_drop_of_more_than_there_are_drops_all(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(Drop(10**30)))
    requests = [engine.submit(0) for _ in range(2)]
    decision = engine.decide(0)
    assert (decision.kind, decision.expired) == ("idle", tuple(requests))


def test_a_flush_and_a_drain_do_not_ask(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(), capacity=3)
    engine.submit(0)
    engine.flush(0)
    assert engine.decide(0).reason == "flush"
    engine.submit(0)
    engine.close(0)
    assert engine.decide(0).reason == "drain"


def test_a_deadline_ends_the_wait_of_a_policy(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(), cost_model=[(1, 5 * MS), (2, 5 * MS)])
    requests = [engine.submit(0, deadline_ns=20 * MS) for _ in range(2)]
    wake = engine.decide(0).wake_at_ns
    assert wake is not None
    assert 13 * MS < wake < 15 * MS
    decision = engine.decide(wake)
    assert (decision.reason, decision.batch) == ("deadline", tuple(requests))


# What it is shown


def test_a_view_tells_what_is_going_on(make_engine: Make) -> None:
    seen: list[Any] = []

    def look(view: View) -> Wait:
        names = [name for name in dir(View) if not name.startswith("_")]
        shown = {name: getattr(view, name) for name in names}
        calls = ("predict_ns", "deadlines", "arrivals", "busy_until_ns")
        seen.append({name: value for name, value in shown.items() if name not in calls})
        seen.append((view.predict_ns(1), view.deadlines(9), view.arrivals(2), view.arrivals(0), view.busy_until_ns()))
        return Wait()

    engine = make_engine(policy="immediate", capacity=2, max_wait_ns=7, cost_model=[(1, 10)])
    engine.submit(0)
    engine.decide(0)
    engine.reconfigure(1, policy=look)
    engine.submit(1, priority=1)
    engine.submit(2, deadline_ns=MS * 9)
    engine.decide(3)
    rate = seen[0].pop("arrivals_per_second")
    assert rate > 0
    assert seen[0] == {
        "key": None,
        "now_ns": 3,
        "queued": 2,
        "running": 1,
        "in_flight": 1,
        "capacity": 2,
        "max_batch_size": 32,
        "max_wait_ns": 7,
        "max_latency_ns": None,
        "oldest_arrival_ns": 1,
        "newest_arrival_ns": 2,
        "earliest_deadline_ns": 9 * MS,
        "last_completion_ns": None,
    }
    assert seen[1] == (10, [9 * MS, None], [2, 1], [], [10])


def test_a_view_is_valid_only_inside_the_call(make_engine: Make) -> None:
    views: list[View] = []

    def keep(view: View) -> int:
        views.append(view)
        return 1

    engine = make_engine(policy=keep, cost_model=[(1, 5)])
    engine.submit(0)
    engine.decide(0)
    assert views[0].queued == 1
    for call in (lambda v: v.predict_ns(1), lambda v: v.deadlines(1), lambda v: v.arrivals(1), View.busy_until_ns):
        with pytest.raises(RuntimeError, match="View"):
            call(views[0])


@pytest.mark.parametrize("size", [0, -1, MAX_BATCH_SIZE + 1, 10**12])
def test_a_view_predicts_for_batches_that_can_be(make_engine: Make, size: int) -> None:
    engine = make_engine(policy=lambda view: view.predict_ns(size), cost_model=[(1, 5)])
    engine.submit(0)
    with pytest.raises(ValueError, match=str(size)):
        engine.decide(0)


def test_a_policy_hears_of_completions(make_engine: Make) -> None:
    policy = Scripted(2)
    engine = make_engine(policy=policy)
    engine.submit(0)
    engine.submit(3)
    engine.complete(9, engine.decide(4))
    assert policy.ended == [(9, 2, 5)]


def test_a_policy_is_known_by_the_name_of_its_class_or_function(make_engine: Make) -> None:
    def take_all(view: View) -> int:
        return view.queued

    engine = make_engine(policy=take_all)
    assert engine.stats().policy == "take_all"
    engine.reconfigure(0, policy=Scripted())
    assert engine.stats().policy == "Scripted"
    engine.reconfigure(0, policy="fixed", max_wait_ns=5)
    assert engine.stats().policy == "fixed"


# What goes wrong


class Mistake(Exception):
    pass


def fail(view: View) -> int:
    raise Mistake


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (fail, Mistake),
        (0, ValueError),
        (-3, ValueError),
        (True, TypeError),
        (None, TypeError),
        (1.5, TypeError),
        ("all", TypeError),
        (Wait(10), ValueError),
        (Wait(-5), ValueError),
        (Wait("soon"), TypeError),  # type: ignore[arg-type]
        (Drop(0), ValueError),
        (Drop("all"), TypeError),  # type: ignore[arg-type]
        (Drop(1.5), TypeError),  # type: ignore[arg-type]
    ],
)
def test_a_policy_that_fails_is_heard_and_changes_nothing(make_engine: Make, answer: Any, error: type) -> None:
    engine = make_engine(policy=Scripted(answer, 1))
    request = engine.submit(10)
    before = engine.stats()
    with pytest.raises(error):
        engine.decide(10)
    engine.check()
    assert engine.stats() == before
    assert engine.decide(10).batch == (request,)


def test_what_expired_before_a_policy_failed_is_told_by_the_next_decision(make_engine: Make) -> None:
    engine = make_engine(policy=Scripted(Drop(1), fail, 1))
    late = engine.submit(0, deadline_ns=5)
    dropped, taken = engine.submit(0), engine.submit(0)
    with pytest.raises(Mistake):
        engine.decide(5)
    decision = engine.decide(6)
    assert (decision.expired, decision.batch) == ((late, dropped), (taken,))
    assert engine.decide(7).expired == ()


def test_a_policy_that_fails_to_hear_of_a_completion_does_not_undo_it(make_engine: Make) -> None:
    policy = Scripted(1)
    policy.completed = fail  # type: ignore[assignment]
    engine = make_engine(policy=policy)
    request = engine.submit(0)
    running = engine.decide(0)
    with pytest.raises(TypeError):
        engine.complete(9, running)
    assert request.status == "completed"
    assert engine.stats().completed == 1


def test_what_a_policy_changes_while_it_is_asked_counts(make_engine: Make) -> None:
    def shrink(view: View) -> int:
        engine.reconfigure(0, max_batch_size=1)
        return 3

    def cancel(view: View) -> Wait:
        engine.cancel(0, requests.pop())
        return Wait(10)

    engine = make_engine(policy=Scripted(shrink, cancel, cancel), max_batch_size=8, capacity=2)
    requests = [engine.submit(0) for _ in range(4)]
    assert len(engine.decide(0).batch) == 1
    assert engine.decide(0).kind == "idle"  # waits that were decided before an event are void: asked three times
    assert engine.stats().queued == 1


def test_no_policy_is_refused(make_engine: Make) -> None:
    for policy in ("fastest", None, 5, Scripted, object()):
        with pytest.raises(ValueError, match="policy"):
            Engine(policy=policy)
    engine = make_engine(policy=Scripted(), max_queue_size=1)
    engine.submit(0)
    with pytest.raises(QueueFull):
        engine.submit(0)
