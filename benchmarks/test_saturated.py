"""Throughput under a queue that is always full: one table a path and ``max_batch_size``.

The time of a round is the time of 20,480 requests. ``cpu_per_request.py`` says what one of them costs.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from loads import OUTSTANDING
from timing import compare
from workloads import BATCH_SIZES, CONTENDERS


@pytest.mark.parametrize("max_batch_size", BATCH_SIZES)
@pytest.mark.parametrize(("path", "contender"), [(path, name) for path, names in CONTENDERS.items() for name in names])
def test_saturated(benchmark: BenchmarkFixture, path: str, contender: str, max_batch_size: int) -> None:
    with CONTENDERS[path][contender](max_batch_size) as loads:
        compare(benchmark, f"saturated, {path}, max_batch_size={max_batch_size}", loads.saturated, 20 * OUTSTANDING)
