"""A source of hand-made figures, and a registry of its own for each test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from batchcore.records import REASONS, Histogram, Stats

# 9 requests offered: 5 completed in batches of 2 and 3, 1 running, 2 queued, 1 rejected.
STATS = Stats(
    submitted=9,
    completed=5,
    failed=0,
    rejected=1,
    expired=0,
    cancelled=0,
    shut_down=0,
    queued=2,
    running=1,
    in_flight_batches=1,
    batches=3,
    batches_by_reason={**dict.fromkeys(REASONS, 0), "full": 1, "window": 2},
    batch_size=Histogram(bounds=(1, 2, 4), counts=(1, 1, 1, 0), sum=6),
    queue_delay_ns=Histogram(bounds=(100_000, 1_000_000), counts=(3, 2, 1), sum=7_500_000),
    service_ns=Histogram(bounds=(100_000, 1_000_000), counts=(0, 2, 0), sum=1_250_000),
    last_progress_at_ns=None,
    capacity=2,
    policy="fixed",
    max_batch_size=4,
    max_queue_size=100,
    max_wait_ns=5_000_000,
    max_latency_ns=None,
    keys=1,
    item_elements=6,
    batch_elements=8,
)


class HandMade:
    """Tells what it was told to tell."""

    def __init__(self, told: Stats) -> None:
        self.told = told

    def stats(self) -> Stats:
        return self.told


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def hand_made() -> Callable[..., HandMade]:
    """Make a source; keywords change what it tells."""

    def make(**changes: Any) -> HandMade:
        return HandMade(replace(STATS, **changes))

    return make
