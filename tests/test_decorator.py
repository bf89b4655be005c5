"""``@batched``: a function of many items, written once, and called with one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import functools
import gc
import inspect
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import pybatch
from pybatch import DeadlineExceeded, Scheduler, batched

LIMIT_S = 20.0
HOUR_MS = 3_600_000


@pytest.fixture
def ends() -> Iterator[Callable[..., None]]:
    """Shut these schedulers down when the test ends."""
    schedulers: list[Scheduler[Any, Any]] = []
    yield lambda *some: schedulers.extend(some)
    for scheduler in schedulers:
        scheduler.shutdown()


class Doubler:
    """A model whose method computes many items; it remembers the batches, and can be pickled by its class's name."""

    def __init__(self, factor: int = 2) -> None:
        self.factor = factor
        self.batches: list[list[int]] = []

    @batched(max_batch_size=8, metrics=False)
    def predict(self, items: list[int]) -> list[int]:
        """Multiply."""
        self.batches.append(items)
        return [item * self.factor for item in items]

    @batched(max_batch_size=8, metrics=False)
    async def predict_async(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        return [item * self.factor for item in items]


def test_a_plain_function_is_called_with_one_item_and_returns_its_result(ends: Callable[..., None]) -> None:
    @batched(max_batch_size=8, metrics=False)
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    assert double(21) == 42
    ends(double.scheduler)


def test_an_async_function_is_awaited_with_one_item(ends: Callable[..., None]) -> None:
    @batched(max_batch_size=8, metrics=False)
    async def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    async def main() -> None:
        assert await double(21) == 42
        assert await asyncio.gather(*map(double, range(20))) == list(range(0, 40, 2))

    asyncio.run(asyncio.wait_for(main(), LIMIT_S))
    assert double.scheduler.stats().batches < 21
    ends(double.scheduler)


def test_it_needs_no_parentheses(ends: Callable[..., None]) -> None:
    @batched
    def double_without_parentheses(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    @batched()
    def double_with_empty_ones(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    assert double_without_parentheses(1) == double_with_empty_ones(1) == 2
    ends(double_without_parentheses.scheduler, double_with_empty_ones.scheduler)


def test_callers_of_several_threads_share_batches(ends: Callable[..., None]) -> None:
    batches = []

    @batched(max_batch_size=4, policy="fixed", max_wait_ms=HOUR_MS, metrics=False)
    def double(items: list[int]) -> list[int]:
        batches.append(sorted(items))
        return [item * 2 for item in items]

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert list(pool.map(double, range(4), timeout=LIMIT_S)) == [0, 2, 4, 6]
    assert batches == [[0, 1, 2, 3]]
    ends(double.scheduler)


def test_it_keeps_the_name_and_the_docstring_of_the_function(ends: Callable[..., None]) -> None:
    def predict(items: list[int]) -> list[int]:
        """Return the items."""
        return items

    predict.version = 3  # type: ignore[attr-defined]
    one = batched(metrics=False)(predict)
    assert one.__wrapped__ is predict
    for name in functools.WRAPPER_ASSIGNMENTS:
        if name != "__annotations__":  # one item has another type than many
            assert getattr(one, name, None) == getattr(predict, name, None), name
    assert one.version == 3
    assert inspect.getdoc(one) == "Return the items."
    assert Doubler.predict.__name__ == "predict"
    assert Doubler.predict.__doc__ == "Multiply."
    assert one(1) == 1
    ends(one.scheduler)


def test_its_scheduler_can_be_reached_and_has_the_options(ends: Callable[..., None]) -> None:
    @batched(max_batch_size=5, policy="fixed", max_wait_ms=1, max_queue_size=6, name="mine", metrics=False)
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    scheduler = double.scheduler
    assert isinstance(scheduler, Scheduler)
    assert scheduler is double.scheduler
    assert scheduler.name == "mine"
    assert (scheduler.stats().max_batch_size, scheduler.stats().max_queue_size) == (5, 6)
    assert double(1) == scheduler.submit(1).result(LIMIT_S) == 2
    assert scheduler.stats().submitted == 2
    ends(scheduler)


def test_the_default_name_is_the_functions(ends: Callable[..., None]) -> None:
    @batched(metrics=False)
    def a_function_of_this_name(items: list[int]) -> list[int]:
        return items

    assert "a_function_of_this_name" in a_function_of_this_name.scheduler.name
    ends(a_function_of_this_name.scheduler)


def test_the_original_can_still_be_called_with_many(ends: Callable[..., None]) -> None:
    @batched(metrics=False)
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    assert double.__wrapped__([1, 2]) == [2, 4]
    ends(double.scheduler)


def test_errors_reach_the_caller(ends: Callable[..., None]) -> None:
    error = LookupError("no such thing")

    @batched(metrics=False)
    def refuse(items: list[int]) -> list[int]:
        raise error

    with pytest.raises(LookupError) as caught:
        refuse(1)
    assert caught.value is error
    ends(refuse.scheduler)


def test_a_default_timeout_holds(ends: Callable[..., None]) -> None:
    @batched(timeout_ms=0, metrics=False)
    def never(items: list[int]) -> list[int]:
        raise AssertionError

    with pytest.raises(DeadlineExceeded):
        never(1)
    ends(never.scheduler)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_batch_size": 0}, ValueError),
        ({"max_wait_ms": -1}, ValueError),
        ({"policy": "hurried"}, ValueError),
        ({"batch_size": 8}, TypeError),
    ],
    ids=str,
)
def test_a_bad_option_is_refused_on_first_use_at_the_latest(options: dict[str, Any], kind: type[Exception]) -> None:
    def use() -> None:
        @batched(metrics=False, **options)
        def never(items: list[int]) -> list[int]:
            return items

        never(1)

    with pytest.raises(kind, match=next(iter(options))):
        use()


@pytest.mark.parametrize("not_a_function", [None, 5, "predict"], ids=repr)
def test_what_cannot_be_called_cannot_be_decorated(not_a_function: Any) -> None:
    with pytest.raises(TypeError):
        batched(metrics=False)(not_a_function)


def test_a_call_takes_exactly_one_item(ends: Callable[..., None]) -> None:
    @batched(metrics=False)
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError):
            double(*arguments)
    model = Doubler()
    for arguments in ((), (1, 2)):
        with pytest.raises(TypeError):
            model.predict(*arguments)
    assert double(1) == 2
    ends(double.scheduler)


def test_a_method_is_called_with_one_item(ends: Callable[..., None]) -> None:
    model = Doubler()
    assert model.predict(21) == 42
    assert model.batches == [[21]]
    ends(model.predict.scheduler)


def test_an_async_method_is_awaited_with_one_item(ends: Callable[..., None]) -> None:
    model = Doubler()

    async def main() -> None:
        assert await asyncio.gather(*map(model.predict_async, range(8))) == list(range(0, 16, 2))

    asyncio.run(asyncio.wait_for(main(), LIMIT_S))
    assert model.batches == [list(range(8))]
    ends(model.predict_async.scheduler)


def test_an_async_method_may_be_awaited_on_loop_after_loop(ends: Callable[..., None]) -> None:
    model = Doubler()

    async def main() -> Any:
        return await model.predict_async(2)

    for _ in range(3):
        assert asyncio.run(asyncio.wait_for(main(), LIMIT_S)) == 4
    ends(model.predict_async.scheduler)


def test_each_instance_and_each_method_has_a_scheduler_of_its_own(ends: Callable[..., None]) -> None:
    one, other = Doubler(2), Doubler(3)
    assert (one.predict(5), other.predict(5)) == (10, 15)
    schedulers = {one.predict.scheduler, other.predict.scheduler, one.predict_async.scheduler}
    assert len(schedulers) == 3
    assert one.predict.scheduler is one.predict.scheduler
    assert one.predict.scheduler.stats().submitted == 1
    ends(*schedulers)


def test_threads_that_come_first_at_once_get_the_same_scheduler(ends: Callable[..., None]) -> None:
    model, together = Doubler(), threading.Barrier(8)

    def first() -> Scheduler[Any, Any]:
        together.wait(LIMIT_S)
        assert model.predict(1) == 2
        return model.predict.scheduler

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        schedulers = {each.result(LIMIT_S) for each in [pool.submit(first) for _ in range(8)]}
    (scheduler,) = schedulers
    assert scheduler.stats().submitted == 8
    ends(scheduler)


def test_instances_that_are_equal_do_not_share(ends: Callable[..., None]) -> None:
    class Equal(Doubler):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, Equal)

        def __hash__(self) -> int:
            return 1

    one, other = Equal(2), Equal(3)
    assert (one.predict(5), other.predict(5)) == (10, 15)
    assert one.predict.scheduler is not other.predict.scheduler
    ends(one.predict.scheduler, other.predict.scheduler)


def test_an_instance_that_cannot_be_hashed_will_do(ends: Callable[..., None]) -> None:
    class Unhashable(Doubler):
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("do not compare me")

    model = Unhashable()
    assert model.predict(1) == model.predict(1) == 2
    ends(model.predict.scheduler)


def test_an_instance_without_a_dict_will_do(ends: Callable[..., None]) -> None:
    class Slots:
        __slots__ = ("__weakref__", "factor")

        @batched(metrics=False)
        def predict(self, items: list[int]) -> list[int]:
            return [item * self.factor for item in items]

    one, other = Slots(), Slots()
    one.factor, other.factor = 2, 3
    assert (one.predict(5), other.predict(5), one.predict(6)) == (10, 15, 12)
    ends(one.predict.scheduler, other.predict.scheduler)


def test_an_instance_that_cannot_be_referenced_weakly_is_refused_with_a_remedy() -> None:
    class Bare:
        __slots__ = ()

        @batched(metrics=False)
        def predict(self, items: list[int]) -> list[int]:
            return items

    with pytest.raises(TypeError, match="__weakref__"):
        Bare().predict(1)


def test_a_method_and_the_one_it_overrides_do_not_share(ends: Callable[..., None]) -> None:
    class Tenfold(Doubler):
        @batched(metrics=False)
        def predict(self, items: list[int]) -> list[int]:
            return [super(Tenfold, self).predict(item) * 10 for item in items]

    model = Tenfold()
    assert model.predict(3) == 60
    ends(model.predict.scheduler, super(Tenfold, model).predict.scheduler)


def test_an_inherited_method_works(ends: Callable[..., None]) -> None:
    class Heir(Doubler):
        pass

    model = Heir(4)
    assert model.predict(3) == 12
    ends(model.predict.scheduler)


def test_a_static_method_is_a_function(ends: Callable[..., None]) -> None:
    class Tools:
        @staticmethod
        @batched(metrics=False)
        def double(items: list[int]) -> list[int]:
            return [item * 2 for item in items]

    assert Tools.double(2) == Tools().double(2) == 4
    ends(Tools.double.scheduler)


def test_a_method_may_be_taken_along_and_called_later(ends: Callable[..., None]) -> None:
    model = Doubler()
    predict = model.predict
    assert [predict(item) for item in range(3)] == [0, 2, 4]
    assert predict.scheduler is model.predict.scheduler
    ends(predict.scheduler)


def test_using_a_method_leaves_the_instance_as_it_was(ends: Callable[..., None]) -> None:
    model = Doubler()
    attributes = set(vars(model))
    assert model.predict(1) == 2
    assert set(vars(model)) == attributes
    copied, pickled = copy.copy(model), pickle.loads(pickle.dumps(model))
    assert copied.predict(1) == pickled.predict(1) == 2
    schedulers = {each.predict.scheduler for each in (model, copied, pickled)}
    assert len(schedulers) == 3
    ends(*schedulers)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_instance_can_be_forgotten_and_its_scheduler_ends_without_a_word(is_async: bool) -> None:
    threads_before = set(threading.enumerate())
    model = Doubler()

    if is_async:
        assert asyncio.run(model.predict_async(1)) == 2
        scheduler_ref = weakref.ref(model.predict_async.scheduler)
    else:
        assert model.predict(1) == 2
        scheduler_ref = weakref.ref(model.predict.scheduler)
    threads = set(threading.enumerate()) - threads_before
    model_gone = threading.Event()
    weakref.finalize(model, model_gone.set).atexit = False
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del model
        gc.collect()
        assert model_gone.wait(LIMIT_S)
        for thread in threads:
            thread.join(LIMIT_S)
        gc.collect()
    assert scheduler_ref() is None
    assert not any(thread.is_alive() for thread in threads)
    assert [str(warning.message) for warning in caught] == []


def test_an_instance_forgotten_with_requests_pending_leaves_nobody_waiting() -> None:
    entered, opened = threading.Event(), threading.Event()

    class Slow:
        @batched(max_batch_size=1, metrics=False)
        def predict(self, items: list[int]) -> list[int]:
            entered.set()
            assert opened.wait(LIMIT_S)
            return items

    model = Slow()
    futures = model.predict.scheduler.submit_many(range(3))
    assert entered.wait(LIMIT_S)
    model_gone = threading.Event()
    weakref.finalize(model, model_gone.set).atexit = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del model
        gc.collect()
        opened.set()
        assert futures[0].result(LIMIT_S) == 0
        for future in futures[1:]:  # answered while the instance is there, else told that it is gone
            assert isinstance(future.exception(LIMIT_S), ReferenceError | None)
        assert model_gone.wait(LIMIT_S)


def test_a_thousand_instances_leave_no_thread_behind() -> None:
    before = set(threading.enumerate())
    for _ in range(1000):
        assert Doubler().predict(1) == 2
    gc.collect()
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT_S)
        assert not thread.is_alive()


def test_a_decorated_function_that_is_forgotten_ends_its_threads() -> None:
    before = set(threading.enumerate())

    @batched(metrics=False)
    def double(items: list[int]) -> list[int]:
        return [item * 2 for item in items]

    assert double(1) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del double
        gc.collect()
        for thread in set(threading.enumerate()) - before:
            thread.join(LIMIT_S)
            assert not thread.is_alive()


def test_the_class_attribute_is_no_callable_for_one_item() -> None:
    with pytest.raises(TypeError):
        Doubler.predict(1)  # type: ignore[call-arg, arg-type]


def test_everything_public_is_there() -> None:
    expected = {
        "BatchAborted",
        "BatchError",
        "BatchSizeMismatch",
        "DeadlineExceeded",
        "Future",
        "InvalidBatchResult",
        "QueueFull",
        "Scheduler",
        "SchedulerClosed",
        "Stats",
        "WouldDeadlock",
        "batched",
    }
    assert expected <= set(pybatch.__all__)
    assert all(hasattr(pybatch, name) for name in pybatch.__all__)
