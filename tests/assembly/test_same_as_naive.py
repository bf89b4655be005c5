"""Laws of assembly: whatever the items, the batch is what NumPy makes of them by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from naive import STRUCTURES, Array, lengths_of, longest_of, mask_of, pad, same, stack

from batchcore.assembly import Assembler

NUMBERS = ["?", "i1", "u2", "<i4", ">i4", "i8", "f2", "<f4", ">f8", "c8", "c16", "g"]
OTHERS = ["S3", "U2", "M8[s]", "m8[ms]", "V5", "i4,f8", "(2,3)i2,?"]

shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
dtypes = st.sampled_from(NUMBERS + OTHERS).map(np.dtype)


def filled(dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> Array:
    """Return an array of small different values, whatever the dtype."""
    if dtype.kind == "V":
        array = np.zeros(shape, dtype)
        raw = array.view(np.uint8) if array.ndim and array.size else array.reshape(-1).view(np.uint8)
        raw[...] = np.arange(start, start + raw.size).reshape(raw.shape) % 2
        return array
    array = np.zeros(shape, dtype)
    array[...] = (np.arange(start, start + array.size).reshape(shape) % 100).astype("i8").astype(dtype)
    return array


@st.composite
def presented(draw: st.DrawFn, array: Array) -> Any:
    """Show an array in another memory order, or as another thing with the same elements."""
    ways = ["itself", "reversed", "fortran", "strided", "read only", "scalar"]
    if array.dtype.kind in "biuf" and array.dtype.isnative and array.dtype.char not in "ge":
        ways.append("memoryview")
    match draw(st.sampled_from(ways)):
        case "reversed" if array.ndim:
            return array[::-1].copy()[::-1]
        case "fortran":
            return np.asfortranarray(array).reshape(array.shape)
        case "strided" if array.ndim:
            return np.repeat(array, 2, axis=-1)[..., ::2]
        case "read only":
            array.flags.writeable = False
        case "scalar" if not array.ndim and array.dtype.isnative and array.dtype.kind not in "SUV":
            return array[()]
        case "memoryview":
            return memoryview(array)
    return array


def check(ours: Any, theirs: Array) -> None:
    assert same(ours, theirs), (ours, theirs)


@given(
    data=st.data(),
    structure=st.sampled_from(sorted(STRUCTURES)),
    count=st.integers(1, 6),
    extra=st.integers(0, 3),
    filler=st.sampled_from(["repeat", "zeros"]),
    staged=st.booleans(),
)
def test_stack(*, data: st.DataObject, structure: str, count: int, extra: int, filler: str, staged: bool) -> None:
    fields, build, take = STRUCTURES[structure]
    kinds = [(data.draw(dtypes), data.draw(shapes)) for _ in range(fields)]
    rows = [[filled(*kind, start=i * 7 + j) for j, kind in enumerate(kinds)] for i in range(count)]
    items = [build([data.draw(presented(array)) for array in row]) for row in rows]
    assembler = Assembler(filler=filler, staged=staged, max_batch_size=data.draw(st.integers(1, 8)))  # type: ignore[arg-type]
    for _ in range(2):  # the second time in memory that was used
        (batch,) = assembler.assemble_items(items, count + extra)
        assert structure == "array" or type(batch) is type(items[0])
        for j, ours in enumerate(take(batch)):
            check(ours, stack([row[j] for row in rows], count + extra, filler))
        del batch, ours
    elements = sum(int(np.prod(shape)) for _, shape in kinds)
    assert assembler.item_elements == 2 * count * elements
    assert assembler.batch_elements == 2 * (count + extra) * elements


@given(
    data=st.data(),
    structure=st.sampled_from(sorted(STRUCTURES)),
    count=st.integers(1, 6),
    extra=st.integers(0, 3),
    filler=st.sampled_from(["repeat", "zeros"]),
    axis=st.integers(0, 2),
    value=st.sampled_from([0, 1, 3]),
    left=st.booleans(),
    rounding=st.one_of(
        st.fixed_dictionaries({"multiple_of": st.integers(1, 9), "buckets": st.just(())}),
        st.fixed_dictionaries({"multiple_of": st.just(1), "buckets": st.sampled_from([(5,), (2, 4, 11)])}),
    ),
    give=st.sampled_from(["lengths", "mask", None]),
)
def test_pad(
    *,
    data: st.DataObject,
    structure: str,
    count: int,
    extra: int,
    filler: Any,
    axis: int,
    value: int,
    left: bool,
    rounding: dict[str, Any],
    give: Any,
) -> None:
    fields, build, take = STRUCTURES[structure]
    names = NUMBERS if value == 0 else NUMBERS[1:]
    kinds = [
        (
            np.dtype(data.draw(st.sampled_from(names if value else names + OTHERS))),
            data.draw(shapes),
            data.draw(st.booleans()),
        )
        for _ in range(fields)
    ]
    kinds[0] = (kinds[0][0], (kinds[0][1] + (2, 1, 2))[: axis + 2], True)
    kinds = [(dtype, shape, padded and len(shape) > axis) for dtype, shape, padded in kinds]

    def shape_of(shape: tuple[int, ...], padded: bool) -> tuple[int, ...]:
        return (*shape[:axis], data.draw(st.integers(0, 5)), *shape[axis + 1 :]) if padded else shape[:axis]

    rows = [
        [filled(dtype, shape_of(shape, padded), i * 7 + j) for j, (dtype, shape, padded) in enumerate(kinds)]
        for i in range(count)
    ]
    items = [build([data.draw(presented(array)) for array in row]) for row in rows]
    assembler = Assembler(axis=axis, value=value, left=left, give=give, filler=filler, **rounding)
    size = count + extra
    arguments = assembler.assemble_items(items, size)
    assert len(arguments) == (1 if give is None else 2)
    real = total = 0
    for j, ours in enumerate(take(arguments[0])):
        column = [row[j] for row in rows]
        if not kinds[j][2]:
            check(ours, stack(column, size, filler))
        else:
            check(ours, pad(column, size, filler, axis=axis, value=value, left=left, **rounding))
            longest = longest_of([array.shape[axis] for array in column], **rounding)
            lengths = lengths_of(column, size, filler, axis, longest)
            if give is not None:
                check(
                    marks_of(arguments, structure, j), lengths if give == "lengths" else mask_of(lengths, longest, left)
                )
        real += sum(array.size for array in column)
        total += ours.size
    assert (assembler.item_elements, assembler.batch_elements) == (real, total)


def marks_of(arguments: Sequence[Any], structure: str, field: int) -> Any:
    batch, marks = arguments
    if structure == "dict":
        return marks[("first", "second")[field]]
    assert type(marks) is type(batch)
    return STRUCTURES[structure][2](marks)[field]


MOVED = {"names": ["f0"], "formats": ["i4"], "offsets": [4], "itemsize": 8}
ALIKE = ["f4", "f8", "<i4", ">i4", "l", "q", "i4,i4", "i4,f4", MOVED, {**MOVED, "offsets": [0]}]


@given(st.lists(st.sampled_from(ALIKE).map(np.dtype), min_size=2, max_size=12), st.data())
def test_layouts_are_equal_where_dtype_and_shape_are(names: list[np.dtype[Any]], data: st.DataObject) -> None:
    assembler = Assembler()
    arrays = [np.zeros(data.draw(st.sampled_from([(), (0,), (2,), (2, 1)])), name) for name in names]
    pieces = [assembler.prepare_item(array) for array in arrays]
    for a, one in zip(arrays, pieces, strict=True):
        for b, other in zip(arrays, pieces, strict=True):
            equal = a.dtype == b.dtype and a.shape == b.shape
            assert (one.layout == other.layout) == equal
            assert not equal or hash(one.layout) == hash(other.layout)


@given(st.data(), st.permutations(range(7)), st.integers(1, 7), st.integers(0, 4), st.integers(1, 9))
def test_staged_rows_in_any_order(data: st.DataObject, order: list[int], count: int, extra: int, rows: int) -> None:
    items = [(np.full(3, i, np.int16), np.float64(i)) for i in range(7)]
    assembler = Assembler(staged=True, max_batch_size=rows)
    stage = None
    pieces = []
    for item in items:
        pieces.append(assembler.prepare_item(item))
        if data.draw(st.integers(0, 5)):  # one that is not staged is gathered too
            stage = assembler.stage_piece(pieces[-1], stage)
    chosen = order[:count] if data.draw(st.booleans()) else sorted(order[:count])
    ((ids, values),) = assembler.assemble_pieces([pieces[i] for i in chosen], count + extra)
    expected = [*chosen, *chosen[-1:] * extra]
    assert ids.tolist() == [[i] * 3 for i in expected]
    assert values.tolist() == expected
