"""Whatever the batch function does, each caller is told and the scheduler lives on."""

from __future__ import annotations

import asyncio
import functools
import re
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from gates import LIMIT_S, AsyncGate, Gate, SchedulerOf, doubled, doubled_async, one_turn, run_loop, same
from pybatch import BatchAborted, BatchError, BatchSizeMismatch, Future, InvalidBatchResult


class Refusal(Exception):
    """What a batch function of these tests raises."""


def one_batch(scheduler_of: SchedulerOf, fn: Callable[..., Any], size: int = 3, **options: Any) -> list[Future[Any]]:
    """Run one batch of that size, by `fn`, and return its done futures; then see that the next batch is computed."""
    calls = 0

    @functools.wraps(fn)
    def first_time(items: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        return fn(items) if calls == 1 else list(items)

    scheduler = scheduler_of(first_time, max_batch_size=size, policy="fixed", max_wait_ms=3_600_000, **options)
    futures = scheduler.submit_many(range(size))
    for future in futures:
        future.exception(LIMIT_S)
    after = scheduler.submit_many(range(size))
    assert [future.result(LIMIT_S) for future in after] == list(range(size))
    return futures


def one_async_batch(scheduler_of: SchedulerOf, fn: Callable[[list[Any]], Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run one batch of three by an ``async def`` on this loop; return what its callers were told."""
    calls = 0

    async def first_time(items: list[Any]) -> Any:
        nonlocal calls
        calls += 1
        return await fn(items) if calls == 1 else list(items)

    async def main() -> list[Any]:
        scheduler = scheduler_of(first_time, max_batch_size=3, policy="fixed", max_wait_ms=3_600_000)
        told = await asyncio.gather(*scheduler.submit_many(range(3)), return_exceptions=True)
        assert await asyncio.gather(*scheduler.submit_many(range(3))) == [0, 1, 2]
        return told

    return run_loop(main())


def test_an_exception_in_an_items_place_is_raised_for_that_caller_alone(scheduler_of: SchedulerOf) -> None:
    error = Refusal("item 1")
    zero, one, two = one_batch(scheduler_of, lambda items: [error if item == 1 else item for item in items])
    assert (zero.result(0), two.result(0)) == (0, 2)
    with pytest.raises(Refusal) as caught:
        one.result(0)
    assert caught.value is error
    assert not hasattr(error, "__notes__")


def test_an_exception_in_an_items_place_counts_as_failed(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [Refusal() if item % 2 else item for item in items])
    futures = scheduler.submit_many(range(10))
    assert [type(future.exception(LIMIT_S)) for future in futures] == [type(None), Refusal] * 5
    assert scheduler.drain(LIMIT_S)
    stats = scheduler.stats()
    assert (stats.completed, stats.failed) == (5, 5)


def test_an_exception_class_is_a_result_like_any_other(scheduler_of: SchedulerOf) -> None:
    assert scheduler_of(lambda items: [Refusal for _ in items])(1) is Refusal


def test_what_fn_raises_reaches_every_caller_as_itself(scheduler_of: SchedulerOf) -> None:
    error = Refusal("all of you")

    def refuse(items: list[int]) -> list[int]:
        raise error

    futures = one_batch(scheduler_of, refuse)
    assert [future.exception(0) for future in futures] == [error] * 3
    assert all(future.exception(0) is error for future in futures)


def test_what_fn_raises_counts_as_failed_for_everyone(scheduler_of: SchedulerOf) -> None:
    def refuse(items: list[int]) -> list[int]:
        raise Refusal

    scheduler = scheduler_of(refuse, max_batch_size=3)
    for future in scheduler.submit_many(range(9)):
        assert isinstance(future.exception(LIMIT_S), Refusal)
    assert scheduler.drain(LIMIT_S)
    assert scheduler.stats().failed == 9


def test_what_fn_raises_has_one_note_with_the_batch_its_size_and_the_scheduler(scheduler_of: SchedulerOf) -> None:
    def refuse(items: list[int]) -> list[int]:
        raise Refusal

    error = one_batch(scheduler_of, refuse, name="judge")[0].exception(0)
    assert error is not None
    assert error.__notes__ == ["batch 1 of 3 requests in scheduler 'judge'"]


def test_one_exception_object_raised_for_batch_after_batch_is_noted_once(scheduler_of: SchedulerOf) -> None:
    error = Refusal("always the same")
    error.add_note("the author's own note")

    def refuse(items: list[int]) -> list[int]:
        raise error

    scheduler = scheduler_of(refuse, max_batch_size=2)
    for _ in range(5):
        assert scheduler.submit(1).exception(LIMIT_S) is error
    assert error.__notes__[0] == "the author's own note"
    assert len(error.__notes__) == 2


def test_an_exception_that_takes_no_note_is_delivered_all_the_same(scheduler_of: SchedulerOf) -> None:
    class Stern(Refusal):
        def add_note(self, note: str) -> None:
            raise RuntimeError("no notes")

    with_own_idea, stern = Refusal(), Stern()
    with_own_idea.__notes__ = "not a list"  # type: ignore[assignment]
    for error in (with_own_idea, stern):

        def refuse(items: list[int], error: Refusal = error) -> list[int]:
            raise error

        assert [future.exception(0) for future in one_batch(scheduler_of, refuse)] == [error] * 3


def test_the_traceback_of_what_fn_raises_leads_to_the_line_that_raised(scheduler_of: SchedulerOf) -> None:
    def deep_inside() -> None:
        raise Refusal

    def refuse(items: list[int]) -> list[int]:
        deep_inside()
        return items

    for future in one_batch(scheduler_of, refuse):
        with pytest.raises(Refusal) as caught:
            future.result(0)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["refuse", "deep_inside"]


def test_the_cause_of_what_fn_raises_is_kept(scheduler_of: SchedulerOf) -> None:
    cause = KeyError("x")

    def refuse(items: list[int]) -> list[int]:
        raise Refusal from cause

    error = one_batch(scheduler_of, refuse)[0].exception(0)
    assert error is not None
    assert error.__cause__ is cause


@pytest.mark.parametrize("size", [0, 2, 4])
@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_wrong_number_of_results_is_a_mismatch_for_every_caller(
    scheduler_of: SchedulerOf, kind: Callable[[Any], Any], size: int
) -> None:
    for future in one_batch(scheduler_of, lambda _: kind(range(size))):
        with pytest.raises(BatchSizeMismatch, match=rf"\b{size}\b.*\b3\b|\b3\b.*\b{size}\b"):
            future.result(0)


class Endless:
    """An iterable that is no sequence."""

    def __iter__(self) -> Iterator[int]:
        return iter((1, 2, 3))


@pytest.mark.parametrize(
    "result",
    [
        None,
        {0: 0, 1: 1, 2: 2},
        {0, 1, 2},
        frozenset({0, 1, 2}),
        "abc",
        b"abc",
        3,
        1.5,
        object(),
        Endless(),
        iter([0, 1, 2]),
        map(str, [0, 1, 2]),
        (number for number in range(3)),
        np.array(3),
        list,
        {0: 0}.keys(),
    ],
    ids=lambda result: type(result).__name__,
)
def test_what_is_no_sequence_of_results_is_refused(scheduler_of: SchedulerOf, result: Any) -> None:
    for future in one_batch(scheduler_of, lambda _: result):
        with pytest.raises(InvalidBatchResult):
            future.result(0)


def test_the_refusal_of_a_result_names_its_type(scheduler_of: SchedulerOf) -> None:
    with pytest.raises(InvalidBatchResult, match="dict"):
        one_batch(scheduler_of, dict.fromkeys)[0].result(0)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_coroutine_returned_by_a_plain_function_is_refused(scheduler_of: SchedulerOf) -> None:
    def forgot_to_await(items: list[int]) -> Any:
        coroutine = doubled_async(items)
        return coroutine

    for future in one_batch(scheduler_of, forgot_to_await):
        with pytest.raises(InvalidBatchResult, match="coroutine"):
            future.result(0)


class Row(Sequence[int]):
    """A sequence of its own kind."""

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < 3:
            raise IndexError(index)
        return index * 10


@pytest.mark.parametrize(
    "result",
    [[0, 10, 20], (0, 10, 20), deque([0, 10, 20]), range(0, 30, 10), np.array([0, 10, 20]), Row()],
    ids=lambda result: type(result).__name__,
)
def test_any_sequence_of_results_will_do(scheduler_of: SchedulerOf, result: Any) -> None:
    assert [future.result(0) for future in one_batch(scheduler_of, lambda _: result)] == [0, 10, 20]


def test_rows_of_an_array_are_results(scheduler_of: SchedulerOf) -> None:
    futures = one_batch(scheduler_of, lambda items: np.outer(items, [1, 2]))
    assert [future.result(0).tolist() for future in futures] == [[0, 0], [1, 2], [2, 4]]


def test_fn_may_return_the_very_list_it_was_given(scheduler_of: SchedulerOf) -> None:
    def in_place(items: list[int]) -> list[int]:
        items[:] = [item * 2 for item in items]
        return items

    assert [future.result(0) for future in one_batch(scheduler_of, in_place)] == [0, 2, 4]


def test_a_sequence_that_breaks_while_it_is_read_fails_its_batch_and_no_other(scheduler_of: SchedulerOf) -> None:
    class Broken(Row):
        def __getitem__(self, index: Any) -> Any:
            if index == 1:
                raise Refusal("unreadable")
            return super().__getitem__(index)

    zero, one, two = one_batch(scheduler_of, lambda _: Broken())
    assert one.exception(0) is not None
    assert all(future.done() for future in (zero, one, two))


@pytest.mark.parametrize("length", [Refusal("no length"), -1, 2.5, 2**100], ids=str)
def test_a_sequence_that_lies_about_its_length_is_believed_or_refused_and_hurts_no_other_batch(
    scheduler_of: SchedulerOf, length: Any
) -> None:
    class Liar(Row):
        def __len__(self) -> Any:
            if isinstance(length, Exception):
                raise length
            return length

    futures = one_batch(scheduler_of, lambda _: Liar())
    assert len({type(future.exception(0)) for future in futures}) == 1, "all of a batch are told the same"


def test_a_sequence_that_goes_on_beyond_its_length_is_cut_or_refused(scheduler_of: SchedulerOf) -> None:
    class Long(Row):
        def __getitem__(self, index: Any) -> Any:
            return index

        def __iter__(self) -> Iterator[int]:
            return iter(range(1000))

    futures = one_batch(scheduler_of, lambda _: Long())
    if futures[0].exception(0) is None:
        assert [future.result(0) for future in futures] == [0, 1, 2]
    else:
        assert [type(future.exception(0)) for future in futures] == [BatchSizeMismatch] * 3


def test_stop_iteration_is_told_as_a_runtime_error(scheduler_of: SchedulerOf) -> None:
    stop = StopIteration("the end")

    def refuse(items: list[int]) -> list[int]:
        raise stop

    for future in one_batch(scheduler_of, refuse):
        with pytest.raises(RuntimeError) as caught:
            future.result(0)
        assert caught.value.__cause__ is stop


def test_stop_iteration_does_not_end_the_coroutine_that_awaits_it(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(lambda items: [StopIteration("the end") if item else next(iter([])) for item in items])

    async def main() -> None:
        for item in (0, 1):
            with pytest.raises(RuntimeError):
                await scheduler.submit(item)

    run_loop(main())


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), MemoryError(), RecursionError(), BaseException("base")],
    ids=lambda error: type(error).__name__,
)
def test_the_worker_survives_whatever_is_raised_and_the_callers_are_told(
    scheduler_of: SchedulerOf, error: BaseException
) -> None:
    def refuse(items: list[int]) -> list[int]:
        raise error

    for future in one_batch(scheduler_of, refuse):
        assert future.exception(0) is error
        with pytest.raises(type(error)):
            future.result(0)


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()], ids=lambda error: type(error).__name__)
def test_what_would_stop_a_waiting_coroutine_is_told_as_an_aborted_batch(
    scheduler_of: SchedulerOf, error: BaseException
) -> None:
    def refuse(items: list[int]) -> list[int]:
        raise error

    for future in one_batch(scheduler_of, refuse):
        with pytest.raises(BatchAborted) as caught:
            future.result(0)
        assert caught.value.__cause__ is error
        assert not future.cancelled(), "nobody cancelled the request"


def test_a_worker_survives_a_thousand_failures(scheduler_of: SchedulerOf) -> None:
    def refuse(items: list[int]) -> list[int]:
        raise Refusal(items)

    scheduler = scheduler_of(refuse, max_batch_size=1)
    futures = scheduler.submit_many(range(1000))
    assert {type(future.exception(LIMIT_S)) for future in futures} == {Refusal}
    assert len({future.exception(0) for future in futures}) == 1000


def test_an_async_fn_that_raises_tells_every_caller(scheduler_of: SchedulerOf) -> None:
    error = Refusal("all of you")

    async def refuse(items: list[int]) -> list[int]:
        await one_turn()
        raise error

    told = one_async_batch(scheduler_of, refuse)
    assert all(each is error for each in told)
    assert len(error.__notes__) == 1
    assert re.fullmatch(r"batch 1 of 3 requests in scheduler '.*'", error.__notes__[0])


def test_an_async_fn_may_return_an_exception_in_an_items_place(scheduler_of: SchedulerOf) -> None:
    error = Refusal("item 1")

    async def refuse_one(items: list[int]) -> list[Any]:
        return [error if item == 1 else item for item in items]

    assert one_async_batch(scheduler_of, refuse_one) == [0, error, 2]


@pytest.mark.parametrize(
    ("result", "kind"),
    [(None, InvalidBatchResult), ("abc", InvalidBatchResult), ([1], BatchSizeMismatch), ([1] * 4, BatchSizeMismatch)],
    ids=str,
)
def test_an_async_fn_that_returns_nonsense_is_told_to_every_caller(
    scheduler_of: SchedulerOf, result: Any, kind: type[BatchError]
) -> None:
    async def nonsense(items: list[int]) -> Any:
        return result

    assert [type(each) for each in one_async_batch(scheduler_of, nonsense)] == [kind] * 3


def test_an_async_generator_function_is_no_batch_function(scheduler_of: SchedulerOf) -> None:
    async def stream(items: list[int]) -> Any:
        for item in items:
            yield item

    for future in one_batch(scheduler_of, stream):
        with pytest.raises(InvalidBatchResult):
            future.result(0)


def test_an_async_fn_that_is_cancelled_aborts_its_batch_and_no_other(scheduler_of: SchedulerOf) -> None:
    async def cancel_me(items: list[int]) -> list[int]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await one_turn()
        return items

    assert [type(each) for each in one_async_batch(scheduler_of, cancel_me)] == [BatchAborted] * 3


def test_an_async_fn_that_raises_a_cancelled_error_aborts_its_batch_and_no_other(scheduler_of: SchedulerOf) -> None:
    async def cancelled(items: list[int]) -> list[int]:
        raise asyncio.CancelledError

    assert [type(each) for each in one_async_batch(scheduler_of, cancelled)] == [BatchAborted] * 3


def test_an_async_fn_on_the_schedulers_own_loop_may_raise_what_it_likes(scheduler_of: SchedulerOf) -> None:
    async def refuse(items: list[Any]) -> list[Any]:
        if isinstance(items[0], BaseException):
            raise items[0]
        return items

    scheduler = scheduler_of(refuse, max_batch_size=1)
    for error in (Refusal(), SystemExit(3), KeyboardInterrupt(), GeneratorExit()):
        told = scheduler.submit(error).exception(LIMIT_S)
        assert told is error or isinstance(told, BatchAborted)
        assert scheduler.submit("next").result(LIMIT_S) == "next"


def test_a_cancelled_caller_does_not_cancel_the_async_batch_of_its_neighbours(scheduler_of: SchedulerOf) -> None:
    gate = AsyncGate()
    scheduler = scheduler_of(gate.hold, max_batch_size=3, policy="fixed", max_wait_ms=3_600_000)

    async def main() -> None:
        waiting = [asyncio.ensure_future(future) for future in scheduler.submit_many(range(3))]
        await gate.entered()
        waiting[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[1]
        gate.open()
        assert await asyncio.gather(waiting[0], waiting[2]) == [0, 2]

    run_loop(main())
    assert gate.batches == [[0, 1, 2]]


class Prickly:
    """An item that refuses to be compared, hashed, measured or printed."""

    def refuse(self, *_: object) -> Any:
        raise Refusal("leave me alone")

    __eq__ = __ne__ = __lt__ = __hash__ = __bool__ = __len__ = __iter__ = __repr__ = __str__ = refuse  # type: ignore[assignment]


def test_items_and_results_are_never_touched(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, max_batch_size=4)
    items = [Prickly() for _ in range(4)]
    results = [future.result(LIMIT_S) for future in scheduler.submit_many(items)]
    assert all(result is item for result, item in zip(results, items, strict=True))
    for future in [scheduler.submit(item, timeout_ms=0) for item in items]:
        assert isinstance(future.exception(0), BatchError)
        repr(future)

    async def main() -> None:
        assert await scheduler.submit(items[0]) is items[0]

    run_loop(main())


@pytest.mark.parametrize(
    "item",
    [
        None,
        NotImplemented,
        ...,
        True,
        ValueError("an item"),
        SystemExit(1),
        Refusal,
        np.arange(4),
        np.nan,
        [],
        {},
        lambda: None,
        bytes(50_000_000),
    ],
    ids=lambda item: type(item).__name__,
)
def test_an_item_may_be_anything(scheduler_of: SchedulerOf, item: Any) -> None:
    gate = Gate()
    gate.open()
    scheduler = scheduler_of(lambda items: [(each,) for each in gate.hold(items)])
    assert scheduler.submit(item).result(LIMIT_S)[0] is item
    assert gate.seen[0] is item


@pytest.mark.parametrize("result", [None, NotImplemented, ..., False, np.arange(4), object()], ids=str)
def test_a_result_may_be_anything_but_an_exception(scheduler_of: SchedulerOf, result: Any) -> None:
    scheduler = scheduler_of(lambda items: [result for _ in items])
    assert scheduler.submit(1).result(LIMIT_S) is result

    async def main() -> Any:
        return await scheduler.submit(1)

    assert run_loop(main()) is result


class Model:
    """What can be called in more than one way."""

    factor = 2

    def __call__(self, items: list[int]) -> list[int]:
        return [item * self.factor for item in items]

    async def predict(self, items: list[int]) -> list[int]:
        await one_turn()
        return [item * self.factor for item in items]


@pytest.mark.parametrize(
    "fn",
    [Model(), Model().predict, functools.partial(doubled), functools.partial(doubled_async), doubled_async],
    ids=["instance", "async method", "partial", "async partial", "async function"],
)
def test_fn_may_be_any_callable(scheduler_of: SchedulerOf, fn: Callable[..., Any]) -> None:
    scheduler = scheduler_of(fn)
    assert scheduler.submit(21).result(LIMIT_S) == 42
    assert scheduler.name

    async def main() -> Any:
        return await scheduler.submit(4)

    assert run_loop(main()) == 8
