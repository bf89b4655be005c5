"""Compare latencies under Poisson arrivals in real time, here and in a batcher by hand, and say if the bars are met.

A thread that waits for nobody submits at instants drawn beforehand, the same for all contenders of a round; a latency
runs from the instant at which a request was due to the callback of its future, so that a submit that comes late, or
takes long, counts against whoever is to blame.  Contenders take turns within a round, each round in another order, and
are compared round by round: what disturbs a busy machine for minutes disturbs all of them.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

import numpy as np

from contenders.interface import Fn
from contenders.ours import Pybatch
from contenders.thread_queue import ThreadQueue

EPILOG = """\
the model takes 2 ms + 0.05 ms an item and holds the interpreter for the last
0.1 ms of it; batches have at most 32 items, so 100 % load is 8,889 requests a
second. The worker is hardly ever idle, even with 30 %: batches are small then.
A batcher that cannot keep up with 95 % falls behind for as long as it runs.

  by hand             takes what is there and never waits (contenders/thread_queue.py)
  pybatch             policy "adaptive", max_latency_ms=20
  pybatch, immediate  policy "immediate", which takes what is there and never waits

A latency is the median over the rounds of that percentile, with the least and
the most in brackets; the first tenth of every run is not counted.

examples:
  python benchmarks/poisson_in_real_time.py            four minutes: figures to quote
  python benchmarks/poisson_in_real_time.py --quick    a look: too short for close calls
  python benchmarks/poisson_in_real_time.py --check    for scripts: exit status 1 if a bar is missed
"""

PER_BATCH_NS, PER_ITEM_NS = 2_000_000, 50_000
SPIN_NS = 100_000
"""A sleeper wakes up to this much late; the model spins for as long."""
MAX_BATCH_SIZE = 32
CAPACITY_PER_SECOND = MAX_BATCH_SIZE * 1e9 / (PER_BATCH_NS + MAX_BATCH_SIZE * PER_ITEM_NS)
LOADS = (0.30, 0.70, 0.95)
GOAL_MS = 20.0
PERCENTILES = (50, 95, 99)
WIDE = 24
BY_HAND, OURS, IMMEDIATE = "by hand", "pybatch", "pybatch, immediate"


class Contender(Protocol):
    """A batcher whose futures call back."""

    def submit(self, item: int, /) -> Future[int]:
        """Accept one item and return at once."""
        ...

    def close(self) -> None:
        """Answer what was accepted, then stop."""
        ...


CONTENDERS: dict[str, Callable[[Fn], Contender]] = {
    BY_HAND: lambda fn: ThreadQueue(fn, MAX_BATCH_SIZE),
    OURS: lambda fn: Pybatch(fn, MAX_BATCH_SIZE, max_latency_ms=GOAL_MS),
    IMMEDIATE: lambda fn: Pybatch(fn, MAX_BATCH_SIZE, policy="immediate"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """What one contender made of one load: a figure a round."""

    load: float
    contender: str
    percentiles_ms: dict[int, list[float]]
    within_goal: list[float]


@dataclass(frozen=True, slots=True)
class Bar:
    """A promise about ours against the batcher by hand; `found` says what it was, the median over the rounds."""

    load: float
    promise: str
    found: str
    met: bool


def model(items: list[int]) -> list[int]:
    end_ns = time.monotonic_ns() + PER_BATCH_NS + PER_ITEM_NS * len(items)
    time.sleep((end_ns - time.monotonic_ns() - SPIN_NS) / 1e9)
    while time.monotonic_ns() < end_ns:
        pass
    return items


def latencies_ms(make: Callable[[Fn], Contender], arrivals_ns: list[int]) -> list[float]:
    """Submit at `arrivals_ns` from now; return how long each answer took, the first tenth left out."""
    finished_ns = [0] * len(arrivals_ns)

    def finish(request: int, _: Future[int]) -> None:
        finished_ns[request] = time.monotonic_ns()

    contender = make(model)
    try:
        start_ns = time.monotonic_ns()
        for request, arrival_ns in enumerate(arrivals_ns):
            while (left_ns := start_ns + arrival_ns - time.monotonic_ns()) > 0:
                time.sleep(left_ns / 1e9)
            contender.submit(request).add_done_callback(partial(finish, request))
    finally:
        contender.close()
    counted = range(len(arrivals_ns) // 10, len(arrivals_ns))
    return [(finished_ns[request] - start_ns - arrivals_ns[request]) / 1e6 for request in counted]


def measure(rounds: int, seconds: float, begin: Callable[[str], None]) -> list[Row]:
    names = list(CONTENDERS)
    rows = {(load, name): Row(load, name, {q: [] for q in PERCENTILES}, []) for load in LOADS for name in names}
    for turn in range(rounds):
        for load in LOADS:
            gaps_s = np.random.default_rng([turn, round(100 * load)]).exponential(
                1 / (load * CAPACITY_PER_SECOND), round(load * CAPACITY_PER_SECOND * seconds)
            )
            arrivals_ns = (gaps_s.cumsum() * 1e9).astype(np.int64).tolist()
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                begin(f"round {turn + 1} of {rounds}, {load:.0%}, {name}")
                taken_ms = latencies_ms(CONTENDERS[name], arrivals_ns)
                row = rows[load, name]
                for q, ms in zip(PERCENTILES, np.percentile(taken_ms, PERCENTILES), strict=True):
                    row.percentiles_ms[q].append(float(ms))
                row.within_goal.append(float(np.mean(np.array(taken_ms) <= GOAL_MS)))
    return list(rows.values())


def bars(rows: list[Row]) -> Iterator[Bar]:
    """Judge round by round, since the rounds differ more from each other than the contenders of one."""
    by = {(row.load, row.contender): row for row in rows}
    for load in LOADS:
        ours, by_hand = by[load, OURS].percentiles_ms[50], by[load, BY_HAND].percentiles_ms[50]
        ratio = float(np.median(np.divide(ours, by_hand)))
        yield Bar(load, "p50 is no worse than by hand", f"{ratio:.3f} times as much", ratio <= 1.0)
    highest = max(LOADS)
    more = float(np.median(np.subtract(by[highest, OURS].within_goal, by[highest, BY_HAND].within_goal)))
    promise = f"at least as many are answered within {GOAL_MS:g} ms as by hand"
    yield Bar(highest, promise, f"{100 * more:+.2f} % of all", more >= 0.0)


def table(rows: list[Row]) -> Iterator[str]:
    """Lay out the rows as markdown."""
    heads = [
        "load",
        "contender".ljust(len(IMMEDIATE)),
        *(f"p{q}, ms".ljust(WIDE) for q in PERCENTILES),
        f"within {GOAL_MS:g} ms, %".ljust(WIDE),
    ]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join('-' * (len(head) + 1) + ':' for head in heads)}|"
    for row in rows:
        figures = [*(row.percentiles_ms[q] for q in PERCENTILES), [100 * share for share in row.within_goal]]
        cells = [f"{row.load:.0%}", row.contender]
        cells += [f"{np.median(each):.2f} [{min(each):.2f}, {max(each):.2f}]" for each in figures]
        yield f"| {' | '.join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True))} |"


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr what begins, with a bar where rich is installed."""
    try:
        from pybatch.commands.progress import steps as shown
    except ImportError:
        yield lambda step: print(step, file=sys.stderr)
        return
    with shown("Poisson in real time", steps) as begin:
        yield begin


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="How long requests take that come at random, in real time: this scheduler and a batcher by hand.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 s a figure instead of 5 of 5 s")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    rounds, seconds = (2, 2.0) if chosen.quick else (5, 5.0)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    with progress(rounds * len(LOADS) * len(CONTENDERS)) as begin:
        rows = measure(rounds, seconds, begin)
    judged = list(bars(rows))
    if chosen.json:
        report = {
            "machine": machine,
            "rounds": rounds,
            "seconds": seconds,
            "latencies": [asdict(row) for row in rows],
            "bars": [asdict(bar) for bar in judged],
        }
        print(json.dumps(report, indent=2))
    else:
        print(f"{machine}; {rounds} rounds of {seconds:g} s\n")
        print("\n".join(table(rows)) + "\n")
        for bar in judged:
            verdict = "met   " if bar.met else "MISSED"
            print(f"{verdict} at {bar.load:.0%} load {bar.promise}: {bar.found}")
    return int(chosen.check and not all(bar.met for bar in judged))


if __name__ == "__main__":
    sys.exit(main())
