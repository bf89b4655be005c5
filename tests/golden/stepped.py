"""A whole scheduler in virtual time, fed with recorded traffic: estimates, metrics, and its own recording of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry
from simulations import RECORDED
from stories import counts_of, learned_by

from pybatch import QueueFull
from pybatch.simulation import Service, Trace
from pybatch.testing import SteppingScheduler

SERVICE = Service.table({1: 4.1, 2: 4.7, 5: 6.3, 8: 9.9, 16: 12.7})

OPTIONS: dict[str, dict[str, Any]] = {
    "adaptive": {},
    "adaptive, limits": {"max_wait_ms": 2.5, "max_latency_ms": 33.3, "max_queue_size": 50, "max_concurrent_batches": 2},
    "fixed, sizes": {"policy": "fixed", "max_wait_ms": 4, "allowed_batch_sizes": [1, 2, 5, 16]},
}


def step(options: dict[str, Any]) -> Iterator[str]:
    trace = Trace.load(RECORDED)
    registry = CollectorRegistry()
    assert trace.timeouts_ms is not None
    assert trace.priorities is not None
    rows = zip(trace.arrivals_ms.tolist(), trace.timeouts_ms.tolist(), trace.priorities.tolist(), strict=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        SteppingScheduler(list, max_batch_size=16, service_ms=SERVICE.ms, registry=registry, **options) as scheduler,
    ):
        recorded = Path(folder, "again.csv")
        with scheduler.record(recorded):
            for number, (at_ms, timeout_ms, priority) in enumerate(rows):
                scheduler.advance(max(at_ms - scheduler.clock.now_ms, 0.0))
                try:
                    scheduler.submit(number, timeout_ms=None if np.isinf(timeout_ms) else timeout_ms, priority=priority)
                except QueueFull:
                    yield f"{number} rejected"
                if number % 20 == 0 and (found := scheduler.estimate()) is not None:
                    yield f"{number} would wait {found.queue_delay_ms.hex()} for {found.service_ms.hex()}"
        scheduler.drain()
        yield from recorded.read_text().splitlines()
        for batch in scheduler.batches:
            yield f"{batch.at_ms.hex()} {batch.reason}: {' '.join(map(str, batch.items))}"
        yield from samples(registry)
        yield f"costs: {' '.join(f'{size}:{ms.hex()}' for size, ms in scheduler.cost_model())}"
        yield from counts_of(scheduler.stats())
        yield from learned_by(scheduler.dispatcher.engine, scheduler.clock.now_ns)


def samples(registry: CollectorRegistry) -> Iterator[str]:
    """What Prometheus is shown; what it is shown of the wall clock is left out."""
    for family in registry.collect():
        for sample in family.samples:
            if sample.name != "pybatch_last_progress_timestamp_seconds":
                labels = ",".join(value for name, value in sample.labels.items() if name != "scheduler")
                yield f"{sample.name} {labels} {float(sample.value).hex()}"


STEPPED: dict[str, Callable[[], Iterator[str]]] = {name: partial(step, options) for name, options in OPTIONS.items()}
