"""Batches as torch tensors, and tensors as items; `make test-torch` runs these, with torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batchcore.assembly import Assembler

DTYPES = [
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.complex64,
    torch.complex128,
]


@pytest.fixture(params=["pageable", "pinned"])
def assembler_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make assemblers as on a machine without CUDA, and as on one with it (where memory is only said to be pinned)."""
    pinned: list[int] = []
    if request.param == "pinned":
        empty = torch.empty

        def pretend(*sizes: Any, pin_memory: bool = False, **how: Any) -> torch.Tensor:
            made = empty(*sizes, **how)
            if pin_memory:
                pinned.append(made.data_ptr())
            return made

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch, "empty", pretend)
    else:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    yield lambda **options: Assembler(array_module="torch", **options)
    assert bool(pinned) == (request.param == "pinned")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_out_as_it_went_in(assembler_of: Any, dtype: torch.dtype) -> None:
    items = [torch.tensor([[i, 1], [0, 1], [i, 1]]).to(dtype) for i in range(3)]
    for shown in (items, [item.t().contiguous().t() for item in items]):
        (batch,) = assembler_of().assemble_items(shown)
        assert batch.dtype == dtype
        assert batch.is_contiguous()
        assert torch.equal(batch, torch.stack(items))
    batch, lengths = assembler_of(axis=0, give="lengths").assemble_items([items[0], items[1][:1]])
    assert torch.equal(batch, torch.nn.utils.rnn.pad_sequence([items[0], items[1][:1]], batch_first=True))
    assert lengths.dtype == torch.int64
    assert lengths.tolist() == [3, 1]


@given(
    lengths=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    dtype=st.sampled_from([torch.int64, torch.float32, torch.bfloat16]),
    value=st.sampled_from([0, -100, 1]),
    extra=st.integers(0, 2),
)
def test_pad_as_torch_does(lengths: list[int], dtype: torch.dtype, value: int, extra: int) -> None:
    items = [torch.arange(length).to(dtype) for length in lengths]
    assembler = Assembler(array_module="torch", axis=0, value=value, give="mask")
    batch, mask = assembler.assemble_items(items, len(items) + extra)
    items += items[-1:] * extra
    expected = torch.nn.utils.rnn.pad_sequence(items, batch_first=True, padding_value=value)
    assert torch.equal(batch, expected)
    assert mask.dtype == torch.bool
    assert mask.sum(1).tolist() == [len(item) for item in items]


def test_structures_and_arrays_become_tensors(assembler_of: Any) -> None:
    items = [{"ids": np.arange(i + 1), "weight": 0.5, "name": torch.zeros(2, 2)} for i in range(3)]
    batch, lengths = assembler_of(axis=0, give="lengths").assemble_items(items, 4)
    assert batch["ids"].tolist() == [[0, 0, 0], [0, 1, 0], [0, 1, 2], [0, 1, 2]]
    assert (batch["weight"].dtype, batch["name"].shape) == (torch.float64, (4, 2, 2))
    assert {name: row.tolist() for name, row in lengths.items()} == {"ids": [1, 2, 3, 3], "name": [2, 2, 2, 2]}


def test_a_tensor_keeps_the_memory_of_its_batch(assembler_of: Any) -> None:
    assembler = assembler_of()
    (batch,) = assembler.assemble_items([torch.full((3,), 7)] * 2)
    where = batch.data_ptr()
    view = batch[1:].numpy()
    del batch
    others = []
    for value in range(20):
        others.append(assembler.assemble_items([torch.full((3,), value)] * 2)[0])
        assert others[-1].data_ptr() != where
    assert view.tolist() == [[7, 7, 7]]


def test_memory_that_no_tensor_sees_is_used_again() -> None:
    assembler = Assembler(array_module="torch")
    found = set()
    for value in range(50):
        (batch,) = assembler.assemble_items([torch.full((3,), value)] * 2)
        found.add(batch.data_ptr())
        assert batch.data_ptr() % 64 == 0
        batch.add_(1)
        del batch
    assert len(found) == 1


def test_staged_rows_are_tensors_where_they_lie(assembler_of: Any) -> None:
    assembler = assembler_of(staged=True, max_batch_size=8)
    stage = None
    pieces = []
    for i in range(5):
        pieces.append(assembler.prepare_item({"a": torch.full((3,), i, dtype=torch.bfloat16), "b": i}))
        stage = assembler.stage_piece(pieces[-1], stage)
    (part,) = assembler.assemble_pieces(pieces[:2])
    (rest,) = assembler.assemble_pieces(pieces[2:], 6)
    assert rest["a"][:, 0].tolist() == rest["b"].tolist() == [2, 3, 4, 4, 4, 4]
    assert rest["a"].data_ptr() == part["a"].data_ptr() + 2 * 3 * 2
    del pieces, stage, part
    gc.collect()
    assert rest["a"][:, 1].tolist() == [2, 3, 4, 4, 4, 4]


def test_bfloat16_of_other_libraries_is_torchs() -> None:
    (batch,) = Assembler(array_module="torch").assemble_items([np.ones(2, ml_dtypes.bfloat16)])
    assert batch.dtype == torch.bfloat16
    assert batch.tolist() == [[1, 1]]
    (batch,) = Assembler().assemble_items([np.ones(2, ml_dtypes.bfloat16)])
    assert batch.dtype == ml_dtypes.bfloat16


def test_a_fixed_dtype_may_be_torchs() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assembler = Assembler(array_module="torch", dtype=dtype)
        assert assembler.assemble_items([torch.ones(2, dtype=dtype)])[0].dtype == dtype
        with pytest.raises(TypeError, match="an item has dtype int64"):
            assembler.prepare_item(torch.ones(2, dtype=torch.int64))
    assert Assembler(array_module="torch", dtype=torch.float32).assemble_items([[1, 2]])[0].dtype == torch.float32


def test_tensors_go_into_arrays() -> None:
    tensor = torch.arange(3)
    assembler = Assembler()
    piece = assembler.prepare_item(tensor)
    tensor[0] = 9  # not copied before its batch is made
    (batch,) = assembler.assemble_pieces([piece, assembler.prepare_item(np.arange(3))])
    assert type(batch) is np.ndarray
    assert batch.tolist() == [[9, 1, 2], [0, 1, 2]]


@pytest.mark.parametrize(
    ("tensor", "advice"),
    [
        (torch.ones(2, requires_grad=True), r"requires grad.*pass \.detach\(\)"),
        (torch.nn.Parameter(torch.ones(2)), r"requires grad.*pass \.detach\(\)"),
        (torch.ones(2, device="meta"), r"a tensor on meta.*pass \.cpu\(\)"),
        (torch.ones(2).to_sparse(), "cannot be made an array"),
        (torch.ones(2, dtype=torch.complex64).conj(), "cannot be made an array"),
    ],
    ids=["grad", "parameter", "device", "sparse", "conjugate"],
)
@pytest.mark.parametrize("array_module", ["numpy", "torch"])
def test_tensors_that_are_refused(tensor: torch.Tensor, advice: str, array_module: Any) -> None:
    with pytest.raises(TypeError, match=advice):
        Assembler(array_module=array_module).prepare_item({"x": tensor})


def test_bfloat16_is_refused_where_batches_are_arrays() -> None:
    with pytest.raises(TypeError, match="bfloat16, which NumPy has not: use array_module='torch'"):
        Assembler().prepare_item(torch.ones(2, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    "item", ["text", np.zeros(2, ">f4"), np.datetime64("2024"), np.zeros(2, "i4,f4"), np.longdouble(1)]
)
def test_dtypes_that_torch_has_not(item: Any) -> None:
    with pytest.raises(TypeError, match=r"an item has dtype .*, which torch has not.*array_module='numpy'"):
        Assembler(array_module="torch").prepare_item(item)
