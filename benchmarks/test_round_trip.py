"""The way there and back of a request that meets nobody: one table a path.

A round is `REQUESTS` requests one after the other. The CPU time of a request is in the saved data, as in
``test_saturated.py``.
"""

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import CONTENDERS

REQUESTS = 1_000


@pytest.mark.parametrize(("path", "contender"), [(path, name) for path, names in CONTENDERS.items() for name in names])
def test_idle_round_trip(benchmark: BenchmarkFixture, path: str, contender: str) -> None:
    benchmark.group = f"idle round trip, {path}"
    with CONTENDERS[path][contender](64) as loads:
        ...
