"""How a load is timed under pytest-benchmark."""

import statistics
import time
from collections.abc import Callable

from pytest_benchmark.fixture import BenchmarkFixture


def compare(benchmark: BenchmarkFixture, group: str, load: Callable[[int], None], requests: int) -> None:
    """Time rounds of `requests` requests under `load`, to be compared with whatever else is in `group`.

    The CPU time of one request, over all threads, goes to ``extra_info``: the table shows wall time only.
    """
    cpu_ns: list[int] = []

    def one_round() -> None:
        start_ns = time.process_time_ns()
        load(requests)
        cpu_ns.append(time.process_time_ns() - start_ns)

    benchmark.group = group
    benchmark.pedantic(one_round, rounds=7, warmup_rounds=1)  # type: ignore[no-untyped-call]
    benchmark.extra_info["requests_per_round"] = requests
    benchmark.extra_info["cpu_ns_per_request"] = round(statistics.median(cpu_ns) / requests)
