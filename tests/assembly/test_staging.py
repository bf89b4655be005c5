"""Rows copied at submit: where they lie is where the batch is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from batchcore.assembly import Assembler


def staged(assembler: Assembler, values: list[int], stage: Any = None) -> tuple[list[Any], Any]:
    pieces = []
    for value in values:
        piece = assembler.prepare_item(np.full(3, value))
        stage = assembler.stage_piece(piece, stage)
        pieces.append(piece)
    return pieces, stage


def address(batch: Any) -> int:
    return int(batch.ctypes.data)


def rows(batch: Any) -> list[int]:
    assert (batch == batch[:, :1]).all()
    return [int(row[0]) for row in batch]


@pytest.fixture
def assembler() -> Assembler:
    return Assembler(staged=True, max_batch_size=8)


def test_an_item_may_be_written_again_once_it_is_staged(assembler: Assembler) -> None:
    item = np.arange(3)
    piece = assembler.prepare_item(item)
    stage = assembler.stage_piece(piece)
    item[:] = 9
    item.resize(10**6, refcheck=False)
    assert assembler.assemble_pieces([piece])[0].tolist() == [[0, 1, 2]]
    assert stage is not None


def test_rows_in_a_row_are_the_batch_without_a_copy(assembler: Assembler) -> None:
    pieces, _ = staged(assembler, list(range(8)))
    (first,) = assembler.assemble_pieces(pieces[:3])
    (second,) = assembler.assemble_pieces(pieces[3:])
    assert (rows(first), rows(second)) == ([0, 1, 2], [3, 4, 5, 6, 7])
    assert address(second) == address(first) + first.nbytes


def test_all_fields_of_a_structure_lie_in_the_stage(assembler: Assembler) -> None:
    stage = None
    pieces = []
    for i in range(5):
        pieces.append(assembler.prepare_item({"a": [i] * 5, "b": float(i)}))
        stage = assembler.stage_piece(pieces[-1], stage)
    whole, part = (assembler.assemble_pieces(chosen)[0] for chosen in (pieces, pieces[2:]))
    assert part["a"].tolist() == [[i] * 5 for i in (2, 3, 4)]
    assert part["b"].tolist() == [2.0, 3.0, 4.0]
    assert address(part["a"]) == address(whole["a"][2:])
    assert address(part["b"]) == address(whole["b"][2:])


@pytest.mark.parametrize(("filler", "last"), [("repeat", 4), ("zeros", 0)])
def test_filler_goes_after_the_last_row_if_there_is_room(filler: Any, last: int) -> None:
    assembler = Assembler(staged=True, max_batch_size=8, filler=filler)
    pieces, _ = staged(assembler, [1, 2, 3, 4])
    (part,) = assembler.assemble_pieces(pieces[:1])
    (batch,) = assembler.assemble_pieces(pieces[1:], 6)
    assert rows(batch) == [2, 3, 4, last, last, last]
    assert address(batch) == address(part) + part.nbytes
    pieces, _ = staged(assembler, [1, 2, 3, 4])
    (part,) = assembler.assemble_pieces(pieces[:1])
    (batch,) = assembler.assemble_pieces(pieces[1:], 8)  # one row too many for the stage
    assert rows(batch) == [2, 3, 4, *[last] * 5]
    assert address(batch) != address(part) + part.nbytes


def test_filler_never_overwrites_a_row_that_waits(assembler: Assembler) -> None:
    pieces, _ = staged(assembler, [1, 2, 3, 4])
    (batch,) = assembler.assemble_pieces(pieces[:2], 4)
    assert rows(batch) == [1, 2, 2, 2]
    assert rows(assembler.assemble_pieces(pieces[2:])[0]) == [3, 4]


def test_a_row_that_comes_later_never_overwrites_filler(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [1, 2])
    (batch,) = assembler.assemble_pieces(pieces, 4)
    later, _ = staged(assembler, [3, 4, 5], stage)
    assert rows(batch) == [1, 2, 2, 2]
    assert rows(assembler.assemble_pieces(later)[0]) == [3, 4, 5]


def test_a_drained_stage_is_left_so_that_full_batches_stay_whole(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [0, 1, 2])
    assembler.assemble_pieces(pieces)
    pieces, following = staged(assembler, list(range(8)), stage)
    assert following is not stage
    whole, part = (assembler.assemble_pieces(chosen)[0] for chosen in (pieces, pieces[7:]))
    assert address(part) == address(whole[7:])  # no copy, though 3 + 8 rows are more than a stage


def test_a_stage_that_is_not_drained_goes_on(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [0, 1, 2])
    assembler.assemble_pieces(pieces[:2])
    more, following = staged(assembler, [3, 4], stage)
    assert following is stage
    assert rows(assembler.assemble_pieces([pieces[2], *more])[0]) == [2, 3, 4]


def test_a_full_stage_is_followed_by_another(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, list(range(20)))
    assert rows(assembler.assemble_pieces(pieces)[0]) == list(range(20))
    assert staged(assembler, [1], stage)[1] is stage


def test_rows_are_seen_until_all_views_are_gone(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [1, 2, 3, 4])
    (batch,) = assembler.assemble_pieces(pieces[:2])
    where = address(batch)
    view = memoryview(batch[1:])
    del batch, stage
    others = []
    for value in range(10):
        others.append(assembler.assemble_pieces(staged(assembler, [value])[0])[0])
        assert not where <= address(others[-1]) < where + 8 * 24
    assert rows(assembler.assemble_pieces(pieces[2:])[0]) == [3, 4]  # rows that wait hold it too
    assert view.tolist() == [[2, 2, 2]]
    del others
    del view, pieces
    assert address(assembler.assemble_pieces(staged(assembler, [9])[0])[0]) == where


def test_another_layout_gets_a_stage_of_its_own(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [1])
    other = assembler.prepare_item(np.zeros(4))
    assert assembler.stage_piece(other, stage) is not stage
    assert assembler.assemble_pieces([other])[0].tolist() == [[0.0] * 4]
    assert rows(assembler.assemble_pieces(pieces)[0]) == [1]


def test_an_item_that_was_reshaped_takes_no_place(assembler: Assembler) -> None:
    pieces, stage = staged(assembler, [1])
    item = np.arange(3)
    bad = assembler.prepare_item(item)
    item.resize(1, refcheck=False)
    with pytest.raises(ValueError, match="was reshaped"):
        assembler.stage_piece(bad, stage)
    more, _ = staged(assembler, [2], stage)
    whole = assembler.assemble_pieces([*pieces, *more])[0]
    assert rows(whole) == [1, 2]
    assert address(assembler.assemble_pieces(more)[0]) == address(whole[1:])


def test_a_stage_follows_max_batch_size(assembler: Assembler) -> None:
    assembler.max_batch_size = 2
    _, stage = staged(assembler, [1, 2])
    assert staged(assembler, [3], stage)[1] is not stage


def test_what_cannot_be_staged(assembler: Assembler) -> None:
    with pytest.raises(ValueError, match=r"batch_as='stack', or pad with assemble='dispatch'"):
        Assembler(staged=True, axis=0)
    other = Assembler()
    with pytest.raises(ValueError, match="staged=True"):
        other.stage_piece(other.prepare_item(1))
    piece = assembler.prepare_item(1)
    with pytest.raises(ValueError, match="staged=True"):
        assembler.stage_piece(piece, "stage")
    with pytest.raises(TypeError):
        assembler.stage_piece(1)  # type: ignore[arg-type]
    assembler.max_batch_size = 2**62
    with pytest.raises(MemoryError):
        assembler.stage_piece(piece)
    assembler.max_batch_size = 0
    assembler.stage_piece(piece)
    assert assembler.assemble_pieces([piece])[0].tolist() == [1]
