"""`dedupe`: identical items that wait or run at the same time are computed once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gates import LIMIT_S, AsyncGate, Gate, LoopThread, SchedulerOf, doubled, in_thread, one_turn, run_loop, until
from pybatch import BatchError, DeadlineExceeded, QueueFull, SchedulerClosed, WouldDeadlock
from pybatch.fingerprints import fingerprint
from pybatch.testing import SteppingScheduler

Stepping = Callable[..., SteppingScheduler[Any, Any]]


def computed(scheduler: SteppingScheduler[Any, Any]) -> list[Any]:
    """Every item that `fn` was given."""
    return [item for batch in scheduler.batches for item in batch.items]


def test_identical_items_that_wait_are_computed_once(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    futures = [scheduler.submit(item) for item in (1, 2, 1, 1)]
    assert len(set(futures)) == 4
    scheduler.advance(0)
    assert [future.result() for future in futures] == [2, 4, 2, 2]
    assert computed(scheduler) == [1, 2]
    assert scheduler.stats().submitted == 2


def test_one_that_runs_is_joined_and_one_that_has_ended_is_not(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, service_ms=10)
    first = scheduler.submit(1)
    scheduler.advance(5)
    second = scheduler.submit(1)
    assert second.running()
    assert not second.cancel()
    scheduler.advance(5)
    assert (first.result(), second.result()) == (2, 2)
    third = scheduler.submit(1)
    assert not third.done()
    scheduler.advance(10)
    assert third.result() == 2
    assert computed(scheduler) == [1, 1]


def test_keys_keep_identical_items_apart(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    futures = [scheduler.submit(1, key=key) for key in ("a", "b", "a", None)]
    scheduler.advance(0)
    assert [future.result() for future in futures] == [2, 2, 2, 2]
    assert sorted(str(batch.key) for batch in scheduler.batches) == ["None", "a", "b"]


def test_a_function_says_what_is_identical(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=str.lower)
    futures = [scheduler.submit(item) for item in ("a", "A", "b")]
    scheduler.advance(0)
    assert [future.result() for future in futures] == ["aa", "aa", "bb"]


def test_map_call_and_submit_wait_share_as_well(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, dedupe=True)
    first = scheduler.submit(1)
    gate.wait_entered()
    called = in_thread(scheduler, 1)
    mapped = in_thread(lambda: list(scheduler.map([1, 1])))
    waited = in_thread(lambda: run_loop(wait_for(scheduler, 1)))
    assert not concurrent.futures.wait([called, mapped, waited], 0.05).done
    gate.open()
    assert (first.result(LIMIT_S), called.result(LIMIT_S), mapped.result(LIMIT_S), waited.result(LIMIT_S)) == (
        1,
        1,
        [1, 1],
        1,
    )
    assert gate.seen == [1]


async def wait_for(scheduler: Any, item: Any) -> Any:
    return await (await scheduler.submit_wait(item))


# --- who gives up


def test_one_caller_that_cancels_takes_nobody_along(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    first, second, third = (scheduler.submit(1) for _ in range(3))
    assert first.cancel()
    assert not second.done()
    assert scheduler.stats().queued == 1
    scheduler.advance(0)
    assert (second.result(), third.result()) == (2, 2)
    assert first.cancelled()


def test_the_last_caller_that_cancels_takes_the_request_along(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    futures = [scheduler.submit(1) for _ in range(3)]
    assert all(future.cancel() for future in futures)
    assert (scheduler.stats().queued, scheduler.stats().cancelled) == (0, 1)
    again = scheduler.submit(1)
    scheduler.advance(0)
    assert again.result() == 2
    assert all(future.cancelled() for future in futures)


def test_a_task_that_is_cancelled_takes_nobody_along(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, dedupe=True, max_batch_size=1)

    async def main() -> int:
        blocking = scheduler.submit(0)
        await gate.entered()
        tasks = [asyncio.ensure_future(awaited(scheduler.submit(1))) for _ in range(3)]
        await one_turn()
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        gate.open()
        await blocking
        return sum(await asyncio.gather(*tasks[1:]))

    assert run_loop(main()) == 2


async def awaited(future: Any) -> Any:
    return await future


def test_a_callback_that_cancels_the_others_comes_too_late(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    first, second = scheduler.submit(1), scheduler.submit(1)
    told: list[bool] = []
    first.add_done_callback(lambda _: told.append(second.cancel()))
    scheduler.advance(0)
    assert told == [False]
    assert second.result() == 2


def test_a_callback_that_asks_again_is_computed_again(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    again: list[Any] = []
    scheduler.submit(1).add_done_callback(lambda _: again.append(scheduler.submit(1)))
    scheduler.advance(0)
    assert again[0].result() == 2
    assert computed(scheduler) == [1, 1]


# --- urgency and deadlines


def test_a_more_urgent_caller_does_not_wait_for_a_less_urgent_request(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, max_batch_size=1, service_ms=10)
    lazy = scheduler.submit(1, priority=5)
    others = [scheduler.submit(item) for item in (2, 3)]
    urgent = scheduler.submit(1, priority=-5)
    scheduler.advance(10)
    assert urgent.result() == 2
    assert not lazy.done()
    scheduler.advance(30)
    assert [future.result() for future in (lazy, *others)] == [2, 4, 6]


def test_a_less_urgent_caller_has_the_answer_of_the_more_urgent(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True)
    futures = [scheduler.submit(1, priority=priority) for priority in (-1, 0, 7)]
    scheduler.advance(0)
    assert [future.result() for future in futures] == [2, 2, 2]
    assert computed(scheduler) == [1]


def test_what_runs_is_joined_however_urgent_the_caller_is(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, service_ms=10)
    scheduler.submit(1, priority=5)
    scheduler.advance(5)
    urgent = scheduler.submit(1, priority=-5, timeout_ms=50)
    scheduler.advance(5)
    assert urgent.result() == 2
    assert computed(scheduler) == [1]


def test_a_caller_without_time_fails_at_once_whatever_runs(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, service_ms=10)
    scheduler.submit(1)
    scheduler.advance(5)
    late = scheduler.submit(1, timeout_ms=0)
    assert isinstance(late.exception(), DeadlineExceeded)
    scheduler.submit(2, timeout_ms=1)
    later = scheduler.submit(2, timeout_ms=-1)
    assert isinstance(later.exception(), DeadlineExceeded)


def test_when_a_request_expires_who_has_more_time_is_computed_again(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, max_batch_size=1, service_ms=10)
    scheduler.submit(0)
    scheduler.advance(0)
    short = scheduler.submit(1, timeout_ms=5)
    long, endless = scheduler.submit(1, timeout_ms=100), scheduler.submit(1)
    assert scheduler.stats().queued == 1
    scheduler.advance(5)
    with pytest.raises(DeadlineExceeded, match="timeout_ms of 5"):
        short.result()
    assert not long.done()
    scheduler.advance(25)
    assert (long.result(), endless.result()) == (2, 2)
    assert computed(scheduler) == [0, 1]


def test_what_is_computed_again_weighs_what_it_weighed(stepping: Stepping) -> None:
    weights = [1, 8, 8, 8]
    scheduler = stepping(doubled, dedupe=True, service_ms=10, weight_fn=weights.__getitem__, max_batch_weight=9)
    scheduler.submit(0)
    scheduler.advance(0)
    scheduler.submit(1, timeout_ms=5)
    endless = scheduler.submit(1)
    scheduler.advance(5)
    others = [scheduler.submit(2), scheduler.submit(3)]
    scheduler.advance(100)
    assert [future.result() for future in (endless, *others)] == [2, 4, 6]
    assert [batch.items for batch in scheduler.batches] == [(0,), (1,), (2,), (3,)]


def test_what_cannot_be_computed_again_says_why(stepping: Stepping) -> None:
    for on_full in ("raise", "block"):
        scheduler = stepping(doubled, dedupe=True, max_batch_size=1, max_queue_size=1, service_ms=10, on_full=on_full)
        scheduler.submit(0)
        scheduler.advance(0)
        short = scheduler.submit(1, timeout_ms=5)
        endless = scheduler.submit(1)
        short.add_done_callback(lambda _, submit=scheduler.submit: submit(2))  # takes its place first
        scheduler.advance(5)
        assert isinstance(short.exception(), DeadlineExceeded)
        assert isinstance(endless.exception(), QueueFull), on_full
        scheduler.advance(100)
        assert computed(scheduler) == [0, 2]


def test_no_worker_sleeps_for_room_that_it_would_have_to_make(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, dedupe=True, max_batch_size=1, max_queue_size=1, on_full="block")
    scheduler.submit(0)
    gate.wait_entered()
    short = scheduler.submit(1, timeout_ms=5)
    endless = scheduler.submit(1)
    short.add_done_callback(lambda _: in_thread(scheduler.submit, 2).result(LIMIT_S))
    assert isinstance(short.exception(LIMIT_S), DeadlineExceeded)
    assert isinstance(endless.exception(LIMIT_S), QueueFull)
    gate.open()


def test_a_scheduler_that_is_shut_down_answers_those_too_who_have_more_time(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, max_batch_size=1, service_ms=10)
    scheduler.submit(0)
    scheduler.advance(0)
    short, endless = scheduler.submit(1, timeout_ms=5), scheduler.submit(1)
    scheduler.shutdown()
    assert isinstance(short.exception(), DeadlineExceeded)
    assert isinstance(endless.exception(), SchedulerClosed)


def test_drain_waits_for_what_is_computed_again(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, max_batch_size=1, service_ms=10)
    scheduler.submit(0)
    scheduler.advance(0)
    short, endless = scheduler.submit(1, timeout_ms=5), scheduler.submit(1)
    assert scheduler.drain()
    assert isinstance(short.exception(), DeadlineExceeded)
    assert endless.result() == 2


def test_after_shutdown_nobody_joins(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, service_ms=10)
    first = scheduler.submit(1)
    scheduler.advance(5)
    scheduler.shutdown(wait=False)
    with pytest.raises(SchedulerClosed):
        scheduler.submit(1)
    scheduler.advance(5)
    assert first.result() == 2


# --- errors


class Refusal(Exception):
    pass


@pytest.mark.parametrize("whole", [False, True])
def test_an_error_reaches_all_who_share_it(stepping: Stepping, whole: bool) -> None:
    error = Refusal()

    def refuse(items: list[Any]) -> list[Any]:
        if whole:
            raise error
        return [error for _ in items]

    scheduler = stepping(refuse, dedupe=True)
    futures = [scheduler.submit(1) for _ in range(3)]
    scheduler.advance(0)
    assert [future.exception() for future in futures] == [error] * 3
    assert scheduler.stats().failed == 1


def test_a_function_that_raises_changes_nothing(stepping: Stepping) -> None:
    def refuse(item: Any) -> Any:
        raise Refusal

    scheduler = stepping(doubled, dedupe=refuse)
    with pytest.raises(Refusal):
        scheduler.submit(1)
    assert scheduler.stats().submitted == 0


def test_a_full_queue_refuses_what_is_new_and_takes_what_is_there(stepping: Stepping) -> None:
    scheduler = stepping(doubled, dedupe=True, max_queue_size=1)
    first = scheduler.submit(1)
    with pytest.raises(QueueFull, match="1 of 1"):
        scheduler.submit(2)
    second = scheduler.submit(1)
    scheduler.advance(0)
    assert (first.result(), second.result()) == (2, 2)
    assert scheduler.stats().rejected == 1


def test_a_submit_that_waits_for_room_gets_it(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, dedupe=True, max_batch_size=1, max_queue_size=1, on_full="block")
    running = scheduler.submit(0)
    gate.wait_entered()
    queued = scheduler.submit(1)
    assert scheduler.submit(1) is not queued  # needs no room
    waiting = [in_thread(lambda: scheduler.submit(2).result(LIMIT_S)) for _ in range(3)]
    assert not concurrent.futures.wait(waiting, 0.05).done
    gate.open()
    assert [future.result(LIMIT_S) for future in waiting] == [2, 2, 2]
    assert (running.result(LIMIT_S), queued.result(LIMIT_S)) == (0, 1)


def test_fn_that_waits_for_what_it_computes_is_refused(scheduler_of: SchedulerOf) -> None:
    futures: list[Any] = []
    ready = threading.Event()

    def compute(items: list[int]) -> list[int]:
        assert ready.wait(LIMIT_S)
        futures.append(scheduler.submit(1))
        for future in futures:
            with pytest.raises(WouldDeadlock, match="the batch that it is computing"):
                future.result(LIMIT_S)
        return items

    scheduler = scheduler_of(compute, dedupe=True)
    futures += [scheduler.submit(1), scheduler.submit(1)]
    ready.set()
    assert [future.result(LIMIT_S) for future in list(futures)] == [1, 1]
    assert [future.result(LIMIT_S) for future in futures] == [1, 1, 1]


def test_callers_on_several_loops_and_threads_share_one_computation(scheduler_of: SchedulerOf) -> None:
    gate = Gate()
    scheduler = scheduler_of(gate.hold, dedupe=True)
    first = scheduler.submit("item")
    gate.wait_entered()
    with LoopThread() as one, LoopThread() as other:
        waiting = [loop.start(wait_for(scheduler, "item")) for loop in (one, other) for _ in range(5)]
        waiting += [in_thread(scheduler, "item") for _ in range(5)]
        assert not concurrent.futures.wait(waiting, 0.05).done
        gate.open()
        assert [future.result(LIMIT_S) for future in [first, *waiting]] == ["item"] * 16
    assert gate.seen == ["item"]


# --- what is identical


@dataclasses.dataclass
class Sentence:
    ids: Any
    mask: Any


class Token:
    """Hashable, but by its identity."""


IDENTICAL: dict[str, Callable[[], Any]] = {
    "number": lambda: 12345678,
    "float": lambda: 0.1 + 0.2,
    "nan": lambda: float("nan"),
    "none": lambda: None,
    "text": lambda: "".join(["a", "b"]),
    "bytes": lambda: bytes([1, 2]),
    "array": lambda: np.arange(6).reshape(2, 3),
    "array, not in order": lambda: np.arange(6).reshape(2, 3).T,
    "scalar": lambda: np.float32(1.5),
    "list": lambda: [1, [2, 3]],
    "dict": lambda: {"ids": np.arange(3), "text": "a"},
    "dataclass": lambda: Sentence(np.arange(3), [1, 1, 1]),
}

DIFFERENT: dict[str, tuple[Any, Any]] = {
    "kinds of numbers": (1, 1.0),
    "truth": (1, True),
    "signs of zero": (0.0, -0.0),
    "kinds of sequences": ([1, 2], (1, 2)),
    "nested kinds": ([1, 2], [1, 2.0]),
    "dtypes": (np.zeros(2, np.int64), np.zeros(2, np.float64)),
    "byte orders": (np.zeros(2, "<i4"), np.zeros(2, ">i4")),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "contents": (np.array([1, 2]), np.array([1, 3])),
    "numbers and arrays": (1.0, np.float64(1.0)),
    "names": ({"a": 1}, {"b": 1}),
    "kinds of names": ({1: 1}, {1.0: 1}),
}


@pytest.mark.parametrize("name", IDENTICAL)
def test_what_is_equal_in_kind_and_content_is_identical(stepping: Stepping, name: str) -> None:
    scheduler = stepping(list, dedupe=True)
    scheduler.submit(IDENTICAL[name]())
    scheduler.submit(IDENTICAL[name]())
    assert scheduler.stats().queued == 1


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_in_kind_or_content_is_not(stepping: Stepping, name: str) -> None:
    scheduler = stepping(list, dedupe=True)
    one, other = DIFFERENT[name]
    scheduler.submit(one)
    scheduler.submit(other)
    assert scheduler.stats().queued == 2


def test_objects_are_identical_to_themselves(stepping: Stepping) -> None:
    scheduler = stepping(list, dedupe=True)
    one, other = Token(), Token()
    for item in (one, other, one):
        scheduler.submit(item)
    assert scheduler.stats().queued == 2


@pytest.mark.parametrize(
    "item", [{1, 2}, bytearray(b"ab"), [set()], np.array([object()], object), np.ma.array([1, 2], mask=[0, 1])]
)
def test_what_cannot_be_compared_is_refused_with_a_remedy(stepping: Stepping, item: Any) -> None:
    scheduler = stepping(list, dedupe=True)
    with pytest.raises(TypeError, match=r"cannot compare items of type .*give dedupe a function"):
        scheduler.submit(item)
    assert scheduler.stats().submitted == 0


def test_what_a_function_makes_must_be_hashable_and_so_must_a_key(stepping: Stepping) -> None:
    scheduler = stepping(list, dedupe=lambda item: [item])
    with pytest.raises(TypeError, match=r"dedupe makes \[1\] of the item, which is not hashable"):
        scheduler.submit(1)
    scheduler = stepping(list, dedupe=True)
    with pytest.raises(TypeError, match=r"key must be hashable.*not \['a'\]"):
        scheduler.submit(1, key=["a"])
    assert scheduler.stats().submitted == 0


def test_arrays_are_deduplicated_before_they_are_stacked(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch * 2, dedupe=True, batch_as="stack")
    row = np.arange(4.0)
    futures = [scheduler.submit(row.copy()) for _ in range(3)] + [scheduler.submit(row + 1)]
    scheduler.advance(0)
    for future in futures[:3]:
        np.testing.assert_array_equal(future.result(), row * 2)
    np.testing.assert_array_equal(futures[3].result(), row * 2 + 2)
    assert scheduler.stats().completed == 2


class Moody:
    """An id that raises once it is told to."""

    sour = False

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        if Moody.sour:
            raise Refusal("hash")
        return 1

    def __eq__(self, other: object) -> bool:
        if Moody.sour:
            raise Refusal("eq")
        return isinstance(other, Moody) and self.value == other.value


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("end", ["answer", "cancel", "expire"])
def test_an_id_that_cannot_be_found_again_keeps_nobody_waiting(
    stepping: Stepping, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    scheduler = stepping(doubled, dedupe=Moody)
    futures = [scheduler.submit(item, timeout_ms=5 if end == "expire" else None) for item in (1, 1, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(Moody, "sour", True)
        if end == "cancel":
            assert all(future.cancel() for future in futures)
        else:
            scheduler.advance(0 if end == "answer" else 5)
        assert all(future.done() for future in futures)
    again = scheduler.submit(1)
    scheduler.advance(0)
    assert again.result() == 2


def test_a_caller_that_joins_while_the_last_one_leaves_is_not_cancelled_with_it(stepping: Stepping) -> None:
    joined: list[Any] = []

    class Nosy:
        def __init__(self, value: Any) -> None:
            self.value = value

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            if leaving:
                leaving.clear()
                joined.append(scheduler.submit(1))
            return isinstance(other, Nosy) and self.value == other.value

    leaving: list[bool] = []
    scheduler = stepping(doubled, dedupe=Nosy)
    scheduler.submit(0)  # which is found first where the other is looked for
    first = scheduler.submit(1)
    leaving.append(True)
    assert first.cancel()
    scheduler.advance(0)
    assert joined[0].result() == 2


def test_a_storm_of_cancels_loses_nobody(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled, dedupe=True, max_batch_size=4, max_concurrent_batches=2, max_queue_size=50)

    def ask(seed: int) -> None:
        for turn in range(1500):
            item = (seed * turn) % 7
            try:
                if turn % 5 == 0:
                    future = scheduler.submit_batch([item] * 3, timeout_ms=(None, 0.05)[turn % 2])
                    expected: Any = [2 * item] * 3
                else:
                    future = scheduler.submit(item, timeout_ms=(None, 0.1, 5)[turn % 3], priority=turn % 3)
                    expected = 2 * item
            except QueueFull:
                continue
            if turn % 3 == 0:
                future.cancel()
            with contextlib.suppress(concurrent.futures.CancelledError, BatchError):
                assert future.result(LIMIT_S) == expected

    asking = [in_thread(ask, seed) for seed in range(1, 6)]
    for each in asking:
        each.result(LIMIT_S)
    assert scheduler.drain(LIMIT_S)
    until(lambda: (scheduler.stats().queued, scheduler.stats().running) == (0, 0))


def test_a_fingerprint_names_the_type_that_it_cannot_compare() -> None:
    with pytest.raises(TypeError, match="items of type set"):
        fingerprint({"a": [set()]})
