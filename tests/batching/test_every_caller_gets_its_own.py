"""Whatever comes together, every caller gets exactly what `fn` would have given its item alone.

A life is a scheduler with some options and a list of steps: submits of all kinds, cancels, time.  What an item weighs,
which key it has and whether it hurts follow from its content, so that `fn` itself can see that it is given one key, a
size that is allowed, and no more than it bears.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import random
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gates import LIMIT_S, check_books, in_thread, one_turn
from pybatch import DeadlineExceeded, Pad, QueueFull, Scheduler, SchedulerClosed, Stack, current_batch
from pybatch.testing import SteppingScheduler


@dataclass
class Sentence:
    ids: Any
    score: Any


class Poison(Exception):
    """Fails a batch."""


class Bad(Exception):
    """Fails one item."""


# --- items: what they are, and what follows from it


def face(item: Any) -> str:
    """Return everything that can be seen of an item, or of a row of a batch."""
    if isinstance(item, dict):
        return "{" + ", ".join(f"{name}: {face(item[name])}" for name in sorted(item)) + "}"
    if isinstance(item, tuple):
        return "(" + ", ".join(map(face, item)) + ")"
    if is_dataclass(item):
        return f"Sentence({', '.join(face(getattr(item, field.name)) for field in fields(item))})"
    array = np.asarray(item)
    return f"{array.dtype.str}{array.shape}{array.tolist()}"


def mark(item: Any) -> int:
    return zlib.crc32(face(item).encode())


def key_of(item: Any) -> Any:
    return (None, None, "a", ("b", 1))[mark(item) % 4]


def weight_of(item: Any) -> int:
    return mark(item) // 4 % 5 + 1


def poisons(item: Any) -> bool:
    return mark(item) // 20 % 29 == 0


def is_bad(item: Any) -> bool:
    return mark(item) // 20 % 29 == 1


NUMBERS = st.integers(0, 99)
SHAPES = {"list": [(), (2,)], "stack": [(), (2,), (3, 2)], "pad": [(0,), (1,), (3,), (7,), (2, 2)]}
STRUCTURES: list[Callable[[Any, Any], Any]] = [
    lambda ids, score: ids,
    lambda ids, score: {"ids": ids, "score": score},
    lambda ids, score: (ids, score),
    Sentence,
]


@st.composite
def pools(draw: st.DrawFn, kind: str) -> list[Any]:
    """Some items: few enough that they meet in batches, and that some of them are identical."""
    structures = draw(st.lists(st.sampled_from(STRUCTURES), min_size=1, max_size=2))
    dtypes = draw(st.lists(st.sampled_from([np.int64, np.float32, np.uint8]), min_size=1, max_size=2))
    shapes = draw(st.lists(st.sampled_from(SHAPES[kind]), min_size=1, max_size=3))
    array = st.builds(np.full, st.sampled_from(shapes), NUMBERS, st.sampled_from(dtypes))
    if kind == "list":
        array = st.one_of(NUMBERS, array)
    item = st.builds(lambda structure, *parts: structure(*parts), st.sampled_from(structures), array, NUMBERS)
    return draw(st.lists(item, min_size=3, max_size=12))


REFUSED = {"list": [], "stack": [object(), np.array([None]), {}, np.ma.array([1])], "pad": [3, object(), {"ids": 1}]}


# --- fn: checks what it is given, and answers by rows


class Model:
    """Answers a batch row by row, in the shape that is wanted."""

    def __init__(self, kind: str, options: dict[str, Any], answer: str, collated: bool) -> None:
        self.kind = kind
        self.options = options
        self.answer = answer
        self.collated = collated
        self.faults: list[str] = []

    def rows(self, batch: Any, lengths: Any, n: int) -> list[Any]:
        """Take a batch apart, padding taken off."""
        if isinstance(batch, list):
            return batch
        if isinstance(batch, dict):
            parts = {name: self.rows(part, (lengths or {}).get(name), n) for name, part in batch.items()}
            return [{name: parts[name][i] for name in parts} for i in range(n)]
        if isinstance(batch, tuple):
            columns = [self.rows(part, lengths[i] if lengths else None, n) for i, part in enumerate(batch)]
            return list(zip(*columns, strict=True))
        if is_dataclass(batch):
            names = [field.name for field in fields(batch)]
            columns = [self.rows(getattr(batch, name), getattr(lengths, name, None), n) for name in names]
            return [Sentence(*row) for row in zip(*columns, strict=True)]
        assert len(batch) == n, (len(batch), n)
        return [batch[i] if lengths is None else batch[i, : lengths[i]] for i in range(n)]

    def weighs(self, item: Any) -> int:
        """Return what an item counts for: what it is said to, else what it is padded to, else 1."""
        if self.options["weighed"]:
            return weight_of(item)
        if self.kind != "pad":
            return 1
        ids = item
        if isinstance(item, dict | tuple | Sentence):
            ids = item["ids"] if isinstance(item, dict) else item[0] if isinstance(item, tuple) else item.ids
        form = self.options["batch_as"]
        if isinstance(form, Pad) and form.buckets:
            return next(bucket for bucket in form.buckets if bucket >= len(ids))
        multiple = form.multiple_of or 1 if isinstance(form, Pad) else 1
        return max(-(-len(ids) // multiple) * multiple, 1)

    def check(self, rows: list[Any]) -> None:
        """Note what a batch must not be."""
        batch = current_batch()
        real = rows[: batch.size]
        sizes = self.options.get("allowed_batch_sizes")
        if len(rows) != batch.model_size or (sizes and batch.model_size not in sizes):
            self.faults.append(f"{len(rows)} rows, {batch}")
        if batch.size > self.options["max_batch_size"]:
            self.faults.append(f"{batch} is too large")
        if self.options["keyed"] and any(key_of(row) != batch.key for row in real):
            self.faults.append(f"{batch} for {[key_of(row) for row in real]}")
        if self.kind != "list" and len({type(row) for row in real}) > 1:
            self.faults.append(f"{batch} mixes structures")
        most = self.options.get("max_batch_weight")
        if most is not None:
            weights = [self.weighs(row) for row in real]
            total = len(real) * max(weights) if self.kind == "pad" else sum(weights)
            if total > most and (len(real) > 1 or self.options["on_overweight"] == "raise"):
                self.faults.append(f"{batch} weighs {total}: {weights}")

    def __call__(self, batch: Any, lengths: Any = None) -> Any:
        rows = self.rows(batch["collated"] if self.collated else batch, lengths, current_batch().model_size)
        self.check(rows)
        real = rows[: current_batch().size]
        if any(poisons(row) for row in real):
            raise Poison([face(row) for row in real])
        texts: list[Any] = [face(row) for row in rows]
        for i, row in enumerate(real):
            if is_bad(row):
                texts[i] = Bad(texts[i])
        if self.answer == "list" or any(is_bad(row) for row in real):
            return texts
        marks = np.array([mark(row) for row in rows])
        if self.answer == "array":
            return np.stack([marks, marks + 1], axis=1)
        if self.answer == "dict":
            return {"text": texts, "mark": marks}
        return (texts, marks) if self.kind != "list" else texts

    async def compute(self, *batch: Any) -> Any:
        return self(*batch)

    def is_answer(self, item: Any, result: Any) -> bool:
        """Whether a result is what the item would have had alone."""
        text, number = face(item), mark(item)
        if isinstance(result, str):
            return result == text
        if isinstance(result, np.ndarray):
            return result.tolist() == [number, number + 1]
        if isinstance(result, dict):
            return result == {"text": text, "mark": number}
        return isinstance(result, tuple) and result == (text, number)


# --- lives


@dataclass
class Asked:
    items: list[Any]
    whole: bool
    future: Any
    timed: bool
    cancelled: bool = False

    def judge(self, model: Model) -> None:
        """See that it ended in a way that it may end."""
        assert self.future.done()
        if self.future.cancelled():
            assert self.cancelled
            return
        faces = [face(item) for item in self.items]
        error = self.future.exception()
        if error is None:
            results = self.future.result() if self.whole else [self.future.result()]
            assert isinstance(results, list)
            assert len(results) == len(faces)
            for item, result in zip(self.items, results, strict=True):
                assert model.is_answer(item, result), (item, result)
                assert not poisons(item)
                assert not is_bad(item)
        elif isinstance(error, Poison):
            assert any(each in error.args[0] for each in faces), (faces, error)
        elif isinstance(error, Bad):
            assert error.args[0] in faces, (faces, error)
        elif isinstance(error, DeadlineExceeded):
            assert self.timed
        else:  # it shared what expired, and could not be computed again
            assert isinstance(error, QueueFull | SchedulerClosed), error
            assert model.options["dedupe"]


@st.composite
def lives(draw: st.DrawFn) -> tuple[Model, dict[str, Any], list[tuple[Any, ...]]]:
    kind = draw(st.sampled_from(["list", "stack", "pad"]))
    collated = kind == "list" and draw(st.booleans())
    options: dict[str, Any] = {
        "max_batch_size": draw(st.integers(1, 6)),
        "max_concurrent_batches": draw(st.integers(1, 3)),
        "policy": draw(st.sampled_from(["adaptive", "immediate", "fixed"])),
        "copy_results": draw(st.booleans()),
        "dedupe": draw(st.booleans()),
        "max_queue_size": draw(st.sampled_from([5, 1000])),
        "on_overweight": draw(st.sampled_from(["raise", "alone"])),
    }
    if options["policy"] == "fixed":
        options["max_wait_ms"] = draw(st.integers(0, 5))
    if draw(st.booleans()):
        options["max_batch_weight"] = draw(st.integers(3, 12))
    if draw(st.booleans()):
        sizes = draw(st.sets(st.integers(1, 8), max_size=3)) | {options["max_batch_size"]}
        options["allowed_batch_sizes"] = sorted(sizes)
        options["batch_padding_policy"] = draw(st.sampled_from(["min_cost", "pad_up", "batch_down"]))
    options["batch_as"] = (lambda items: {"collated": items}) if collated else draw(FORMS[kind])
    if kind != "list":
        options["filler"] = draw(st.sampled_from(["repeat", "zeros"]))
    if kind == "stack":
        options["assemble"] = draw(st.sampled_from(["dispatch", "submit"]))
    keyed, weighed = draw(st.booleans()), draw(st.booleans())
    by_function = draw(st.booleans())
    if by_function and keyed:
        options["key_fn"] = key_of
        if draw(st.booleans()):
            options["share_by_key"] = {"a": 3.0, None: 0.5}
    if by_function and weighed:
        options["weight_fn"] = weight_of
    answers = ["list", "array", "dict", "tuple"]
    about = {**options, "keyed": keyed, "weighed": weighed, "by_function": by_function}
    model = Model(kind, about, draw(st.sampled_from(answers)), collated)
    item = st.sampled_from(draw(pools(kind)))
    timeout = st.sampled_from([None, None, None, 0, 1, 4, 50])
    priority = st.sampled_from([0, 0, 0, -1, 3])
    step = st.one_of(
        st.tuples(st.just("submit"), item, timeout, priority),
        st.tuples(st.just("submit"), item, st.none(), st.just(0)),
        st.tuples(st.just("submit_many"), st.lists(item, max_size=5), timeout, priority),
        st.tuples(st.just("submit_batch"), st.lists(item, max_size=9), timeout, priority),
        st.tuples(st.just("refused"), st.sampled_from([None, *REFUSED[kind]])),
        st.tuples(st.just("cancel"), st.integers(0, 40)),
        st.tuples(st.just("advance"), st.integers(0, 4)),
        st.tuples(st.just("reconfigure"), st.integers(1, options["max_batch_size"])),
    )
    return model, options, draw(st.lists(step, min_size=8, max_size=80))


FORMS: dict[str, st.SearchStrategy[Any]] = {
    "list": st.just("list"),
    "stack": st.sampled_from(["stack", Stack()]),
    "pad": st.sampled_from(["pad", Pad(multiple_of=4), Pad(buckets=[2, 8]), Pad(value=9)]),
}


class Life:
    """What was asked of one scheduler."""

    def __init__(self, scheduler: Scheduler[Any, Any], model: Model) -> None:
        self.scheduler = scheduler
        self.model = model
        self.asked: list[Asked] = []

    def terms(self, items: list[Any], timeout_ms: Any, priority: int) -> dict[str, Any]:
        """Name key and weight where no function does; rows of one request are `alike`."""
        terms: dict[str, Any] = {"timeout_ms": timeout_ms, "priority": priority}
        about = self.model.options
        if items and not about["by_function"]:
            if about["keyed"]:
                terms["key"] = key_of(items[0])
            if about["weighed"]:
                terms["weight"] = weight_of(items[0])
        return terms

    def alike(self, items: list[Any]) -> list[Any]:
        if self.model.options["by_function"]:
            return items
        return [item for item in items if (key_of(item), weight_of(item)) == (key_of(items[0]), weight_of(items[0]))]

    def do(self, step: tuple[Any, ...]) -> None:
        kind, *given = step
        if kind == "cancel" and self.asked:
            asked = self.asked[given[0] % len(self.asked)]
            asked.cancelled |= asked.future.cancel()
        elif kind == "advance" and isinstance(self.scheduler, SteppingScheduler):
            self.scheduler.advance(given[0])
        elif kind == "reconfigure":
            self.scheduler.reconfigure(max_batch_size=given[0])
        elif kind == "refused" and given[0] is not None:
            before = self.scheduler.stats() if isinstance(self.scheduler, SteppingScheduler) else None
            with pytest.raises((TypeError, ValueError)):
                self.scheduler.submit(given[0])
            assert before is None or self.scheduler.stats() == before
        elif kind.startswith("submit"):
            self.submit(kind, *given)

    def submit(self, kind: str, given: Any, timeout_ms: Any, priority: int) -> None:
        items = [given] if kind == "submit" else self.alike(given)
        terms = self.terms(items, timeout_ms, priority)
        timed = timeout_ms is not None
        about = self.model.options
        most = about.get("max_batch_weight", 99) if about["on_overweight"] == "raise" else 99
        refused = any(self.model.weighs(item) > most for item in items)
        with contextlib.suppress(QueueFull), pytest.raises(ValueError, match="weight") if refused else nullcontext():
            if kind == "submit":
                self.asked.append(Asked(items, False, self.scheduler.submit(given, **terms), timed))
            elif kind == "submit_batch":
                self.asked.append(Asked(items, True, self.scheduler.submit_batch(items, **terms), timed))
            else:
                futures = self.scheduler.submit_many(items, **terms)
                self.asked += [Asked([item], False, future, timed) for item, future in zip(items, futures, strict=True)]

    def judge(self) -> None:
        assert self.model.faults == []
        for asked in self.asked:
            asked.judge(self.model)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=lives(), is_async=st.booleans(), service_ms=st.sampled_from([0, 3, 10]))
def test_in_virtual_time(life: Any, is_async: bool, service_ms: int) -> None:
    model, options, steps = life
    fn = model.compute if is_async else model
    scheduler: SteppingScheduler[Any, Any] = SteppingScheduler(fn, service_ms=service_ms, **options)
    world = Life(scheduler, model)
    for step in steps:
        world.do(step)
        scheduler.dispatcher.engine.check()
    scheduler.shutdown()
    world.judge()
    check_books(scheduler.stats())
    assert scheduler.stats().keys == 0


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(life=lives(), is_async=st.booleans(), seed=st.integers(0, 2**32))
def test_in_threads_and_on_a_loop(life: Any, is_async: bool, seed: int) -> None:
    model, options, steps = life
    scheduler: Scheduler[Any, Any] = Scheduler(model.compute if is_async else model, metrics=False, **options)

    def be_a_thread(number: int) -> Life:
        world = Life(scheduler, model)
        mine = list(steps)
        random.Random(f"{seed} {number}").shuffle(mine)
        for step in mine:
            world.do(step)
        concurrent.futures.wait([asked.future for asked in world.asked], LIMIT_S)
        return world

    async def be_a_loop() -> Life:
        world = Life(scheduler, model)
        for step in steps:
            world.do(step)
            await one_turn()
        await asyncio.wait_for(
            asyncio.gather(*(asked.future for asked in world.asked), return_exceptions=True), LIMIT_S
        )
        return world

    threads = [in_thread(be_a_thread, number) for number in range(2)]
    threads.append(in_thread(lambda: asyncio.run(be_a_loop())))
    worlds = [thread.result(2 * LIMIT_S) for thread in threads]
    in_thread(scheduler.shutdown).result(LIMIT_S)
    for world in worlds:
        world.judge()
    check_books(scheduler.stats())
    assert scheduler.stats().keys == 0
