"""Options of arrays, keys, weights and sizes that are bad, or contradict each other, say value, limit and remedy."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pybatch import Pad, Scheduler, Stack
from pybatch.testing import SteppingScheduler

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"batch_as": "stacked"}, ValueError, "batch_as is 'stacked'; it must be 'list', 'stack', 'pad'"),
    ({"batch_as": Stack}, ValueError, "batch_as is .*Stack"),
    ({"batch_as": 3}, ValueError, "batch_as is 3"),
    ({"batch_as": None}, ValueError, "batch_as is None"),
    ({"array_module": "jax", "batch_as": "stack"}, ValueError, "array_module is 'jax'; it must be one of 'numpy'"),
    ({"array_module": "torch"}, ValueError, "array_module is 'torch', which is for arrays.*batch_as='stack' or 'pad'"),
    ({"assemble": "later", "batch_as": "stack"}, ValueError, "assemble is 'later'; it must be one of 'dispatch'"),
    ({"assemble": "submit"}, ValueError, "assemble is 'submit', which is for arrays"),
    ({"assemble": "submit", "batch_as": list}, ValueError, "batch_as is|assemble is 'submit'"),
    ({"assemble": "submit", "batch_as": "pad"}, ValueError, "assemble='submit' copies rows before the longest"),
    ({"copy_results": "no"}, TypeError, "copy_results must be True or False, not 'no'"),
    ({"filler": "ones", "batch_as": "stack"}, ValueError, "filler is 'ones'; it must be one of 'repeat', 'zeros'"),
    ({"filler": "zeros"}, ValueError, "filler is 'zeros', which is for arrays"),
    ({"allowed_batch_sizes": []}, ValueError, "allowed_batch_sizes must be some sizes in ascending order"),
    ({"allowed_batch_sizes": [4, 2]}, ValueError, r"ascending order, not \[4, 2\]"),
    ({"allowed_batch_sizes": [2, 2]}, ValueError, "ascending order"),
    ({"allowed_batch_sizes": [0, 2]}, ValueError, r"allowed_batch_sizes\[0\] is 0; it must be from 1"),
    ({"allowed_batch_sizes": [1.5]}, TypeError, r"allowed_batch_sizes\[0\] must be an integer, not 1.5"),
    ({"allowed_batch_sizes": 4}, TypeError, "allowed_batch_sizes must be a list of sizes, not 4"),
    ({"allowed_batch_sizes": "48"}, TypeError, "allowed_batch_sizes"),
    (
        {"allowed_batch_sizes": [2, 4], "max_batch_size": 8},
        ValueError,
        "max_batch_size is 8, and the largest of allowed_batch_sizes is 4; allow it too, or lower max_batch_size",
    ),
    ({"batch_padding_policy": "up", "allowed_batch_sizes": [2]}, ValueError, "batch_padding_policy is 'up'; .*pad_up"),
    ({"batch_padding_policy": ["pad_up"], "allowed_batch_sizes": [2]}, ValueError, "batch_padding_policy is"),
    ({"key_fn": "length"}, TypeError, "key_fn must be a function of an item, not 'length'"),
    ({"weight_fn": 3}, TypeError, "weight_fn must be a function of an item, not 3"),
    ({"share_by_key": 3}, TypeError, "share_by_key must be a mapping from key to share, or a function of a key, not 3"),
    ({"share_by_key": {"a": 0}}, ValueError, "the share of key 'a' is 0; it must be from 1e-06 to 1e"),
    ({"max_batch_weight": 0}, ValueError, "max_batch_weight is 0; it must be from 1"),
    ({"max_batch_weight": 2.5}, TypeError, "max_batch_weight must be an integer, not 2.5"),
    ({"on_overweight": "split"}, ValueError, "on_overweight is 'split'; it must be one of 'raise', 'alone'"),
    ({"dedupe": 1}, TypeError, "dedupe must be True, False or a function of an item, not 1"),
    ({"dedupe": None}, TypeError, "dedupe must be True, False or a function of an item, not None"),
]


@pytest.mark.parametrize("kind", [Scheduler, SteppingScheduler])
@pytest.mark.parametrize(("options", "error", "words"), BAD, ids=[str(options) for options, _, _ in BAD])
def test_bad_options_are_refused(
    kind: type[Scheduler[Any, Any]], options: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        kind(list, metrics=False, **options)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "options",
    [
        {"allowed_batch_sizes": (1,)},
        {"allowed_batch_sizes": range(1, 5), "max_batch_size": 3},
        {"batch_as": "stack", "assemble": "submit", "filler": "zeros", "copy_results": True},
        {"batch_as": Pad(multiple_of=8), "max_batch_weight": 100, "on_overweight": "alone"},
        {"share_by_key": {}, "key_fn": len, "weight_fn": len, "dedupe": len},
        {"batch_as": sorted},
    ],
)
def test_what_goes_together_does(options: dict[str, Any]) -> None:
    scheduler: SteppingScheduler[Any, Any] = SteppingScheduler(list, **options)
    assert scheduler.stats().queued == 0


@pytest.mark.parametrize("option", ["allowed_batch_sizes", "key_fn", "batch_as", "max_batch_weight", "dedupe"])
def test_what_cannot_be_changed_while_it_serves_is_no_argument_of_reconfigure(option: str) -> None:
    scheduler: SteppingScheduler[Any, Any] = SteppingScheduler(list)
    with pytest.raises(TypeError, match=re.escape(option)):
        scheduler.reconfigure(**{option: None})
