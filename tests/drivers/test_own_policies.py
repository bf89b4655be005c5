"""Policies in Python under a live scheduler: asked when promised, by one thread at a time, and harmless when wrong."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gates import LIMIT_S, MOMENT_S, Gate, SchedulerOf, in_thread, same
from pybatch import DeadlineExceeded, WouldDeadlock
from pybatch.policies import Drop, Policy, View, Wait
from pybatch.testing import SteppingScheduler


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would be printed because nobody could be told."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda report: found.append(report.exc_value))
    return found


def test_a_cancellation_has_the_policy_asked_again(scheduler_of: SchedulerOf) -> None:
    asked_of_three = threading.Event()

    def all_but_three(view: View) -> int | Wait:
        if view.queued == 3:
            asked_of_three.set()
        return view.queued if view.queued == 2 and asked_of_three.is_set() else Wait()

    scheduler = scheduler_of(same, policy=all_but_three)
    futures = [scheduler.submit(item) for item in range(3)]
    assert asked_of_three.wait(LIMIT_S)
    assert not any(future.done() for future in futures)
    assert futures[0].cancel()
    assert [future.result(LIMIT_S) for future in futures[1:]] == [1, 2]


@pytest.mark.parametrize("workers", [1, 4])
def test_a_policy_is_asked_by_one_thread_at_a_time_and_obeyed_to_the_letter(
    scheduler_of: SchedulerOf, workers: int
) -> None:
    asking = threading.Lock()
    collisions = 0

    def even(view: View) -> int | Wait:
        nonlocal collisions
        if not asking.acquire(blocking=False):
            collisions += 1
            return 1
        try:
            view.deadlines(8)
            return view.queued - view.queued % 2 or Wait()
        finally:
            asking.release()

    sizes: list[int] = []

    def fn(items: list[int]) -> list[int]:
        sizes.append(len(items))
        return items

    scheduler = scheduler_of(fn, policy=even, max_concurrent_batches=workers, timeout_ms=60_000)

    def call() -> list[int]:
        pairs = [scheduler.submit_many([n, -n]) for n in range(300)]
        return [future.result(LIMIT_S) for pair in pairs for future in pair]

    answers = [in_thread(call) for _ in range(4)]
    for answer in answers:
        assert answer.result(LIMIT_S) == [sign * n for n in range(300) for sign in (1, -1)]
    assert collisions == 0
    assert sum(sizes) == 2400
    assert all(size % 2 == 0 for size in sizes)


def test_waiting_for_its_own_scheduler_inside_a_policy_is_refused(
    scheduler_of: SchedulerOf, reports: list[Any]
) -> None:
    scheduler = scheduler_of(same, policy=lambda view: view.queued if scheduler("mine") else 1)
    assert scheduler.submit("yours").result(LIMIT_S) == "yours"
    assert any(isinstance(report, WouldDeadlock) for report in reports)


@pytest.mark.parametrize("answer", [0, True, None, "all", Wait(5), Drop(0), ZeroDivisionError()])
def test_no_request_pays_for_a_mistake_in_a_policy(scheduler_of: SchedulerOf, reports: list[Any], answer: Any) -> None:
    def mistaken(view: View) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    scheduler = scheduler_of(same, policy=mistaken)
    assert [scheduler(item) for item in range(3)] == [0, 1, 2]
    assert reports


def test_who_is_given_up_without_a_timeout_is_told_so(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, policy=lambda view: Drop(1))
    with pytest.raises(DeadlineExceeded, match="given up by the scheduler's policy"):
        scheduler.submit(1).result(LIMIT_S)


def test_only_a_policy_object_hears_of_completions_and_only_after_the_answers(scheduler_of: SchedulerOf) -> None:
    heard: list[tuple[int, bool]] = []

    class Hearing(Policy):
        def decide(self, view: View) -> int:
            return view.queued

        def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
            heard.append((batch_size, future.done()))
            done.set()

    done = threading.Event()
    gate = Gate()
    scheduler = scheduler_of(gate.hold, policy=Hearing())
    future = scheduler.submit(1)
    gate.open()
    assert done.wait(LIMIT_S)
    assert heard == [(1, True)]

    class Service:
        completed = "an attribute of its own"

        def choose(self, view: View) -> int:
            return view.queued

    assert scheduler_of(same, policy=Service().choose)(1) == 1


def test_a_function_may_be_called_like_a_policy_of_ours(scheduler_of: SchedulerOf) -> None:
    def fixed(view: View) -> int:
        return view.queued

    scheduler = scheduler_of(same, policy=fixed)
    scheduler.reconfigure(max_batch_size=4)
    assert (scheduler(1), scheduler.stats().policy) == (1, "fixed")


def test_an_async_policy_is_refused(scheduler_of: SchedulerOf) -> None:
    async def later(view: View) -> int:
        return view.queued

    with pytest.raises(TypeError, match="async"):
        scheduler_of(same, policy=later)


def test_a_wait_without_end_is_ended_by_a_flush(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, policy=lambda view: Wait())
    future = scheduler.submit(1)
    with pytest.raises(TimeoutError):
        future.result(MOMENT_S)
    scheduler.flush()
    assert future.result(LIMIT_S) == 1


def test_costs_that_were_learned_can_be_given_to_the_next(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    for item in range(100):
        scheduler(item)
    known = scheduler.cost_model()
    assert known[0][1] > 0
    assert scheduler_of(same, cost_model=known).estimate() is not None


def test_a_recording_that_is_forgotten_says_so_and_is_in_nobodys_way(scheduler_of: SchedulerOf, tmp_path: Path) -> None:
    scheduler = scheduler_of(same)
    recording = scheduler.record(tmp_path / "lost.csv")
    with pytest.raises(ValueError, match="being recorded already"):
        scheduler.record(tmp_path / "other.csv")
    with pytest.warns(ResourceWarning, match=r"lost\.csv was never stopped"):
        del recording  # which ends it here
    with scheduler.record(tmp_path / "other.csv"):
        scheduler(1)
    assert (tmp_path / "other.csv").read_text().splitlines()[0] == "arrival_ms,timeout_ms,priority"
    for bad, why in (
        (tmp_path, "must end in"),
        (tmp_path / "no" / "x.csv", "no directory"),
        (tmp_path / "x.txt", "must"),
    ):
        with pytest.raises(ValueError, match=why):
            scheduler.record(bad)


def test_who_is_told_of_an_expiry_may_change_the_policy(
    stepping: Callable[..., SteppingScheduler[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the machine's wish that the policy be asked, and the question."""
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    scheduler = stepping(policy=lambda view: Wait(None))
    late = scheduler.submit("late", timeout_ms=5)
    other = scheduler.submit("other")
    late.add_done_callback(lambda _: scheduler.reconfigure(policy="fixed", max_wait_ms=1000))
    scheduler.advance(5)
    assert isinstance(late.exception(0), DeadlineExceeded)
    assert complaints == []
    scheduler.advance(994)
    assert not other.done()  # the window of `fixed` is open
    scheduler.advance(1)
    assert other.result(0) == "other"
