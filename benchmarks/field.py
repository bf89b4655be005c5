"""The field of `peers.py`: who runs, from where, with which settings; run as a program, it measures one contender.

It runs in the environment of the contender that it measures, where nothing but that package need be installed.
"""

import argparse
import gc
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pkgutil import resolve_name
from typing import Any

from loads import OUTSTANDING, Loads, async_noop, loop, noop, threads

THREADS, ASYNCIO = "threads", "asyncio, async fn"
SATURATED = {size: f"saturated, max_batch_size={size}" for size in (1, 8, 64)}
IDLE = "idle round trip"


@dataclass(frozen=True, slots=True)
class Contender:
    """A batcher on one path; its settings have the names that the package gives them."""

    name: str
    path: str
    requirement: str = ""
    """What pip installs into its environment; empty: it runs in this project's own."""
    made_by: str = ""
    """Its class, in the package `contenders`; empty: the one of that name in `workloads`."""
    saturated: Mapping[str, float] = field(default_factory=dict)
    idle: Mapping[str, float] | None = field(default_factory=dict)
    """None: another entry of this package is measured idle."""
    idle_batch_size: int = 64
    least_batch_size: int = 1
    sync_fn: bool = False
    """It takes no ``async def fn``: it is given a sync one, which it runs on a thread."""
    uncounted: str = ""
    """Why it is not among the peers that the bars are about; empty: it is."""

    @property
    def package(self) -> str:
        return self.requirement.partition("==")[0].partition("[")[0] or "batchcore"

    def open(self, max_batch_size: int, settings: Mapping[str, float]) -> AbstractContextManager[Loads]:
        if not self.made_by:
            from workloads import CONTENDERS  # there is no pybatch where a peer runs

            return CONTENDERS[self.path][self.name](max_batch_size)
        make: Callable[..., Any] = resolve_name(f"contenders.{self.made_by}")
        if self.path == THREADS:
            return threads(lambda: make(noop, max_batch_size, **settings))
        return loop(lambda: make(noop if self.sync_fn else async_noop, max_batch_size, **settings))


WRITTEN = "written by hand, with neither bound nor window"
NO_QUEUE = "no batching"

# Saturated, a window is the one of 1 ms and the package's default that takes less CPU time; batches are full, so it is
# hardly ever waited for. Idle, there is none, as a round trip would measure little else: it is 0, or `max_batch_size`
# is 1 where that answers sooner.
FIELD = [
    Contender("one at a time", THREADS, uncounted=NO_QUEUE),
    Contender("by hand", THREADS, uncounted=WRITTEN),
    Contender("pybatch", THREADS, uncounted="this project"),
    Contender(
        "batched",
        THREADS,
        "batched==0.1.5",
        "peer_batched:Batched",
        saturated={"timeout_ms": 1.0},
        idle={"timeout_ms": 0.0},
    ),
    Contender(
        "service-streamer",
        THREADS,
        "service-streamer==0.1.2",
        "peer_service_streamer:ServiceStreamer",
        saturated={"max_latency": 0.1},
        idle={"max_latency": 0.1},
        idle_batch_size=1,
    ),
    Contender("one at a time", ASYNCIO, uncounted=NO_QUEUE),
    Contender("by hand", ASYNCIO, uncounted=WRITTEN),
    Contender("pybatch", ASYNCIO, uncounted="this project"),
    Contender(
        "batched",
        ASYNCIO,
        "batched==0.1.5",
        "peer_batched:AsyncBatched",
        saturated={"timeout_ms": 5.0},
        idle={"timeout_ms": 0.0},
    ),
    Contender(
        "Ray Serve",
        ASYNCIO,
        "ray[serve]==2.60.0",
        "peer_ray:RayServe",
        saturated={"batch_wait_timeout_s": 0.01},
        idle={"batch_wait_timeout_s": 0.0},
    ),
    Contender(
        "async-batcher",
        ASYNCIO,
        "async-batcher==0.2.2",
        "peer_async_batcher:AsyncBatcherQueue",
        saturated={"max_queue_time": 0.01},
        idle={"max_queue_time": 0.0},
        least_batch_size=2,
    ),
    Contender(
        "async-batcher without window",
        ASYNCIO,
        "async-batcher==0.2.2",
        "peer_async_batcher:AsyncBatcherQueue",
        saturated={"max_queue_time": 0.0},
        idle=None,
        least_batch_size=2,
        uncounted="its window is closed",
    ),
    Contender(
        "LitServe's loop",
        ASYNCIO,
        "litserve==0.2.19",
        "peer_litserve:LitServe",
        saturated={"batch_timeout": 0.001},
        idle_batch_size=1,
        sync_fn=True,
    ),
    Contender(
        "BentoML",
        ASYNCIO,
        "bentoml==1.4.39",
        "peer_bentoml:BentoML",
        uncounted="no window to set: it learns how long to wait; at most one batch a millisecond",
    ),
    Contender(
        "aiodataloader",
        ASYNCIO,
        "aiodataloader==0.4.3",
        "peer_aiodataloader:Aiodataloader",
        uncounted="neither a bound nor a window: what is asked for in one turn of the loop leaves together",
    ),
]


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request took under one load."""

    load: str
    cpu_ns: float
    wall_ns: float


def timed(load: str, run: Callable[[int], None], requests: int) -> Cost:
    """Run so many requests; CPU time is that of all threads."""
    wall_start_ns, cpu_start_ns = time.perf_counter_ns(), time.process_time_ns()
    run(requests)
    cpu_ns, wall_ns = time.process_time_ns() - cpu_start_ns, time.perf_counter_ns() - wall_start_ns
    return Cost(load, cpu_ns / requests, wall_ns / requests)


def for_about(seconds: float, load: str, run: Callable[[int], None], unit: int) -> Cost:
    """Run some multiple of `unit` requests, after as many as it takes to know what multiple."""
    units = seconds * 1e9 / timed(load, run, unit).wall_ns / unit
    gc.collect()  # or a run that is shorter than the time between two full collections may pay for one
    return timed(load, run, unit * max(1, round(units)))


def measure(contender: Contender, seconds: float) -> Iterator[Cost]:
    """Put a contender under each load for about `seconds`, anew each time."""
    for size, load in SATURATED.items():
        if size >= contender.least_batch_size:
            with contender.open(size, contender.saturated) as loads:
                yield for_about(seconds, load, loads.saturated, OUTSTANDING)
    if contender.idle is not None:
        with contender.open(contender.idle_batch_size, contender.idle) as loads:
            yield for_about(seconds, IDLE, loads.round_trips, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure one contender; print its version and figures as JSON.")
    parser.add_argument("name", help='as in FIELD, such as "batched"')
    parser.add_argument("path", choices=[THREADS, ASYNCIO])
    parser.add_argument("seconds", type=float, help="of each load")
    chosen = parser.parse_args()
    (contender,) = (each for each in FIELD if (each.name, each.path) == (chosen.name, chosen.path))
    costs = [asdict(cost) for cost in measure(contender, chosen.seconds)]
    print(json.dumps({"version": metadata.version(contender.package), "costs": costs}))


if __name__ == "__main__":
    main()
