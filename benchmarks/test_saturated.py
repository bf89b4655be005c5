"""Throughput under a queue that is always full: one table a path and ``max_batch_size``.

A round is `REQUESTS` requests. The CPU time of a request, all threads together, is in the saved data
(``--benchmark-json``) as ``cpu_ns_per_request``; ``cpu_per_request.py`` prints it.
"""

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from workloads import BATCH_SIZES, CONTENDERS, OUTSTANDING

REQUESTS = 20 * OUTSTANDING


@pytest.mark.parametrize("max_batch_size", BATCH_SIZES)
@pytest.mark.parametrize(("path", "contender"), [(path, name) for path, names in CONTENDERS.items() for name in names])
def test_saturated(benchmark: BenchmarkFixture, path: str, contender: str, max_batch_size: int) -> None:
    benchmark.group = f"saturated, {path}, max_batch_size={max_batch_size}"
    with CONTENDERS[path][contender](max_batch_size) as loads:
        cpu_ns: list[int] = []

        def one_round() -> None:
            start_ns = time.process_time_ns()
            loads.saturated(REQUESTS)
            cpu_ns.append(time.process_time_ns() - start_ns)

        benchmark.pedantic(one_round, rounds=7, warmup_rounds=1)
    benchmark.extra_info["cpu_ns_per_request"] = statistics.median(cpu_ns) / REQUESTS
