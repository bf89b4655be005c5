"""What may be an item, what becomes of it, and what is refused with which advice."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from naive import Frozen, Pair

from batchcore.assembly import Assembler


class Held:
    """Something with one of the array protocols, and no other."""

    def __init__(self, array: Any) -> None:
        self.array = array


class Subclass(np.ndarray[Any, Any]):
    pass


class WithArray(Held):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


class WithDlpack(Held):
    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnDevice(Held):
    def __dlpack__(self, **how: Any) -> Any:
        raise BufferError("the data lie on a device")

    def __dlpack_device__(self) -> Any:
        return (2, 0)


def mapped() -> mmap.mmap:
    memory = mmap.mmap(-1, 3)
    memory.write(b"\1\2\3")
    return memory


@pytest.mark.parametrize(
    ("item", "dtype", "row"),
    [
        (True, "?", True),
        (7, "i8", 7),
        (2**63, "u8", 2**63),
        (1.5, "f8", 1.5),
        (1 + 2j, "c16", 1 + 2j),
        ("ab", "U2", "ab"),
        (np.float32(1.5), "f4", 1.5),
        (np.datetime64("2024-01-02", "D"), "M8[D]", np.datetime64("2024-01-02").item()),
        (np.bytes_(b"ab"), "S2", b"ab"),
        (b"\1\2\3", "u1", [1, 2, 3]),
        (b"", "u1", []),
        (bytearray(b"\1\2\3"), "u1", [1, 2, 3]),
        (memoryview(b"\1\2\3\4")[::2], "u1", [1, 3]),
        (array.array("h", [1, 2]), "i2", [1, 2]),
        ((ctypes.c_uint16 * 2)(1, 2), "u2", [1, 2]),
        (mapped(), "u1", [1, 2, 3]),
        ([1, 2], "i8", [1, 2]),
        ([[1.0], [2.0]], "f8", [[1.0], [2.0]]),
        ([], "f8", []),
        (WithArray(np.int16([1, 2])), "i2", [1, 2]),
        (WithDlpack(np.float32([1, 2])), "f4", [1.0, 2.0]),
        (WithDlpack(np.arange(6.0)[::2]), "f8", [0.0, 2.0, 4.0]),
        (np.array([1, 2]).view(Subclass), "i8", [1, 2]),
        (np.rec.array([(1, 2.0)], dtype="i4,f8")[0], "i4,f8", (1, 2.0)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_goes_in(item: Any, dtype: str, row: Any) -> None:
    (batch,) = Assembler().assemble_items([item, item])
    assert type(batch) is np.ndarray
    assert batch.dtype == np.dtype(dtype)
    assert batch.tolist() == [row, row]


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        (None, r"dtype object.*batch_as='list'"),
        ({1, 2}, r"dtype object.*batch_as='list'"),
        (object(), r"dtype object.*batch_as='list'"),
        (2**64, r"dtype object.*batch_as='list'"),
        (iter([1]), r"dtype object.*batch_as='list'"),
        (np.array([1, None]), r"dtype object.*batch_as='list'"),
        (np.zeros(1, [("name", "O"), ("n", "i4")]), r"dtype .*O.*batch_as='list'"),
        (np.ma.array([1, 2], mask=[0, 1]), r"masked array.*\.filled\(value\)"),
        ([[1, 2], [3]], r"cannot be made an array.*inhomogeneous"),
        ([1, [2]], r"cannot be made an array.*inhomogeneous"),
        (OnDevice(None), r"OnDevice, cannot be made an array.*on a device"),
        (np.zeros(2, []), r"no bytes"),
        ({"ids": [1], "name": None}, r"field 'name' of an item has dtype object"),
        ({"ids": {"deep": 1}}, r"field 'ids' of an item is a dict: structures are one level deep"),
        ({"ids": (1, 2)}, r"field 'ids' of an item is a tuple: structures are one level deep"),
        (((1, 2), 3), r"field 0 of an item is a tuple: structures are one level deep"),
        (Pair(np.ma.array([1]), 2), r"field 'first' of an item is a masked array"),
    ],
    ids=repr,
)
def test_is_refused_with_advice(item: Any, advice: str) -> None:
    assembler = Assembler()
    with pytest.raises(TypeError, match=advice):
        assembler.prepare_item(item)
    assert assembler.assemble_items([1, 2])[0].tolist() == [1, 2]


@pytest.mark.skipif(not hasattr(np.dtypes, "StringDType"), reason="NumPy 1 has no StringDType")
def test_strings_of_their_own_memory_are_refused() -> None:
    with pytest.raises(TypeError, match="refer to memory of their own"):
        Assembler().prepare_item(np.array(["long", "short"], np.dtypes.StringDType()))


@pytest.mark.parametrize("item", [{}, (), OrderedDict(), UserDict(), dataclass(type("Empty", (), {}))()], ids=repr)
def test_an_item_without_fields_is_refused(item: Any) -> None:
    with pytest.raises(ValueError, match="without fields"):
        Assembler().prepare_item(item)


def test_more_dimensions_than_a_batch_can_have() -> None:
    assert Assembler().assemble_items([np.zeros([1] * 30)])[0].ndim == 31
    with pytest.raises(ValueError, match="31 dimensions; an item may have 30"):
        Assembler().prepare_item(np.zeros([1] * 31))


def test_pad_needs_the_axis() -> None:
    with pytest.raises(ValueError, match=r"0 dimensions, and so no axis 0 to pad: use batch_as='stack'"):
        Assembler(axis=0).prepare_item(3)
    with pytest.raises(ValueError, match=r"no axis 1 to pad"):
        Assembler(axis=1).prepare_item({"a": [1], "b": 2})


def test_an_error_of_the_items_own_comes_through() -> None:
    class Broken:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Assembler().prepare_item(Broken())


# --- dtype=


def test_a_fixed_dtype_is_what_plain_numbers_become() -> None:
    (batch,) = Assembler(dtype="f4").assemble_items([[1, 2], [1.5, 1e300 / 1e290], np.float32([3, 4]), [True, 2]])
    assert batch.dtype == np.float32
    assert batch[:, 0].tolist() == [1, 1.5, 3, 1]
    assert Assembler(dtype="i8").assemble_items([[], []])[0].dtype == np.int64
    assert Assembler(dtype="U3").assemble_items(["a", "abc"])[0].tolist() == ["a", "abc"]
    assert Assembler(dtype="u2").assemble_items([7])[0].dtype == np.uint16


@pytest.mark.parametrize(
    ("dtype", "item"),
    [
        ("f4", np.float64([1])),
        ("f4", np.float64(1)),
        ("f4", np.int32([1])),
        ("<i4", np.zeros(1, ">i4")),
        ("u1", memoryview(np.int8([1]))),
        ("i4", b"abcd"),
        ("i8", 1.5),
        ("i8", [1.0]),
        ("?", 1),
        ("f8", 1j),
        ("i1", 300),
        ("i1", [1, 300]),
        ("u1", -1),
        ("f4", [1.0, 1e300]),
        ("f2", 10**6),
        ("U2", "abc"),
        ("f4", "1"),
    ],
    ids=repr,
)
def test_a_fixed_dtype_casts_nothing(dtype: str, item: Any) -> None:
    with pytest.raises(TypeError, match=r"\bitem\b"):
        Assembler(dtype=dtype).prepare_item(item)


def test_a_fixed_dtype_names_both_and_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"field 'x' of an item has dtype float64, not float32: .*astype\('float32'\)"):
        Assembler(dtype=np.float32).prepare_item({"x": np.zeros(2)})


def test_a_dtype_that_is_none() -> None:
    with pytest.raises(TypeError, match="nonsense"):
        Assembler(dtype="nonsense")
    with pytest.raises(TypeError, match=r"dtype object.*batch_as='list'"):
        Assembler(dtype=object)


# --- structures


def test_dicts_in_another_order_share_a_batch_in_the_order_of_the_first() -> None:
    assembler = Assembler()
    one, other = (assembler.prepare_item(item) for item in ({"b": 1, "a": 2.0}, {"a": 4.0, "b": 3}))
    assert one.layout == other.layout
    (batch,) = assembler.assemble_pieces([one, other])
    assert list(batch) == ["b", "a"]
    assert (batch["a"].tolist(), batch["b"].tolist()) == ([2.0, 4.0], [1, 3])


def test_mappings_are_dicts() -> None:
    for kind in (UserDict, OrderedDict):
        (batch,) = Assembler().assemble_items([kind(ids=[1, 2]), {"ids": [3, 4]}])
        assert type(batch) is dict
        assert batch["ids"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "other",
    [{"a": 1}, {"a": 1, "c": 2}, {"a": 1, "b": 2.0}, {"a": 1, "b": [2]}, (1, 2), Pair(1, 2), Frozen(1, 2), 1],
    ids=repr,
)
def test_another_structure_is_another_layout(other: Any) -> None:
    assembler = Assembler()
    pieces = [assembler.prepare_item(item) for item in ({"a": 1, "b": 2}, other)]
    assert pieces[0].layout != pieces[1].layout
    with pytest.raises(ValueError, match=r"<dict of a: int64\[\], b: int64\[\]> cannot share a batch"):
        assembler.assemble_pieces(pieces)


def test_length_is_that_of_the_longest_padded_field() -> None:
    assembler = Assembler(axis=0)
    assert assembler.prepare_item({"a": [1, 2, 3], "b": [1], "c": 9}).length == 3
    assert assembler.prepare_item([1, 2]).length == 2
    assert assembler.prepare_item([]).length == 0
    assert Assembler().prepare_item([1, 2]).length == 1


def test_every_field_pads_to_its_own_longest() -> None:
    items = [{"a": [1, 2, 3], "b": [1], "c": 9}, {"a": [4], "b": [5, 6], "c": 8}]
    batch, lengths = Assembler(axis=0, give="lengths", value={"a": -1}).assemble_items(items)
    assert {name: rows.tolist() for name, rows in batch.items()} == {
        "a": [[1, 2, 3], [4, -1, -1]],
        "b": [[1, 0], [5, 6]],
        "c": [9, 8],
    }
    assert {name: row.tolist() for name, row in lengths.items()} == {"a": [3, 1], "b": [1, 2]}
    batch, lengths = Assembler(axis=0, give="lengths", value=(0, 7)).assemble_items([(1, [1, 2]), (2, [3])])
    assert batch[1].tolist() == [[1, 2], [3, 7]]
    assert lengths[0] is None
    assert lengths[1].tolist() == [2, 1]


def test_what_pads_must_fit() -> None:
    for value, item, advice in [
        (-1, np.uint8([1]), r"Pad\(value=-1\) does not fit an item, which has dtype uint8"),
        (0.5, [1], r"Pad\(value=0.5\) does not fit"),
        (float("nan"), [1], "does not fit"),
        ({"idz": 1}, {"ids": [1]}, r"names 'idz', but the fields of an item are \('ids',\)"),
        ({"ids": 1}, [1], r"names 'ids', but the fields of an item are none"),
        ((1, 2), ([1], [2], [3]), "2 values for an item of 3 fields"),
        ((1, 2), [1], "2 values for an item of 0 fields"),
    ]:
        with pytest.raises(ValueError, match=advice):
            Assembler(axis=0, value=value).prepare_item(item)
    assert Assembler(axis=0, value=0.0).assemble_items([[1, 2], [3]])[0].tolist() == [[1, 2], [3, 0]]
    batch, *_ = Assembler(axis=0, value=float("nan")).assemble_items([[1.0, 2.0], [3.0]])
    assert np.isnan(batch[1, 1])
    assert Assembler(axis=0).assemble_items([np.array(["ab"]), np.array([], "U2")])[0].tolist() == [["ab"], [""]]


def test_longer_than_the_last_bucket() -> None:
    assembler = Assembler(axis=0, buckets=[2, 4])
    for item in ([1] * 5, np.arange(5), {"a": [1], "b": [1] * 5}):
        with pytest.raises(ValueError, match="is 5 long, but the last of buckets is 4"):
            assembler.prepare_item(item)
    assert assembler.assemble_items([[1, 2, 3]])[0].shape == (1, 4)


# --- what the caller may not do


def test_an_array_that_is_reshaped_in_place_is_never_read_out_of_bounds() -> None:
    assembler = Assembler()
    padding = Assembler(axis=0, buckets=[100, 200])

    def shrink(item: Any) -> None:
        item.resize((1, 2), refcheck=False)

    def flatten(item: Any) -> None:
        item.resize(item.size, refcheck=False)

    for change in (shrink, flatten):
        for wrap in (lambda item: item, lambda item: (item, 1)):
            items = [np.ones((100, 2)) for _ in range(3)]
            pieces = [assembler.prepare_item(wrap(item)) for item in items]
            change(items[1])
            with pytest.raises(ValueError, match="was reshaped after it was submitted"):
                assembler.assemble_pieces(pieces)
            assert assembler.assemble_pieces([pieces[0], pieces[2]])
    item = np.ones((100, 2))
    piece = padding.prepare_item(item)
    item.resize((3, 2), refcheck=False)
    assert padding.assemble_pieces([piece])[0].shape == (1, 100, 2)
    item.resize((300, 2), refcheck=False)
    with pytest.raises(ValueError, match="an item is 300 long"):
        padding.assemble_pieces([piece])


def test_items_are_not_copied_before_their_batch_and_buffers_are_held() -> None:
    assembler = Assembler()
    item = np.arange(3)
    piece = assembler.prepare_item(item)
    item[0] = 9
    assert assembler.assemble_pieces([piece])[0].tolist() == [[9, 1, 2]]
    buffer = bytearray(b"\1\2")
    piece = assembler.prepare_item(buffer)
    with pytest.raises(BufferError):
        buffer.append(3)
    del piece
    buffer.append(3)


def test_what_is_no_piece_or_no_size() -> None:
    assembler = Assembler()
    piece: Any = assembler.prepare_item(1)
    with pytest.raises(ValueError, match="at least one piece"):
        assembler.assemble_pieces([])
    with pytest.raises(TypeError, match="a piece is what prepare_item returns, not 1"):
        assembler.assemble_pieces([piece, 1])  # type: ignore[list-item]
    for size in (1, -1, 2**20 + 1, 2**62):
        with pytest.raises(ValueError, match=f"size is {size}; it must be from 2"):
            assembler.assemble_pieces([piece, piece], size)
    with pytest.raises(MemoryError):
        Assembler(axis=0, multiple_of=2**31 - 1).assemble_items([np.zeros((1, 64))], 2**20)


def layouts() -> int:
    gc.collect()
    return sum(type(thing).__name__ == "Layout" for thing in gc.get_objects())


def test_many_shapes_leave_nothing_behind() -> None:
    before = layouts()
    assembler = Assembler()
    kept = [assembler.prepare_item(np.zeros(size, np.int8)) for size in range(2000)]
    again = [assembler.prepare_item(np.zeros(size, np.int8)) for size in range(2000)]
    assert [piece.layout for piece in kept] == [piece.layout for piece in again]
    assert len({piece.layout for piece in [*kept, *again]}) == 2000
    assert layouts() >= before + 2000
    del kept, again
    assert layouts() <= before + 8
