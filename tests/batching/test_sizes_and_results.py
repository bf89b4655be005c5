"""Sizes that the model accepts, the filler that makes them up, and results in every shape."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from gates import LIMIT_S, Gate, SchedulerOf, doubled, doubled_async, in_thread, run_loop
from pybatch import BatchSizeMismatch, InvalidBatchResult, Pad, Stack, batched
from pybatch.testing import SteppingScheduler

Stepping = Callable[..., SteppingScheduler[Any, Any]]


class Strict:
    """A model that was compiled for some sizes, and raises on any other."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.given: list[int] = []

    def __call__(self, batch: Any, *_: Any) -> Any:
        self.given.append(len(batch))
        if len(batch) not in self.sizes:
            raise RuntimeError(f"this model was compiled for {self.sizes}, not for {len(batch)}")
        return [np.sum(row) for row in batch]


# --- allowed sizes


@pytest.mark.parametrize("policy", ["min_cost", "pad_up", "batch_down"])
@pytest.mark.parametrize("form", ["list", "stack", "pad"])
def test_a_model_of_some_sizes_never_sees_another(stepping: Stepping, policy: str, form: str) -> None:
    model = Strict(1, 4, 8)
    scheduler = stepping(
        model, batch_as=form, allowed_batch_sizes=[1, 4, 8], batch_padding_policy=policy, service_ms=lambda n: 1 + n / 4
    )
    futures = []
    for n in (1, 2, 3, 4, 5, 7, 9, 20):
        futures += [(n, scheduler.submit(np.full(3, n))) for _ in range(n)]
        scheduler.advance(2)
    scheduler.shutdown()
    assert [future.result() for _, future in futures] == [3 * n for n, _ in futures]
    assert set(model.given) <= {1, 4, 8}


def test_a_model_of_one_size(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(Strict(16), batch_as="stack", allowed_batch_sizes=[16])
    assert scheduler.stats().max_batch_size == 16
    assert scheduler.submit_batch(np.ones((20, 2))).result(LIMIT_S).tolist() == [2.0] * 20
    assert list(scheduler.map(np.ones((50, 2)))) == [2.0] * 50


def test_reconfigure_keeps_to_the_allowed_sizes(stepping: Stepping) -> None:
    model = Strict(2, 4, 8)
    scheduler = stepping(model, allowed_batch_sizes=[2, 4, 8])
    with pytest.raises(ValueError, match=r"max_batch_size is 9, .*allowed_batch_sizes is 8"):
        scheduler.reconfigure(max_batch_size=9)
    for size in (8, 5, 3, 1, 4):
        scheduler.reconfigure(max_batch_size=size)
        futures = scheduler.submit_many(range(10))
        scheduler.advance(0)
        assert [future.result() for future in futures] == list(range(10))
    assert set(model.given) <= {2, 4, 8}


def test_reconfigure_to_more_than_a_stage_has_room_for(stepping: Stepping) -> None:
    given: list[int] = []

    def compute(batch: Any) -> Any:
        given.append(len(batch))
        return batch.sum(axis=1)

    scheduler = stepping(compute, batch_as="stack", assemble="submit", max_batch_size=2)
    futures = [scheduler.submit(np.full(3, n)) for n in range(7)]
    scheduler.reconfigure(max_batch_size=5)
    futures += [scheduler.submit(np.full(3, n)) for n in range(7, 12)]
    scheduler.reconfigure(max_batch_size=20)
    scheduler.advance(0)
    assert [future.result() for future in futures] == [3 * n for n in range(12)]
    scheduler.reconfigure(max_batch_size=1)
    assert scheduler.submit_batch(np.ones((3, 3))) is not None
    scheduler.advance(0)
    assert max(given) > 5


def test_staged_rows_that_are_cancelled_expire_or_are_refused_hurt_nobody(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch.sum(axis=1), batch_as="stack", assemble="submit", max_queue_size=6)
    futures = [scheduler.submit(np.full(2, n), timeout_ms=5 if n % 3 == 1 else None) for n in range(6)]
    with pytest.raises(Exception, match="queue"):
        scheduler.submit(np.full(2, 99))
    with pytest.raises(Exception, match="queue"):
        scheduler.submit_batch(np.full((3, 2), 99))
    assert futures[0].cancel()
    futures.append(scheduler.submit(np.full(2, 6)))
    scheduler.advance(0)
    assert [future.result() for future in futures[1:]] == [2, 4, 6, 8, 10, 12]


def test_a_staged_item_may_be_changed_after_submit(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch.sum(axis=1), batch_as="stack", assemble="submit")
    row = np.ones(3)
    future = scheduler.submit(row)
    row[:] = 100
    scheduler.advance(0)
    assert future.result() == 3


# --- filler


def test_filler_repeats_the_last_item_and_its_results_are_dropped(stepping: Stepping) -> None:
    given: list[list[int]] = []

    def compute(items: list[int]) -> list[int]:
        given.append(items)
        return list(range(len(items)))

    scheduler = stepping(compute, allowed_batch_sizes=[4])
    futures = scheduler.submit_many([7, 8])
    scheduler.advance(0)
    assert given == [[7, 8, 8, 8]]
    assert [future.result() for future in futures] == [0, 1]
    assert scheduler.batches[0].items == (7, 8)


@pytest.mark.parametrize("filler", ["repeat", "zeros"])
def test_filler_of_arrays(stepping: Stepping, filler: Any) -> None:
    given: list[Any] = []

    def compute(batch: Any, lengths: Any) -> Any:
        given.append((batch.tolist(), lengths.tolist()))
        return lengths

    scheduler = stepping(compute, batch_as="pad", allowed_batch_sizes=[3], filler=filler)
    future = scheduler.submit([1, 2])
    scheduler.advance(0)
    assert future.result() == 2
    row, length = ([1, 2], 2) if filler == "repeat" else ([0, 0], 1)
    assert given == [([[1, 2], row, row], [2, length, length])]


def test_an_exception_in_the_place_of_filler_is_nobodys(stepping: Stepping) -> None:
    scheduler = stepping(lambda items: [items[0], KeyError(), KeyError()], allowed_batch_sizes=[3])
    future = scheduler.submit(5)
    scheduler.advance(0)
    assert future.result() == 5
    assert scheduler.stats().failed == 0


def test_fn_must_answer_filler_too(stepping: Stepping) -> None:
    scheduler = stepping(lambda items: items[:2], allowed_batch_sizes=[4])
    futures = scheduler.submit_many([1, 2])
    scheduler.advance(0)
    for future in futures:
        assert isinstance(future.exception(), BatchSizeMismatch)
        assert "given 4 items and returned 2" in str(future.exception())


# --- results


@dataclasses.dataclass
class Sentence:
    ids: Any
    mask: Any


def test_structures_go_in_and_come_out(stepping: Stepping) -> None:
    def compute(batch: Sentence, lengths: Any) -> dict[str, Any]:
        assert batch.ids.shape == batch.mask.shape
        return {"sum": (batch.ids * batch.mask).sum(axis=1), "parts": {"length": lengths.ids, "text": list("abc")}}

    scheduler = stepping(compute, batch_as="pad")
    futures = [scheduler.submit(Sentence(np.arange(n), np.ones(n, int))) for n in (2, 4, 3)]
    scheduler.advance(0)
    assert [future.result() for future in futures] == [
        {"sum": 1, "parts": {"length": 2, "text": "a"}},
        {"sum": 6, "parts": {"length": 4, "text": "b"}},
        {"sum": 3, "parts": {"length": 3, "text": "c"}},
    ]


@pytest.mark.parametrize(
    "results", [{"a": [1, 2, 3]}, ([1, 2], [1]), {}, (), {"a": 1}, 5, None, "ab", {1, 2}, iter([1, 2])]
)
def test_what_is_no_answer_to_arrays_is_told(stepping: Stepping, results: Any) -> None:
    scheduler = stepping(lambda batch: results, batch_as="stack")
    futures = scheduler.submit_many([1.0, 2.0])
    scheduler.advance(0)
    for future in futures:
        assert isinstance(future.exception(), BatchSizeMismatch | InvalidBatchResult)


def test_a_tuple_answers_a_list_item_by_item(stepping: Stepping) -> None:
    scheduler = stepping(lambda items: ("a", "b"))
    futures = scheduler.submit_many([1, 2])
    scheduler.advance(0)
    assert [future.result() for future in futures] == ["a", "b"]


@pytest.mark.parametrize("copies", [False, True])
def test_results_are_views_or_copies(stepping: Stepping, copies: bool) -> None:
    kept: list[Any] = []

    def compute(batch: Any) -> Any:
        kept.append(batch * 2)
        return {"rows": kept[-1], "pair": (kept[-1], [str(row) for row in batch])}

    scheduler = stepping(compute, batch_as="stack", copy_results=copies)
    futures = scheduler.submit_many([np.ones(2), np.ones(2)])
    scheduler.advance(0)
    kept[0][:] = 100
    for future in futures:
        expected = [2, 2] if copies else [100, 100]
        assert future.result()["rows"].tolist() == future.result()["pair"][0].tolist() == expected
        assert (future.result()["rows"].base is None) is copies


def test_a_batch_that_fn_keeps_is_not_written_again(stepping: Stepping) -> None:
    kept: list[Any] = []

    def compute(batch: Any) -> Any:
        kept.append(batch)
        return batch

    scheduler = stepping(compute, batch_as="stack", max_batch_size=4)
    futures = [scheduler.submit(np.full(3, n)) for n in range(40)]
    scheduler.advance(0)
    assert [future.result().tolist() for future in futures] == [[n] * 3 for n in range(40)]
    assert np.concatenate(kept).tolist() == [[n] * 3 for n in range(40)]


# --- collate


def test_a_function_collates(stepping: Stepping) -> None:
    scheduler = stepping(lambda batch: batch["x"] * 2, batch_as=lambda items: {"x": np.stack(items)})
    futures = scheduler.submit_many([np.ones(2), np.zeros(2)])
    scheduler.advance(0)
    assert [future.result().tolist() for future in futures] == [[2, 2], [0, 0]]


@pytest.mark.parametrize("fn", [doubled, doubled_async])
def test_a_collating_function_that_raises_fails_its_batch_alone(scheduler_of: SchedulerOf, fn: Any) -> None:
    def collate(items: list[int]) -> list[int]:
        if 13 in items:
            raise KeyError("cannot collate")
        return items

    scheduler = scheduler_of(fn, batch_as=collate, max_batch_size=1)
    good, bad, later = scheduler.submit_many([1, 13, 2])
    assert (good.result(LIMIT_S), later.result(LIMIT_S)) == (2, 4)
    assert isinstance(bad.exception(LIMIT_S), KeyError)
    assert "batch 2 of 1 request" in "".join(bad.exception().__notes__)


# --- async functions, blocking, decorators


def test_an_async_function_takes_arrays(scheduler_of: SchedulerOf) -> None:
    async def compute(batch: Any, lengths: Any) -> Any:
        return batch.sum(axis=1)

    scheduler = scheduler_of(compute, batch_as="pad", max_batch_size=4)

    async def main() -> Any:
        return await asyncio.gather(*(scheduler.submit(np.ones(n)) for n in range(20)))

    assert run_loop(main()) == list(range(20))


@pytest.mark.parametrize("assemble", ["dispatch", "submit"])
def test_submits_of_arrays_wait_for_room(scheduler_of: SchedulerOf, assemble: Any) -> None:
    gate = Gate()

    def compute(batch: Any) -> Any:
        gate.hold([len(batch)])
        return batch.sum(axis=1)

    scheduler = scheduler_of(
        compute, batch_as="stack", assemble=assemble, max_batch_size=2, max_queue_size=2, on_full="block"
    )
    first = scheduler.submit(np.zeros(3))
    gate.wait_entered()
    waiting = [in_thread(lambda n=n: scheduler.submit(np.full(3, n)).result(LIMIT_S)) for n in range(1, 8)]
    gate.open()
    assert first.result(LIMIT_S) == 0
    assert [future.result(LIMIT_S) for future in waiting] == [3 * n for n in range(1, 8)]


def test_decorated_functions_and_methods_take_arrays() -> None:
    @batched(batch_as="stack", metrics=False)
    def total(batch: Any) -> Any:
        return batch.sum(axis=1)

    class Model:
        @batched(batch_as=Pad(give="mask"), metrics=False)
        def total(self, batch: Any, mask: Any) -> Any:
            return (batch * mask).sum(axis=1)

        @batched(batch_as=Stack(dtype="float32"), metrics=False)
        async def kind(self, batch: Any) -> list[str]:
            return [str(batch.dtype)] * len(batch)

    model = Model()
    assert total(np.ones(3)) == 3
    assert model.total([1, 2, 3]) == 6

    async def ask() -> str:
        return await model.kind([1, 2])

    assert run_loop(ask()) == "float32"
    for scheduler in (total.scheduler, model.total.scheduler, model.kind.scheduler):
        scheduler.shutdown()


# --- what is shown


def test_virtual_time_shows_items_as_they_were_submitted(stepping: Stepping) -> None:
    scheduler = stepping(list, batch_as="stack")
    row = np.arange(3)
    scheduler.submit(row, key="a")
    scheduler.advance(0)
    assert scheduler.batches[0].items[0] is row
    assert scheduler.batches[0].key == "a"


def metric(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"pybatch_{name}", {"scheduler": "model", **labels})


def test_padding_and_keys_in_metrics(stepping: Stepping) -> None:
    registry = CollectorRegistry()
    scheduler = stepping(
        lambda batch, lengths: lengths,
        batch_as="pad",
        allowed_batch_sizes=[4],
        name="model",
        metrics=True,
        registry=registry,
    )
    assert metric(registry, "padding_ratio") is None
    for length in (1, 2, 5):
        scheduler.submit(np.zeros(length))
    assert metric(registry, "keys") == 1
    scheduler.advance(0)
    assert metric(registry, "elements_total", kind="item") == 8
    assert metric(registry, "elements_total", kind="padding") == 12
    assert metric(registry, "padding_ratio") == 12 / 20
    assert metric(registry, "keys") == 0
    assert scheduler.explain().stats == scheduler.stats()


def test_filler_of_lists_in_metrics(stepping: Stepping) -> None:
    registry = CollectorRegistry()
    scheduler = stepping(list, allowed_batch_sizes=[4], name="model", metrics=True, registry=registry)
    scheduler.submit_many(range(3))
    scheduler.advance(0)
    assert metric(registry, "elements_total", kind="item") == 3
    assert metric(registry, "elements_total", kind="padding") == 1
    assert metric(registry, "padding_ratio") == 1 / 4
    assert metric(registry, "batch_size_sum") == 3
