"""An item that its owner changes in place, after it was submitted, fails alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pybatch import Pad
from pybatch.testing import SteppingScheduler


@pytest.mark.parametrize("allowed", [None, [4, 8]])
def test_an_item_that_was_reshaped_fails_alone(allowed: list[int] | None) -> None:
    seen: list[int] = []

    def fn(batch: Any) -> Any:
        seen.append(len(batch))
        return batch.sum(axis=1)

    scheduler = SteppingScheduler(fn, batch_as="stack", allowed_batch_sizes=allowed)
    items = [np.full(4, i) for i in range(4)]
    futures = [scheduler.submit(item) for item in items]
    items[1].resize((2, 2), refcheck=False)
    scheduler.advance(0)
    assert [future.result() for i, future in enumerate(futures) if i != 1] == [0, 8, 12]
    with pytest.raises(ValueError, match="reshaped after it was submitted"):
        futures[1].result()
    assert seen == [4]  # filler is in its place
    assert scheduler.stats().failed == 1


def test_an_item_that_outgrew_the_buckets_fails_alone() -> None:
    scheduler = SteppingScheduler(lambda batch: batch.sum(axis=1), batch_as=Pad(buckets=[4], give=None))
    grows = np.ones(2)
    futures = [scheduler.submit(np.ones(3)), scheduler.submit(grows)]
    grows.resize(9, refcheck=False)
    scheduler.advance(0)
    assert futures[0].result() == 3
    with pytest.raises(ValueError, match="last of buckets is 4"):
        futures[1].result()


def test_a_batch_of_nothing_but_changed_items_fails() -> None:
    scheduler = SteppingScheduler(lambda batch: batch, batch_as="stack")
    item = np.ones(4)
    future = scheduler.submit(item)
    item.resize((2, 2), refcheck=False)
    scheduler.advance(0)
    with pytest.raises(ValueError, match="reshaped after it was submitted"):
        future.result()
