"""Compare what one request costs, here and in batchers written by hand, and say whether this project keeps its word.

CPU time is that of the whole process, all its threads: it sees the work that wall time hides behind a second core, and
is the steadier of the two on a busy machine. All contenders run in this one process, in turn, each round anew and
warmed up and in another order; a figure is the median over the rounds.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from loads import OUTSTANDING
from workloads import BATCH_SIZES, BY_HAND, CONTENDERS, OURS

EPILOG = """\
each path is loaded in its own way:
  threads            one thread keeps 1,024 requests outstanding
  asyncio, async fn  1,024 client tasks, each awaiting one request at a time; fn runs on their loop
  asyncio, sync fn   the same clients; fn runs on another thread

fn does nothing: a figure is the price of the way there and back. "one at a time" has no queue at all but calls fn for
each item; it would lose with any fn to which a batch is cheaper than its items.

examples:
  python benchmarks/cpu_per_request.py            some minutes: figures to quote
  python benchmarks/cpu_per_request.py --quick    a look: too short for close calls
  python benchmarks/cpu_per_request.py --check    for scripts: exit status 1 if a bar is missed
"""


Clock = Literal["CPU", "wall"]
CLOCKS: tuple[Clock, ...] = ("CPU", "wall")


@dataclass(frozen=True, slots=True)
class Row:
    """What one request takes in ns, by clock and contender, at one ``max_batch_size`` of one path."""

    path: str
    max_batch_size: int
    ns_per_request: dict[Clock, dict[str, float]]

    def ratio(self, clock: Clock) -> float:
        """Say how many times our cost the batcher written by hand takes."""
        return self.ns_per_request[clock][BY_HAND] / self.ns_per_request[clock][OURS]


@dataclass(frozen=True, slots=True)
class Bar:
    """The promise that by hand a request takes at least `least` times what it takes here."""

    path: str
    max_batch_size: int
    clock: Clock
    least: float


BARS = [
    Bar("threads", 1, "CPU", 5.0),
    Bar("threads", 64, "CPU", 8.0),
    *(Bar("asyncio, async fn", size, "wall", 1.0) for size in BATCH_SIZES),
]


def measure(path: str, max_batch_size: int, rounds: int, requests: int) -> Row:
    names = list(CONTENDERS[path])
    taken_ns: dict[Clock, dict[str, list[int]]] = {clock: {name: [] for name in names} for clock in CLOCKS}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with CONTENDERS[path][name](max_batch_size) as loads:
                wall_start_ns, cpu_start_ns = time.perf_counter_ns(), time.process_time_ns()
                loads.saturated(requests)
                taken_ns["CPU"][name].append(time.process_time_ns() - cpu_start_ns)
                taken_ns["wall"][name].append(time.perf_counter_ns() - wall_start_ns)
    medians: dict[Clock, dict[str, float]] = {
        clock: {name: statistics.median(rounds_ns) / requests for name, rounds_ns in taken_ns[clock].items()}
        for clock in CLOCKS
    }
    return Row(path, max_batch_size, medians)


def table(path: str, rows: list[Row]) -> Iterator[str]:
    """Lay out the rows of one path as markdown."""
    heads = ["ns per request", "max_batch_size", *CONTENDERS[path], f"{BY_HAND} / {OURS}"]
    yield f"{path}\n"
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join('-' * (len(head) + 1) + ':' for head in heads)}|"
    for clock in CLOCKS:
        for row in rows:
            costs = [f"{row.ns_per_request[clock][name]:,.0f}" for name in CONTENDERS[path]]
            cells = [clock, str(row.max_batch_size), *costs, f"{row.ratio(clock):.2f}"]
            yield f"| {' | '.join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True))} |"
    yield ""


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What one request costs under a full queue: this scheduler, batchers written by hand, no batching.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds of 10,240 requests instead of 9 of 51,200")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    rounds, requests = (3, 10 * OUTSTANDING) if chosen.quick else (9, 50 * OUTSTANDING)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    costs = {(path, size): measure(path, size, rounds, requests) for path in CONTENDERS for size in BATCH_SIZES}
    bars = [(bar, costs[bar.path, bar.max_batch_size].ratio(bar.clock)) for bar in BARS]
    if chosen.json:
        report = {
            "machine": machine,
            "rounds": rounds,
            "requests_per_round": requests,
            "costs": [asdict(row) for row in costs.values()],
            "bars": [asdict(bar) | {"ratio": ratio, "met": ratio >= bar.least} for bar, ratio in bars],
        }
        print(json.dumps(report, indent=2))
    else:
        print(f"{machine}; {rounds} rounds of {requests:,} requests\n")
        for path in CONTENDERS:
            print("\n".join(table(path, [costs[path, size] for size in BATCH_SIZES])))
        for bar, ratio in bars:
            verdict = "met   " if ratio >= bar.least else "MISSED"
            times = f"{ratio:.2f} times the {bar.clock} time of {OURS} (at least {bar.least:g})"
            print(f"{verdict} {bar.path}, max_batch_size={bar.max_batch_size}: by hand takes {times}")
    return int(chosen.check and any(ratio < bar.least for bar, ratio in bars))


if __name__ == "__main__":
    sys.exit(main())
