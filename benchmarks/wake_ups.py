"""Count wake-ups: futex calls per batch under a full queue, and what an idle scheduler's threads do, which is nothing.

A futex call is how a thread sleeps and is woken on Linux. strace writes down each one with its address, and that tells
apart the locks on which threads sleep until somebody wakes them, which are the batcher's doing, from the interpreter's
own lock (GIL), which any two threads of Python hand to and fro. Idle threads are watched through /proc, without strace.
"""

import argparse
import asyncio
import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contenders.interface import Fn, ThreadContender
from contenders.ours import Pybatch
from contenders.thread_queue import ThreadQueue
from loads import OUTSTANDING, async_noop, noop, saturate
from pybatch import Scheduler
from workloads import BY_HAND, OURS

EPILOG = """\
saturated: each thread keeps so many requests outstanding and takes the oldest answer before it submits the next;
batches have at most 64 items, and fn does nothing. A thread that has run out of answers sleeps and is woken, which is
two calls, whatever it waits for: with 8 threads of 128 that is one call a batch already, so there is no bar for these.
strace slows each call down, which makes threads meet more often, not less. It is in Debian's package strace.

idle: after some traffic, with metrics on, each of these is left alone, and the context switches of its thread counted:
a thread that does not run makes none.
  worker          a worker thread; two of them once deadlines are in use
  spinning        the same with spin_us=100: it looks out for 100 us after the traffic, then sleeps
  caller          run_in="caller", whose worker thread serves what nobody waits for
  loop            the scheduler's own event loop, where fn is an async def and only threads call
  callers' loop   an event loop that awaited requests, in a thread of its own

examples:
  python benchmarks/wake_ups.py            half a minute: figures to quote
  python benchmarks/wake_ups.py --quick    some seconds
  python benchmarks/wake_ups.py --check    for scripts: exit status 1 if a bar is missed
"""

BATCH = 64
LOADS = ((1, OUTSTANDING), (8, OUTSTANDING), (8, OUTSTANDING // 8))  # threads, and what each keeps outstanding
CONTENDERS: dict[str, Callable[[Fn], ThreadContender]] = {
    OURS: lambda fn: Pybatch(fn, BATCH),
    BY_HAND: lambda fn: ThreadQueue(fn, BATCH),
}


# --- saturated


@dataclass(frozen=True, slots=True)
class Futexes:
    """What strace saw of one load."""

    contender: str
    submitters: int
    outstanding: int  # of each
    batches: int
    sleeps: int  # calls on the locks that threads sleep on
    gil: int  # calls on the interpreter's own

    @property
    def per_batch(self) -> float:
        return (self.sleeps + self.gil) / self.batches


def static_memory() -> tuple[int, int]:
    """Return from where to where the interpreter keeps what is not on the heap: the GIL."""
    runtime = ctypes.addressof(ctypes.c_char.in_dll(ctypes.pythonapi, "_PyRuntime"))
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(address, 16) for address in line.split()[0].split("-"))
        if first <= runtime < last:
            return first, last
    raise RuntimeError("the interpreter's memory is not in /proc/self/maps")


def mark() -> None:
    """Make a system call that nothing else here makes, for strace to see."""
    os.getsid(0)


def load(contender: str, submitters: int, outstanding: int, requests: int) -> None:
    """Put a contender under load, between two marks, and print what strace cannot know; runs in the traced process."""
    calls = 0

    def count(items: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        return items

    batcher = CONTENDERS[contender](count)
    start = threading.Barrier(submitters + 1)

    def submit() -> None:
        start.wait()
        saturate(batcher, requests // submitters, outstanding)

    saturate(batcher, 2 * OUTSTANDING)
    threads = [threading.Thread(target=submit) for _ in range(submitters)]
    for thread in threads:
        thread.start()
    before = calls
    mark()
    start.wait()
    for thread in threads:
        thread.join()
    mark()
    print(json.dumps({"batches": calls - before, "static": static_memory()}))
    batcher.close()


def trace(contender: str, submitters: int, outstanding: int, requests: int) -> Futexes:
    """Run a load under strace and count."""
    with tempfile.NamedTemporaryFile("r") as trail:
        strace = ["strace", "--follow-forks", "-qq", "--trace=futex,getsid", f"--output={trail.name}"]
        traced = [sys.executable, __file__, "--load", contender, *map(str, (submitters, outstanding, requests))]
        told = subprocess.run([*strace, *traced], stdout=subprocess.PIPE, text=True, check=True).stdout
        lines = trail.read().splitlines()
    found = json.loads(told)
    first, last = found["static"]
    begin, end = (i for i, line in enumerate(lines) if "getsid(" in line)
    calls = [re.search(r" futex\((0x[0-9a-f]+)", line) for line in lines[begin:end]]
    addresses = [int(call[1], 16) for call in calls if call is not None]
    gil = sum(first <= address < last for address in addresses)
    return Futexes(contender, submitters, outstanding, found["batches"], len(addresses) - gil, gil)


def table(seen: list[Futexes]) -> str:
    heads = ["futex calls per batch", "threads x outstanding", "batches", "to sleep and to wake", "GIL"]
    rows = [
        [
            one.contender,
            f"{one.submitters} x {one.outstanding:,}",
            f"{one.batches:,}",
            f"{one.sleeps / one.batches:.2f}",
            f"{one.gil / one.batches:.2f}",
        ]
        for one in seen
    ]
    rule = ["-" * (len(head) - 1) + ":" for head in heads]
    return "".join(
        f"| {' | '.join(cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True))} |\n"
        for cells in [heads, rule, *rows]
    )


# --- idle


def check(answers: list[int]) -> None:
    if answers != list(range(len(answers))):
        raise RuntimeError(f"wrong answers: {answers[:10]}...")


@contextmanager
def threads(**options: Any) -> Iterator[None]:
    """Keep a scheduler that has answered threads, within deadlines and without."""
    with Scheduler(noop, **options) as scheduler:
        for timeout_ms in None, 60_000:
            check([future.result() for future in scheduler.submit_many(range(1_000), timeout_ms=timeout_ms)])
            check([scheduler(item, timeout_ms=timeout_ms) for item in range(10)])
        yield


@contextmanager
def own_loop() -> Iterator[None]:
    """Keep a scheduler that has answered threads from its own loop."""
    with Scheduler(async_noop) as scheduler:
        check([future.result() for future in scheduler.submit_many(range(1_000), timeout_ms=60_000)])
        yield


@contextmanager
def callers_loop() -> Iterator[None]:
    """Keep a scheduler that has answered a loop, and the loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def traffic(scheduler: Scheduler[int, int]) -> None:
        check([await scheduler.submit(item, timeout_ms=60_000) for item in range(100)])

    try:
        with Scheduler(async_noop) as scheduler:
            asyncio.run_coroutine_threadsafe(traffic(scheduler), loop).result()
            yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


IDLE: dict[str, Callable[[], AbstractContextManager[None]]] = {
    "worker": threads,
    "spinning": lambda: threads(spin_us=100),
    "caller": lambda: threads(run_in="caller"),
    "loop": own_loop,
    "callers' loop": callers_loop,
}


@dataclass(frozen=True, slots=True)
class Activity:
    """What the threads of one scheduler have done, all together."""

    threads: int
    switches: int
    cpu_ns: int


def activity(threads: set[threading.Thread]) -> Activity:
    """Add up how often threads went to sleep or lost their CPU, and what they used of it, since they were started."""
    counts = 0
    cpu_ns = 0
    for thread in threads:
        status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
        counts += sum(map(int, re.findall(r"voluntary_ctxt_switches:\s+(\d+)", status)))  # "nonvoluntary" as well
        cpu_ns += time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident or 0))
    return Activity(len(threads), counts, cpu_ns)


def settled(threads: set[threading.Thread]) -> Activity:
    """Wait until what is under way is over."""
    latest = activity(threads)
    for _ in range(100):
        time.sleep(0.1)
        before, latest = latest, activity(threads)
        if latest == before:
            break
    return latest


def idle(seconds: float) -> dict[str, Activity]:
    """Leave all kinds of schedulers alone for some time; return what their threads did meanwhile."""
    with ExitStack() as stack:
        theirs: dict[str, set[threading.Thread]] = {}
        for name, kind in IDLE.items():
            others = set(threading.enumerate())
            stack.enter_context(kind())
            theirs[name] = set(threading.enumerate()) - others
        before = {name: settled(threads) for name, threads in theirs.items()}
        time.sleep(seconds)
        after = {name: activity(threads) for name, threads in theirs.items()}
    return {
        name: Activity(now.threads, now.switches - before[name].switches, now.cpu_ns - before[name].cpu_ns)
        for name, now in after.items()
    }


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="How often threads are woken: under a full queue, and when there is nothing to do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a quarter of the requests, and 2 s of idleness")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    parser.add_argument("--load", nargs=4, help=argparse.SUPPRESS)  # what strace runs
    return parser.parse_args()


def main() -> int:
    chosen = options()
    if chosen.load:
        contender, *numbers = chosen.load
        load(contender, *map(int, numbers))
        return 0
    if sys.platform != "linux":
        print("futex calls and /proc are Linux's: nothing is counted here", file=sys.stderr)
        return 1
    print(f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs\n")
    requests, seconds = (64 * OUTSTANDING, 2) if chosen.quick else (256 * OUTSTANDING, 10)
    kept = True
    if shutil.which("strace") is None:
        kept = False
        print("MISSED nothing was counted under a full queue: there is no strace; install it and try again\n")
    else:
        seen = [trace(name, *how, requests) for how in LOADS for name in CONTENDERS]
        print(table(seen))
        for one in seen:
            if one.contender == OURS and one.outstanding == OUTSTANDING:
                kept &= one.per_batch < 1
                print(
                    f"{'met   ' if one.per_batch < 1 else 'MISSED'} {one.submitters} x {one.outstanding:,} outstanding:"
                    f" {one.per_batch:.2f} futex calls per batch, the GIL's included (below 1)"
                )
    for name, done in idle(seconds).items():
        kept &= done.switches == 0
        print(
            f"{'met   ' if done.switches == 0 else 'MISSED'} idle, {name}: {done.switches} wake-ups of "
            f"{done.threads} thread(s) in {seconds} s, {done.cpu_ns / 1e3:,.0f} us of CPU time (none)"
        )
    return int(chosen.check and not kept)


if __name__ == "__main__":
    sys.exit(main())
