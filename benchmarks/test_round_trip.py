"""The way there and back of a request that meets nobody: one table a path.

The time of a round is the time of 1,000 requests, one after the other: read its milliseconds as microseconds a request.
"""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from timing import compare
from workloads import CONTENDERS


@pytest.mark.parametrize(("path", "contender"), [(path, name) for path, names in CONTENDERS.items() for name in names])
def test_idle_round_trip(benchmark: BenchmarkFixture, path: str, contender: str) -> None:
    with CONTENDERS[path][contender](64) as loads:
        compare(benchmark, f"idle round trip, {path}", loads.round_trips, 1_000)
