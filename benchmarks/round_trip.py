"""Time the way there and back of a request that meets nobody, and the same while another thread burns Python.

A caller submits, waits for the answer, and submits again. ``fn`` returns its list as it is. All contenders take turns
in one process, in every round in another order. A figure is the median over the rounds of what a trip takes: of the
mean of many, and beside the burner of the median of some, since there one takes either microseconds or time slices.
"""

import argparse
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from contenders.ours import AsyncPybatch
from loads import loop, noop
from pybatch import Scheduler
from workloads import BY_HAND, CONTENDERS, ONE_AT_A_TIME, OURS

EPILOG = """\
contenders, with max_batch_size=64:
  fn itself              called where it is needed: nothing can be cheaper
  lock ping-pong         two threads that wake each other with locks of Python: what it takes to change threads twice
  one at a time          on a loop: an asyncio.Lock around the call
  by hand                contenders/thread_queue.py and contenders/asyncio_queue.py
  pybatch                submit(item).result(), or await submit(item)
  pybatch, spin_us=100   scheduler(item), where threads look out for 100 us before they sleep
  pybatch, caller        scheduler(item) with run_in="caller": fn runs on the thread, or the loop, that waits for it

Beside a thread that burns Python, everything that changes threads waits for the interpreter's lock: 5 ms each time.

examples:
  python benchmarks/round_trip.py            a quarter of a minute: figures to quote
  python benchmarks/round_trip.py --quick    some seconds
  python benchmarks/round_trip.py --check    for scripts: exit status 1 if a bar is missed
"""

SIZE = 64
THREADS, BURNER, ON_LOOP = "threads", "threads, beside a burner", "asyncio, fn on the loop"
FN, PING_PONG, SPINNING, CALLER = "fn itself", "lock ping-pong", f"{OURS}, spin_us=100", f"{OURS}, caller"

Trips = Callable[[int], None]
"""Makes so many round trips, one after the other."""


@contextmanager
def loaded(path: str, name: str) -> Iterator[Trips]:
    with CONTENDERS[path][name](SIZE) as loads:
        yield loads.round_trips


@contextmanager
def called(**options: Any) -> Iterator[Trips]:
    with Scheduler(noop, max_batch_size=SIZE, **options) as scheduler:

        def trips(count: int) -> None:
            for _ in repeat(None, count):
                scheduler(0)

        yield trips


@contextmanager
def fn_itself() -> Iterator[Trips]:
    def trips(count: int) -> None:
        for _ in repeat(None, count):
            noop([0])[0]

    yield trips


@contextmanager
def ping_pong() -> Iterator[Trips]:
    there, back = threading.Lock(), threading.Lock()
    there.acquire()
    back.acquire()
    playing = True

    def answer() -> None:
        there.acquire()
        while playing:
            back.release()
            there.acquire()

    def trips(count: int) -> None:
        for _ in repeat(None, count):
            there.release()
            back.acquire()

    partner = threading.Thread(target=answer)
    partner.start()
    yield trips
    playing = False
    there.release()
    partner.join()


@contextmanager
def inline() -> Iterator[Trips]:
    with loop(lambda: AsyncPybatch(noop, SIZE, run_in="caller")) as loads:
        yield loads.round_trips


Contenders = dict[str, Callable[[], AbstractContextManager[Trips]]]
BETWEEN_THREADS: Contenders = {
    FN: fn_itself,
    PING_PONG: ping_pong,
    BY_HAND: lambda: loaded("threads", BY_HAND),
    OURS: lambda: loaded("threads", OURS),
    SPINNING: lambda: called(spin_us=100),
    CALLER: lambda: called(run_in="caller"),
}
PATHS: dict[str, Contenders] = {
    THREADS: BETWEEN_THREADS,
    BURNER: BETWEEN_THREADS,
    ON_LOOP: {
        ONE_AT_A_TIME: lambda: loaded("asyncio, async fn", ONE_AT_A_TIME),
        BY_HAND: lambda: loaded("asyncio, async fn", BY_HAND),
        OURS: lambda: loaded("asyncio, async fn", OURS),
        CALLER: inline,
    },
}


@contextmanager
def burner() -> Iterator[None]:
    """Burn Python on another thread."""
    burning = True

    def burn() -> None:
        while burning:
            pass

    thread = threading.Thread(target=burn)
    thread.start()
    yield
    burning = False
    thread.join()


def each_us(trips: Trips, count: int) -> list[float]:
    """Time trips one by one, us."""
    taken_us = []
    for _ in repeat(None, count):
        start_ns = time.perf_counter_ns()
        trips(1)
        taken_us.append((time.perf_counter_ns() - start_ns) / 1e3)
    return taken_us


def mean_us(trips: Trips, count: int) -> float:
    """Time many trips together, us each."""
    trips(count // 10)
    start_ns = time.perf_counter_ns()
    trips(count)
    return (time.perf_counter_ns() - start_ns) / count / 1e3


def measure(path: str, rounds: int, count: int) -> dict[str, list[float]]:
    """us a trip by contender, a figure a round."""
    names = list(PATHS[path])
    taken_us: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            with PATHS[path][name]() as trips:
                if path == BURNER:
                    with burner():
                        taken_us[name].append(statistics.median(each_us(trips, max(count // 100, 5))))
                else:
                    taken_us[name].append(mean_us(trips, count))
    return taken_us


@dataclass(frozen=True, slots=True)
class Bar:
    path: str
    name: str
    most: float
    against: Callable[[float, float], float] = lambda ours, _: ours
    """What is compared, of our figure and that of `other`."""
    other: str = OURS
    what: str = "us"


BARS = [
    Bar(THREADS, OURS, 1.2, lambda ours, other: ours / other, PING_PONG, "times the lock ping-pong"),
    Bar(THREADS, SPINNING, 25.0),
    Bar(THREADS, CALLER, 2.0, lambda ours, other: ours - other, FN, "us more than fn itself"),
    Bar(BURNER, CALLER, 50.0),
    Bar(ON_LOOP, OURS, 8.0),
]


def found(bar: Bar, taken_us: dict[str, list[float]]) -> float:
    """The median over the rounds of what is compared: both were measured within a round."""
    pairs = zip(taken_us[bar.name], taken_us[bar.other], strict=True)
    return statistics.median(bar.against(ours, other) for ours, other in pairs)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="How long one request takes when nobody else is there, or when another thread burns Python.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="3 rounds of 500 trips instead of 15 of 2,000")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    rounds, count = (3, 500) if chosen.quick else (15, 2_000)
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs\n")
    taken_us = {path: measure(path, rounds, count) for path in PATHS}
    for path, figures in taken_us.items():
        print(f"| {path + ', us a trip':>35} | median of rounds |     least |      most |")
        print(f"|{'-' * 36}:|-----------------:|----------:|----------:|")
        for name, each in figures.items():
            print(f"| {name:>35} | {statistics.median(each):16,.2f} | {min(each):9,.2f} | {max(each):9,.2f} |")
        print()
    kept = True
    for bar in BARS:
        value = found(bar, taken_us[bar.path])
        kept &= value <= bar.most
        print(
            f"{'met   ' if value <= bar.most else 'MISSED'} {bar.path}: {bar.name}: "
            f"{value:.2f} {bar.what} (at most {bar.most:g})"
        )
    return int(chosen.check and not kept)


if __name__ == "__main__":
    sys.exit(main())
