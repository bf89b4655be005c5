"""Memory of batches: used again when nobody can see it, and not a moment before."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from batchcore.assembly import Assembler


class Capsule:
    """A DLPack capsule that nobody has opened yet."""

    def __init__(self, batch: Any) -> None:
        self.capsule = batch.__dlpack__()

    def open(self) -> Any:
        capsule = self.capsule

        class Opened:
            def __dlpack__(self, **how: Any) -> Any:
                return capsule

            def __dlpack_device__(self) -> Any:
                return (1, 0)

        return np.from_dlpack(Opened())


VIEWS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda batch: batch,
    "slice": lambda batch: batch[1:, :2],
    "slice of a slice": lambda batch: batch[1:][:1],
    "reshaped": lambda batch: batch.reshape(-1)[3:],
    "other dtype": lambda batch: batch.view(np.uint8),
    "broadcast": lambda batch: np.broadcast_to(batch[0], (5, 3)),
    "memoryview": memoryview,
    "buffer of a slice": lambda batch: memoryview(batch[1:]),
    "dlpack": np.from_dlpack,
    "capsule": Capsule,
    "asarray": lambda batch: np.asarray(memoryview(batch)),
    "iterator": np.nditer,
    "flat": lambda batch: batch.flat,
}


def address(batch: Any) -> int:
    return int(batch.ctypes.data)


def batch_of(assembler: Assembler, value: int, rows: int = 2) -> Any:
    return assembler.assemble_items([np.full(3, value)] * rows)[0]


def seen(view: Any) -> Any:
    """Return what a view shows, whatever it is."""
    if isinstance(view, Capsule):
        view = view.open()
    if isinstance(view, np.nditer | np.flatiter):
        return [int(number) for number in view.copy()]
    return np.asarray(view).tolist()


@pytest.mark.parametrize("name", VIEWS)
def test_memory_that_is_seen_is_not_used_again(name: str) -> None:
    assembler = Assembler()
    batch = batch_of(assembler, 7)
    where = address(batch)
    expected = seen(VIEWS[name](batch_of(Assembler(), 7)))
    view = VIEWS[name](batch)
    del batch
    for value in range(20):
        assert address(batch_of(assembler, value)) != where
    assert seen(view) == expected
    del view
    assert any(address(batch) == where for batch in [batch_of(assembler, 1), batch_of(assembler, 2)])


def test_memory_that_nobody_sees_is_used_again_and_is_aligned() -> None:
    for assembler in (Assembler(), Assembler(axis=0, give="mask"), Assembler(staged=True)):
        found = set()
        for value in range(50):
            batch = assembler.assemble_items([{"a": np.full(3, value), "b": 1.0}] * 2)[0]
            found.add(address(batch["a"]))
            assert address(batch["a"]) % 64 == address(batch["b"]) % 64 == 0
            del batch
        assert len(found) == 1


def test_any_field_keeps_the_memory_of_its_batch() -> None:
    assembler = Assembler(axis=0, give="lengths")
    (a, _), lengths = assembler.assemble_items([([1, 2], [3.0])] * 2)
    where = address(a)
    del a, _
    for _other in range(10):
        (other, _), _ = assembler.assemble_items([([5, 6], [7.0])] * 2)
        assert address(other) != where
    assert lengths[0].tolist() == [2, 2]


def test_a_batch_may_be_written() -> None:
    batch = batch_of(Assembler(), 1)
    batch *= 5
    assert batch.tolist() == [[5, 5, 5]] * 2


def test_batches_that_live_at_once_share_nothing() -> None:
    assembler = Assembler()
    batches = [batch_of(assembler, value) for value in range(100)]
    assert [batch[0, 0] for batch in batches] == list(range(100))
    del batches
    assert len(assembler.pool) <= 2  # what is kept is bounded, though a hundred came back
    assembler.pool.limit = 5
    batches = [batch_of(assembler, value) for value in range(100)]
    del batches
    assert len(assembler.pool) == 5


def test_an_assembler_may_go_before_its_batches() -> None:
    batch = batch_of(Assembler(), 3)
    gc.collect()
    assert batch.tolist() == [[3, 3, 3]] * 2


@pytest.mark.parametrize("concurrent", [1, 4])
def test_a_giant_is_let_go_when_it_is_not_needed(concurrent: int) -> None:
    assembler = Assembler(max_concurrent_batches=concurrent)
    tracemalloc.start()
    try:
        giants = [assembler.assemble_items([np.zeros(10**6)] * 2) for _ in range(concurrent)]
        small = np.zeros(10)
        for _ in range(300):
            giants = []
            giants += [assembler.assemble_items([small] * 2) for _ in range(concurrent)]
        assert tracemalloc.get_traced_memory()[0] < 10**6
    finally:
        tracemalloc.stop()


def test_a_giant_is_let_go_when_a_small_one_is_enough() -> None:
    assembler = Assembler()
    tracemalloc.start()
    try:
        giant, small = (assembler.assemble_items([np.zeros(size)] * 2) for size in (10**6, 10))
        del giant
        for _ in range(300):
            small = None  # its block came back last: the next batch takes that, and not the giant's
            small = assembler.assemble_items([np.zeros(10)] * 2)
            assert small[0].shape == (2, 10)
        assert tracemalloc.get_traced_memory()[0] < 10**6
    finally:
        tracemalloc.stop()


def test_a_large_block_serves_small_batches_meanwhile() -> None:
    assembler = Assembler()
    where = set()
    for rows in [64, 1, 8, 64, 2, 64, 3, 32] * 5:
        batch = batch_of(assembler, 1, rows)
        where.add(address(batch))
        del batch
    assert len(where) == 1


def test_a_cycle_through_a_batch_is_collected() -> None:
    class Holder:
        batch: Any

    assembler = Assembler()
    holder = Holder()
    holder.batch = batch_of(assembler, 1)
    where = address(holder.batch)
    holder.self = holder  # type: ignore[attr-defined]
    del holder
    gc.collect()
    assert address(batch_of(assembler, 2)) == where


def test_an_error_on_the_way_leaks_nothing() -> None:
    assembler = Assembler()
    pieces = [assembler.prepare_item(np.zeros(10**5)), assembler.prepare_item(np.zeros(3))]
    tracemalloc.start()
    try:
        for _ in range(50):
            with pytest.raises(ValueError, match="cannot share a batch"):
                assembler.assemble_pieces(pieces)
        assert tracemalloc.get_traced_memory()[0] < 10**5
    finally:
        tracemalloc.stop()


def test_references_are_given_back() -> None:
    dtype = np.dtype("M8[h]").newbyteorder()
    item = np.zeros(3, dtype)
    for assembler in (Assembler(axis=0, give="mask"), Assembler(staged=True)):
        (batch, *marks) = assembler.assemble_items([(item, item)] * 3)
        before = sys.getrefcount(item), sys.getrefcount(item.dtype), sys.getrefcount(np.dtype(bool))
        for _ in range(100):
            (batch, *marks) = assembler.assemble_items([(item, item)] * 3)
        assert (sys.getrefcount(item), sys.getrefcount(item.dtype), sys.getrefcount(np.dtype(bool))) == before
        del batch, marks


class Viewers(RuleBasedStateMachine):
    """Batches of all sizes come and go in any order; whoever looks at one always sees what was in it."""

    @initialize(staged=st.booleans(), concurrent=st.integers(1, 3))
    def start(self, staged: bool, concurrent: int) -> None:
        self.assembler = Assembler(staged=staged, max_batch_size=5, max_concurrent_batches=concurrent)
        self.views: list[tuple[Any, Any]] = []
        self.count = 0

    @rule(
        rows=st.integers(1, 7),
        width=st.sampled_from([1, 3, 1000]),
        name=st.sampled_from(["itself", "slice", "memoryview"]),
    )
    def look(self, rows: int, width: int, name: str) -> None:
        self.count += 1
        (batch,) = self.assembler.assemble_items([np.full(width, self.count + i) for i in range(rows)])
        view = VIEWS[name](batch)
        self.views.append((view, seen(view)))

    @rule(data=st.data())
    def look_away(self, data: st.DataObject) -> None:
        if self.views:
            del self.views[data.draw(st.integers(0, len(self.views) - 1))]

    @invariant()
    def nothing_changed(self) -> None:
        for view, expected in getattr(self, "views", []):
            assert seen(view) == expected


TestViewers = Viewers.TestCase
TestViewers.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
