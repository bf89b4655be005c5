"""A scheduler that has nothing to do does nothing: its threads do not wake up.

They are watched for half a second, which a thread that polls, or looks after something ten times a second, gives away.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from gates import LoopThread, SchedulerOf, doubled, doubled_async, until

WATCHED_S = 0.5
QUIET_S = 0.2

TASKS = Path("/proc/self/task")

pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="only Linux tells, in /proc, how often a thread has slept")


def sleeps(threads: set[threading.Thread]) -> list[int]:
    """How often each of the threads has gone to sleep by itself."""
    statuses = [(TASKS / str(thread.native_id) / "status").read_text() for thread in threads]
    return [
        int(count) for status in statuses for count in re.findall(r"^voluntary_ctxt_switches:\t(\d+)$", status, re.M)
    ]


def assert_asleep(threads: set[threading.Thread]) -> None:
    """Wait until the threads are at rest, then hold that they stay so."""
    assert threads
    pause = threading.Event()
    counts = sleeps(threads)

    def at_rest() -> bool:
        nonlocal counts
        pause.wait(QUIET_S)
        before, counts = counts, sleeps(threads)
        return before == counts

    until(at_rest)
    assert len(counts) == len(threads)
    pause.wait(WATCHED_S)
    assert sleeps(threads) == counts


@pytest.mark.parametrize("timeout_ms", [None, 60_000], ids=["no deadlines", "deadlines"])
@pytest.mark.parametrize("options", [{}, {"spin_us": 50}, {"run_in": "caller"}, {"max_concurrent_batches": 4}], ids=str)
def test_idle_worker_threads_do_not_wake_up(
    scheduler_of: SchedulerOf, options: dict[str, Any], timeout_ms: float | None
) -> None:
    others = set(threading.enumerate())
    scheduler = scheduler_of(doubled, metrics=True, **options)
    futures = scheduler.submit_many(range(500), timeout_ms=timeout_ms)
    assert [future.result() for future in futures] == list(range(0, 1000, 2))
    assert scheduler(7, timeout_ms=timeout_ms) == 14
    assert_asleep(set(threading.enumerate()) - others)


def test_an_idle_loop_of_the_scheduler_does_not_wake_up(scheduler_of: SchedulerOf) -> None:
    others = set(threading.enumerate())
    scheduler = scheduler_of(doubled_async, metrics=True)
    assert [future.result() for future in scheduler.submit_many(range(500), timeout_ms=60_000)] == list(
        range(0, 1000, 2)
    )
    assert_asleep(set(threading.enumerate()) - others)


def test_a_loop_of_callers_is_not_woken_by_an_idle_scheduler(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(doubled_async, metrics=True)

    async def ask() -> list[int]:
        return [await scheduler.submit(item, timeout_ms=60_000) for item in range(10)]

    others = set(threading.enumerate())
    with LoopThread() as loop:
        assert loop.run(ask()) == list(range(0, 20, 2))
        assert_asleep(set(threading.enumerate()) - others)
