"""Weigh a queued request, and show that a million of them leave no memory behind.

Every figure is the resident memory of a process of its own: 500,000 requests with the item 0 are queued behind a
batch that does not end. What the caller needs to keep their futures, a slot of a list, is there before.
"""

import argparse
import os
import platform
import statistics
import sys
import threading
from array import array
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from contenders.thread_queue import ThreadQueue
from pybatch import Scheduler

EPILOG = """\
Flat means: after each round of queueing and draining, and at its height, the process is as large as in the second
round, give or take 1 % of the height. The first round is not compared: what it leaves behind is Python's own, reused.

examples:
  python benchmarks/memory.py            half a minute: figures to quote
  python benchmarks/memory.py --quick    some seconds: 50,000 requests weighed, three rounds of 100,000
  python benchmarks/memory.py --check    for scripts: exit status 1 if a bar is missed
"""

T = TypeVar("T")

MOST_BYTES = 260
TOLERANCE = 0.01
BY_HAND = "by hand"
TERMS: dict[str, dict[str, Any]] = {
    "pybatch": {},
    "pybatch, timeout_ms": {"timeout_ms": 6e5},
    "pybatch, priority and key": {"priority": 1, "key": "tenant"},
}
"""What requests are submitted with."""


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Held:
    """A batch function that waits at its first call, so that what comes meanwhile stays queued."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self, items: list[Any]) -> list[Any]:
        self.entered.set()
        self.opened.wait()
        return items


def bytes_per_request(name: str, count: int) -> float:
    """Queue `count` requests and weigh them."""
    fn = Held()
    terms = TERMS.get(name, {})
    futures: list[Any] = [None] * count
    submit: Callable[..., object]
    close: Callable[[], object]
    if name == BY_HAND:
        by_hand = ThreadQueue(fn, 64)
        submit, close = by_hand.submit, by_hand.close
    else:
        scheduler = Scheduler[int, int](fn, max_batch_size=64, max_queue_size=count)
        submit, close = scheduler.submit, scheduler.shutdown
    submit(0)
    fn.entered.wait()
    before = resident_bytes()
    for i in range(count):
        futures[i] = submit(0, **terms)
    grown = resident_bytes() - before
    fn.opened.set()
    close()
    return grown / count


def rounds_of_memory(rounds: int, count: int) -> list[tuple[int, int]]:
    """Queue and drain `count` requests time and again; return the size of the process full and empty, of each round."""
    # Not in a list: a number that is made at the height would keep a whole arena of Python's allocator.
    full, empty = array("q", [0] * rounds), array("q", [0] * rounds)
    futures: list[Any] = [None] * count  # once: where it would lie the next time is the C library's business
    fn = Held()
    with Scheduler(fn, max_batch_size=64, max_queue_size=count) as scheduler:
        for turn in range(rounds):
            fn.entered.clear()
            fn.opened.clear()
            first = scheduler.submit(0)
            fn.entered.wait()
            for item in range(count):
                futures[item] = scheduler.submit(item)
            full[turn] = resident_bytes()
            fn.opened.set()
            first.result()
            if any(future.result() != item for item, future in enumerate(futures)):
                raise RuntimeError("an answer is wrong")
            for item in range(count):
                futures[item] = None
            empty[turn] = resident_bytes()
    return list(zip(full, empty, strict=True))


def in_own_process(call: Callable[..., T], *args: Any) -> T:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args).result()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What a queued request takes of memory, and what is left of a million of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer requests, of which each figure is less exact")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    if sys.platform != "linux":
        print("resident memory is read from Linux's /proc: nothing is weighed here", file=sys.stderr)
        return 1
    weighed, repeats, rounds, count = (50_000, 1, 3, 100_000) if chosen.quick else (500_000, 3, 10, 1_000_000)
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}\n")
    kept = True
    for name in (*TERMS, BY_HAND):
        found = statistics.median(in_own_process(bytes_per_request, name, weighed) for _ in range(repeats))
        line = f"{name}: {found:,.0f} bytes a queued request beyond the item"
        if name == BY_HAND:
            print("      ", line)
        else:
            kept &= found <= MOST_BYTES
            print("met   " if found <= MOST_BYTES else "MISSED", line, f"(at most {MOST_BYTES})")
    sizes = in_own_process(rounds_of_memory, rounds, count)
    print(f"\n{count:,} requests queued and drained; MiB resident, full and drained, by round:")
    print("  ".join(f"{full / 2**20:.1f}/{empty / 2**20:.1f}" for full, empty in sizes))
    most = max(abs(now - then) for later in sizes[2:] for now, then in zip(later, sizes[1], strict=True))
    height = max(full for full, _ in sizes)
    flat = most <= TOLERANCE * height
    print(
        f"{'met   ' if flat else 'MISSED'} flat: at most {most / 2**20:.1f} MiB from the second round's, "
        f"{most / height:.1%} of the height (at most {TOLERANCE:.0%})"
    )
    return int(chosen.check and not (kept and flat))


if __name__ == "__main__":
    sys.exit(main())
