"""Results that look like rows and are none, and shares of requests without a key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from batchcore.errors import InvalidBatchResult
from pybatch.testing import SteppingScheduler


class Frame:
    """Has a length and iterates over the names of its columns, as data frames do."""

    columns = ("a", "b")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, name: str) -> list[int]:
        return [1, 2]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


@pytest.mark.parametrize(
    ("results", "words"), [(Frame(), "by columns"), (memoryview(np.zeros((2, 2))), "cannot be read")]
)
def test_results_that_are_not_read_by_rows_are_refused(results: Any, words: str) -> None:
    scheduler = SteppingScheduler(lambda xs: results, max_batch_size=2)
    futures = scheduler.submit_many([1, 2])
    scheduler.advance(0)
    for future in futures:
        with pytest.raises(InvalidBatchResult, match=words):
            future.result()


def test_a_function_of_shares_is_not_asked_about_requests_without_a_key() -> None:
    scheduler = SteppingScheduler(lambda xs: xs, share_by_key=lambda key: {"a": 2.0}[key])
    futures = [scheduler.submit(1), scheduler.submit(2, key="a")]
    scheduler.advance(0)
    assert [future.result() for future in futures] == [1, 2]
