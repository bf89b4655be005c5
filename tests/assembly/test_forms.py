"""`Stack` and `Pad`: options that are checked when they are named."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from batchcore.assembly import Assembler
from pybatch.forms import Pad, Stack


def test_options_reach_the_assembler() -> None:
    form = Pad(value=-1, axis=1, side="left", buckets=[2, 4], give="mask", dtype="i4")
    batch, mask = form.assembler(max_batch_size=4, filler="zeros").assemble_items([[[1, 2, 3]]], 2)
    assert batch.dtype == np.int32
    assert batch.tolist() == [[[-1, 1, 2, 3]], [[-1] * 4]]
    assert mask.tolist() == [[False, True, True, True], [False, False, False, True]]
    assert Pad(multiple_of=8, give=None).assembler(max_batch_size=4).assemble_items([[1]])[0].shape == (1, 8)
    assembler = Stack(dtype="f4").assembler(max_batch_size=4, staged=True, max_concurrent_batches=3)
    assert (assembler.staged, assembler.max_batch_size, assembler.pool.limit) == (True, 4, 4)
    assert Pad(buckets=[2, 4]) == Pad(buckets=(2, 4))


@pytest.mark.parametrize(
    ("options", "error", "advice"),
    [
        ({"axis": -1}, ValueError, "axis"),
        ({"axis": 30}, ValueError, "axis"),
        ({"axis": 1.0}, TypeError, "axis"),
        ({"side": "top"}, ValueError, "side is 'top'; it must be one of 'right', 'left'"),
        ({"give": True}, ValueError, "give is True; it must be one of 'lengths', 'mask', None"),
        ({"multiple_of": 0}, ValueError, "multiple_of"),
        ({"multiple_of": 8, "buckets": [8]}, ValueError, "leave out one of them"),
        ({"buckets": []}, ValueError, "one length or more"),
        ({"buckets": [4, 2]}, ValueError, "each above the one before"),
        ({"buckets": [4, 4]}, ValueError, "each above the one before"),
        ({"buckets": [0]}, ValueError, r"buckets\[0\]"),
        ({"buckets": ["8"]}, TypeError, r"buckets\[0\]"),
        ({"buckets": 8}, TypeError, "list of lengths, not 8"),
        ({"value": "0"}, TypeError, "value must be a number.*not '0'"),
        ({"value": {"ids": None}}, TypeError, "value must be a number"),
        ({"value": [0, "1"]}, TypeError, "value must be a number"),
        ({"dtype": "nonsense"}, TypeError, "nonsense"),
        ({"dtype": object}, TypeError, "dtype object"),
    ],
    ids=repr,
)
def test_bad_options(options: dict[str, Any], error: type[Exception], advice: str) -> None:
    with pytest.raises(error, match=advice):
        Pad(**options)
    if "dtype" in options:
        with pytest.raises(error, match=advice):
            Stack(**options)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ({"filler": "ones"}, "filler is 'ones'; it must be one of 'repeat', 'zeros'"),
        ({"array_module": "jax"}, "array_module is 'jax'; it must be one of 'numpy', 'torch'"),
        ({"axis": -2}, "axis is -2; it must be from 0 to 29"),
        ({"axis": 30}, "axis is 30; it must be from 0 to 29"),
        ({"axis": 0, "multiple_of": 0}, "multiple_of is 0; it must be from 1"),
        ({"axis": 0, "buckets": [2**31]}, "the last of buckets is 2147483648; it must be from 1"),
        ({"give": "length"}, "give is 'length'; it must be one of"),
    ],
    ids=repr,
)
def test_bad_choices_of_an_assembler(options: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match=advice):
        Assembler(**options)


def test_numpy_is_imported_when_it_is_needed() -> None:
    script = (
        "import sys, pybatch.forms as forms\n"
        "form = forms.Pad(multiple_of=8)\n"
        "assert 'numpy' not in sys.modules\n"
        "form.assembler(max_batch_size=4)\n"
        "assert 'numpy' in sys.modules and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)
