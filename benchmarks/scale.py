"""Show what a request costs while 10 to 1,000,000 others are queued, and with 1 to 64 threads that submit.

A queue is held at a depth: submit 64, take the batch of 64, run a no-op ``fn``, finish, over and over, all on one
thread that is its own driver, so that nothing but the scheduler is in the figure. The depths take turns in every round.
A figure is the median CPU time over the rounds; all options are as users have them, but for the policy (see below).
"""

import argparse
import gc
import itertools
import math
import os
import platform
import random
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from matplotlib.figure import Figure

from batchcore.dispatcher import Dispatcher
from batchcore.engine import Engine
from contenders.interface import ThreadContender
from contenders.ours import Pybatch
from contenders.thread_queue import ThreadQueue
from loads import OUTSTANDING, noop, saturate
from pybatch import Scheduler
from workloads import BY_HAND, OURS

EPILOG = """\
who queues what:
  first in, first out  requests that are all alike
  one timeout          all with timeout_ms=600000
  three priorities     -1, 0 and 1 in random turns
  random priorities    of 2,001 levels: a heap, O(log n)
  random timeouts      from 10 to 1,000 s: a heap of deadlines, O(log n)
  objects in a deque   no scheduler: objects as large as a future, read when they leave. As a queue outgrows the
                       caches of the CPU this rises, too, and so much of the rise is memory's

"filled" queues a request and takes it later, all before any: with Python's garbage collector, which looks at what is
queued time and again, and without. The policy is "immediate": with a no-op fn the default one now and then learns from
what disturbs a busy machine that smaller batches are quicker, and these are not to be compared.

examples:
  python benchmarks/scale.py                        some minutes: figures to quote
  python benchmarks/scale.py --quick                a look: up to 100,000 queued, too short for close calls
  python benchmarks/scale.py --plot docs/scale.svg  draw them as well
  python benchmarks/scale.py --check                for scripts: exit status 1 if a bar is missed
"""

BATCH = 64
DEPTHS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
SUBMITTERS = (1, 8, 64)
TOLERANCE = 1.15
DEQUE = "objects in a deque"
Depths = tuple[int, ...]
Costs = dict[tuple[str, str, int], list[float]]
"""ns per request by contender, load and number of threads, a figure a round."""
EACH, TOGETHER = "each 1,024 outstanding", "together 1,024 outstanding"


class Driver(Dispatcher):
    """Nobody's thread: whoever holds the queue takes the batches."""

    def signal(self) -> int:
        return 0

    def join(self, timeout: float | None = None) -> None:
        pass


class Undriven(Scheduler[None, None]):
    def _driver(self, engine: Engine, name: str, is_async: bool, lent: bool) -> Dispatcher:
        return Driver(engine, name)


class Queue(Protocol):
    """What is held at a depth."""

    def put(self, count: int) -> None:
        """Queue so many."""
        ...

    def take(self, batches: int) -> None:
        """Serve and forget that many batches of 64."""
        ...


class Requests:
    """A scheduler of ours."""

    def __init__(self, terms: list[dict[str, Any]]) -> None:
        self._scheduler = Undriven(lambda items: items, max_batch_size=BATCH, max_queue_size=2**30, policy="immediate")
        self._terms = itertools.cycle(terms)

    def put(self, count: int) -> None:
        submit = self._scheduler.submit
        for terms in itertools.islice(self._terms, count):
            submit(None, **terms)

    def take(self, batches: int) -> None:
        driver = self._scheduler.dispatcher
        for _ in range(batches):
            batch = driver.take()
            if batch is None or len(batch) != BATCH:
                raise RuntimeError(f"there was no full batch to take: {batch}")
            driver.finish(batch, batch.run())

    def close(self) -> None:
        self._scheduler.shutdown(cancel_futures=True)


class Objects:
    """A deque of objects of the size of a future."""

    def __init__(self) -> None:
        with Scheduler(noop) as scheduler:
            self._size = sys.getsizeof(scheduler.submit(0)) - sys.getsizeof(b"")
        self._model = bytes(self._size)
        self._deque: deque[bytes] = deque()

    def put(self, count: int) -> None:
        append = self._deque.append
        for _ in range(count):
            append(bytes(self._size))

    def take(self, batches: int) -> None:
        popleft = self._deque.popleft
        for _ in range(batches * BATCH):
            if popleft() != self._model:
                raise RuntimeError("an object has changed")

    def close(self) -> None:
        self._deque.clear()


def turns(make: Callable[[random.Random], dict[str, Any]]) -> list[dict[str, Any]]:
    chance = random.Random(0)
    return [make(chance) for _ in range(BATCH * 64)]


KINDS: dict[str, Callable[[], Requests | Objects]] = {
    "first in, first out": lambda: Requests(turns(lambda _: {})),
    "one timeout": lambda: Requests(turns(lambda _: {"timeout_ms": 6e5})),
    "three priorities": lambda: Requests(turns(lambda chance: {"priority": chance.randint(-1, 1)})),
    "random priorities": lambda: Requests(turns(lambda chance: {"priority": chance.randint(-1000, 1000)})),
    "random timeouts": lambda: Requests(turns(lambda chance: {"timeout_ms": chance.uniform(1e4, 1e6)})),
    DEQUE: Objects,
}
FLAT = ("first in, first out", "one timeout")
LOGARITHMIC = ("three priorities", "random priorities", "random timeouts")


@contextmanager
def garbage_collection(on: bool) -> Iterator[None]:
    gc.collect()
    if not on:
        gc.disable()
    try:
        yield
    finally:
        gc.enable()


def cpu_ns(call: Callable[[], object]) -> int:
    start_ns = time.thread_time_ns()
    call()
    return time.thread_time_ns() - start_ns


@dataclass(frozen=True, slots=True)
class Curve:
    """ns per request of one kind, by depth."""

    held: dict[int, float]
    filled: dict[int, float] = field(default_factory=dict)
    filled_without_gc: dict[int, float] = field(default_factory=dict)

    def growth(self, depth: int) -> float:
        return self.held[depth] / self.held[DEPTHS[0]]

    def allowed(self, depth: int, *, logarithmic: bool) -> float:
        """How many times the cost at the least depth is allowed."""
        return TOLERANCE * (math.log2(depth) / math.log2(DEPTHS[0]) if logarithmic else 1.0)


Curves = dict[str, Curve]


def hold(make: Callable[[], Requests | Objects], depths: Depths, rounds: int, batches: int) -> Curve:
    """Hold queues at all depths at once, in turns."""
    queues = {depth: make() for depth in depths}
    taken_ns: dict[int, list[int]] = {depth: [] for depth in depths}

    def cycles(queue: Queue, count: int) -> None:
        for _ in range(count):
            queue.put(BATCH)
            queue.take(1)

    for depth, queue in queues.items():
        queue.put(depth)
        cycles(queue, 2 * depth // BATCH)  # until no queued object lies where it was made first
    for _ in range(rounds):
        for depth, queue in queues.items():
            cycles(queue, 10)
            taken_ns[depth].append(cpu_ns(lambda queue=queue: cycles(queue, batches)))  # type: ignore[misc]
    for queue in queues.values():
        queue.close()
    return Curve({depth: statistics.median(each) / batches / BATCH for depth, each in taken_ns.items()})


def fill(make: Callable[[], Requests | Objects], depth: int, rounds: int, *, collector: bool) -> float:
    """ns per request of filling a queue and emptying it."""
    queue = make()
    batches = depth // BATCH
    taken_ns = []
    with garbage_collection(collector):
        for _ in range(rounds):
            taken_ns.append(cpu_ns(lambda: queue.put(batches * BATCH)) + cpu_ns(lambda: queue.take(batches)))
    queue.close()
    return statistics.median(taken_ns) / batches / BATCH


def measure(kind: str, depths: Depths, rounds: int, batches: int) -> Curve:
    make = KINDS[kind]
    curve = hold(make, depths, rounds, batches)
    for depth in depths:
        if depth >= 1_000:  # in a shorter one batches are not full
            times = max(rounds // 3, 200_000 // depth)
            curve.filled[depth] = fill(make, depth, times, collector=True)
            curve.filled_without_gc[depth] = fill(make, depth, times, collector=False)
    return curve


def from_threads(make: Callable[[], ThreadContender], submitters: int, outstanding: int, requests: int) -> float:
    """ns per request when so many threads keep so many requests outstanding each."""
    contender = make()
    start = threading.Barrier(submitters + 1)

    def load() -> None:
        start.wait()
        saturate(contender, requests // submitters, outstanding)

    threads = [threading.Thread(target=load) for _ in range(submitters)]
    for thread in threads:
        thread.start()
    start.wait()
    start_ns = time.process_time_ns()
    for thread in threads:
        thread.join()
    taken_ns = time.process_time_ns() - start_ns
    contender.close()
    return taken_ns / requests


CONTENDERS: dict[str, Callable[[], ThreadContender]] = {
    OURS: lambda: Pybatch(noop, BATCH),
    BY_HAND: lambda: ThreadQueue(noop, BATCH),
}


def measure_threads(rounds: int) -> Costs:
    """Load a scheduler and one by hand from threads."""
    most = max(SUBMITTERS) * OUTSTANDING
    requests = {OURS: 16 * most, BY_HAND: 2 * most}  # of which the first `most` only fill the queue
    costs: Costs = {}
    for _ in range(rounds):
        for submitters in SUBMITTERS:
            for name, make in CONTENDERS.items():
                for load, outstanding in (EACH, OUTSTANDING), (TOGETHER, OUTSTANDING // submitters):
                    cost = from_threads(make, submitters, outstanding, requests[name])
                    costs.setdefault((name, load, submitters), []).append(cost)
    return costs


def row(cells: list[str], widths: list[int]) -> str:
    return f"| {' | '.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))} |"


def table(heads: list[str], rows: list[list[str]]) -> str:
    widths = [max(len(line[i]) for line in [heads, *rows]) for i in range(len(heads))]
    rule = f"|{'|'.join('-' * (width + 1) + ':' for width in widths)}|"
    return "\n".join([row(heads, widths), rule, *(row(cells, widths) for cells in rows), ""])


def curve_table(curves: Curves, depths: Depths) -> str:
    rows = [
        [kind, name, *(f"{values[depth]:,.0f}" if depth in values else "" for depth in depths)]
        for kind, curve in curves.items()
        for name, values in [
            ("held", curve.held),
            ("filled", curve.filled),
            ("filled, no collector", curve.filled_without_gc),
        ]
    ]
    return table(["ns per request", "queued:", *(f"{depth:,}" for depth in depths)], rows)


def thread_table(costs: Costs) -> str:
    rows = [
        [name, load, *(f"{statistics.median(costs[name, load, submitters]):,.0f}" for submitters in SUBMITTERS)]
        for name in CONTENDERS
        for load in (EACH, TOGETHER)
    ]
    return table(["ns per request", "threads:", *map(str, SUBMITTERS)], rows)


def bars(curves: Curves, depths: Depths, costs: Costs) -> Iterator[tuple[bool, str]]:
    """Yield whether each promise is kept, and what was found."""
    for kind in (*FLAT, *LOGARITHMIC):
        logarithmic = kind in LOGARITHMIC
        curve = curves[kind]
        worst = max(depths[1:], key=curve.growth)
        most = curve.allowed(worst, logarithmic=logarithmic)
        against = curves[DEQUE].held[worst] - curves[DEQUE].held[DEPTHS[0]]
        yield (
            curve.growth(worst) <= most,
            f"{kind}: {curve.growth(worst):.2f} times the cost of 10 queued at {worst:,} (at most {most:.2f}"
            f"{', n log n' if logarithmic else ''}); {curve.held[worst] - curve.held[DEPTHS[0]]:+.0f} ns,"
            f" objects in a deque {against:+.0f}",
        )
    one = costs[OURS, EACH, 1]
    ratio = max(
        statistics.median(many / few for many, few in zip(costs[OURS, EACH, submitters], one, strict=True))
        for submitters in SUBMITTERS
    )
    yield ratio <= TOLERANCE, f"1 to 64 threads, {EACH}: {ratio:.2f} times the cost of one (at most {TOLERANCE})"


def draw(path: str, curves: Curves, depths: Depths, costs: Costs) -> None:
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = "batchcore"  # the same file for the same figures
    figure = Figure(figsize=(10, 4), layout="constrained")
    deep, wide = figure.subplots(1, 2)
    for kind, curve in curves.items():
        style, color = (":", "grey") if kind == DEQUE else ("o-", None)
        deep.plot(depths, [curve.held[depth] for depth in depths], style, color=color, markersize=3, label=kind)
    deep.set(xscale="log", xlabel="requests queued", ylabel="CPU time, ns per request", title="a queue held at a depth")
    for load, style in (EACH, "o-"), (TOGETHER, "o--"):
        for name, color in (OURS, "C0"), (BY_HAND, "C1"):
            values = [statistics.median(costs[name, load, submitters]) for submitters in SUBMITTERS]
            wide.plot(SUBMITTERS, values, style, color=color, markersize=3, label=f"{name}, {load}")
    wide.set(xscale="log", yscale="log", xlabel="threads that submit", title="with a worker thread, batches of 64")
    wide.set_xticks(SUBMITTERS, [str(each) for each in SUBMITTERS])
    wide.minorticks_off()
    for axes in deep, wide:
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    deep.set_ylim(bottom=0)
    figure.savefig(path, metadata={"Date": None})


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What a request costs while many others are queued, and while many threads submit.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="5 short rounds, at most 100,000 queued")
    parser.add_argument("--plot", metavar="PATH", help="write a plot there")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    depths, rounds, batches = (DEPTHS[:-1], 5, 200) if chosen.quick else (DEPTHS, 15, 500)
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    curves = {kind: measure(kind, depths, rounds, batches) for kind in KINDS}
    costs = measure_threads(2 if chosen.quick else 7)
    print(f"{machine}; CPU time, {rounds} rounds\n")
    print(curve_table(curves, depths))
    print(thread_table(costs))
    judged = list(bars(curves, depths, costs))
    for kept, found in judged:
        print("met   " if kept else "MISSED", found)
    if chosen.plot:
        draw(chosen.plot, curves, depths, costs)
    return int(chosen.check and not all(kept for kept, _ in judged))


if __name__ == "__main__":
    sys.exit(main())
