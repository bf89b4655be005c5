"""Schedulers, as Prometheus sees them.

The engine counts, in nanoseconds of CPU; nothing here runs until somebody scrapes.  Then one collector a registry asks
each of its sources for one `Stats` and translates it.  So the figures of a scheduler agree with each other, and a
scheduler nobody scrapes pays nothing.

Sources are held weakly: metrics keep no scheduler alive.  A collector, once registered, stays: without sources it
yields families without samples.  Taking it away with the last source would take the registry's lock, which is not
reentrant, from wherever a scheduler happens to be finalised.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import accumulate, count
from typing import Final, Protocol
from weakref import WeakKeyDictionary, ref

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from batchcore.records import OUTCOMES, REASONS, Histogram, Stats

__all__ = ["Source", "register", "unregister"]

_log = logging.getLogger(__name__)


class Source(Protocol):
    """What can be scraped: a scheduler, or anything else that counts like one and can be weakly referenced."""

    def stats(self) -> Stats:
        """Return a snapshot; ``last_progress_at_ns`` is on the clock of `time.monotonic_ns`.

        Called once a scrape, from the scraping thread.
        """
        ...


def register(registry: CollectorRegistry | None, source: Source, name: str) -> str:
    """Let a registry's scrapes show a source.

    Parameters
    ----------
    registry : CollectorRegistry or None
        Where to show it; None is prometheus-client's default registry.  The first source of a registry registers the
        collector there.
    source : Source
        What to show, until it is unregistered or nobody else refers to it.
    name : str
        Wanted value of the label ``scheduler``.

    Returns
    -------
    str
        The label given: `name`, or the first free of ``name-2``, ``name-3``, ...  A label is free again once its owner
        is unregistered or collected.

    Raises
    ------
    TypeError
        If `registry` is something else, or `source` cannot be weakly referenced.
    ValueError
        If somebody else registered a metric by one of our names there.

    Notes
    -----
    Safe to call from any thread.

    In prometheus-client's multiprocess mode this shows the process it is called in, no other: a custom collector writes
    no value files, so what ``MultiProcessCollector`` merges has no ``pybatch_`` series.  To see every process, scrape
    each.

    Examples
    --------
    >>> registry = CollectorRegistry()
    >>> class Idle:
    ...     def stats(self): ...
    >>> first, second = Idle(), Idle()
    >>> register(registry, first, "embed"), register(registry, second, "embed")
    ('embed', 'embed-2')
    >>> unregister(registry, first)
    >>> register(registry, Idle(), "embed")
    'embed'
    """
    registry = _checked(registry)
    with _registration:
        collector = _collectors.get(registry)
        if collector is None:
            collector = _Collector()
            registry.register(collector)
            _collectors[registry] = collector
        return collector.add(source, name)


def unregister(registry: CollectorRegistry | None, source: Source) -> None:
    """Show a source no longer, and free its name; nothing happens if it is not shown.

    Parameters
    ----------
    registry : CollectorRegistry or None
        As given to `register`.
    source : Source
        As given to `register`.

    Raises
    ------
    TypeError
        If `registry` is something else.

    Notes
    -----
    Safe to call from any thread, and from a finaliser.
    """
    collector = _collectors.get(_checked(registry))
    if collector is not None:
        collector.remove(source)


class _Collector(Collector):
    """The sources of one registry, by id, each with its label.

    `add` is called by one thread at a time.  The rest is free of locks: each is one atomic operation on the dict.
    """

    def __init__(self) -> None:
        self._sources: dict[int, tuple[str, ref[Source]]] = {}

    def add(self, source: Source, name: str) -> str:
        taken = {label for label, _ in self._live()}
        labels = (name if number == 1 else f"{name}-{number}" for number in count(1))
        label = next(label for label in labels if label not in taken)
        key, sources = id(source), self._sources
        # The callback runs before the memory of the source, and so its id, can be anybody else's.
        sources[key] = label, ref(source, lambda _: sources.pop(key, None))
        return label

    def remove(self, source: Source) -> None:
        self._sources.pop(id(source), None)

    def describe(self) -> list[Metric]:
        return _families([])

    def collect(self) -> list[Metric]:
        snapshots = []
        for label, source in self._live():
            try:
                snapshots.append((label, source.stats()))
            except Exception:
                _log.warning("scheduler %r is left out of this scrape: stats() failed", label, exc_info=True)
        return _families(snapshots)

    def _live(self) -> list[tuple[str, Source]]:
        entries = self._sources.copy().values()
        return [(label, source) for label, weak in entries if (source := weak()) is not None]


_collectors: WeakKeyDictionary[CollectorRegistry, _Collector] = WeakKeyDictionary()
# Never taken by `unregister`: while it is held, or the registry's own inside it, the last reference to a source may go
# and its finaliser unregister.  Held by test_a_finaliser_may_unregister_while_another_source_registers.
_registration = threading.Lock()


def _after_fork() -> None:
    global _registration  # noqa: PLW0603  # whoever held it is not in this process
    _registration = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _checked(registry: CollectorRegistry | None) -> CollectorRegistry:
    if registry is None:
        return REGISTRY
    if not isinstance(registry, CollectorRegistry):
        raise TypeError(f"registry must be a prometheus_client.CollectorRegistry or None, got {registry!r}")
    return registry


_NS_PER_S: Final = 1_000_000_000


def _seconds(ns: int | None) -> float | None:
    return None if ns is None else ns / _NS_PER_S


def _unix_seconds(at_ns: int | None) -> float | None:
    return None if at_ns is None else (time.time_ns() - time.monotonic_ns() + at_ns) / _NS_PER_S


# None leaves the sample out.
_GAUGES: Final[tuple[tuple[str, str, Callable[[Stats], float | None]], ...]] = (
    ("queue_length", "Requests waiting in the queue.", lambda stats: stats.queued),
    ("in_flight_batches", "Batches being computed.", lambda stats: stats.in_flight_batches),
    (
        "last_progress_timestamp_seconds",
        "Unix time at which a batch last completed; absent before the first.",
        lambda stats: _unix_seconds(stats.last_progress_at_ns),
    ),
    ("keys", "Keys with requests in the queue; of arrays, each dtype and shape counts.", lambda stats: stats.keys),
    (
        "padding_ratio",
        "Share of what fn was given since the start that was padding or filler; absent before the first batch.",
        lambda stats: stats.padding_ratio if stats.batch_elements else None,
    ),
    ("max_batch_size", "Most requests in a batch.", lambda stats: stats.max_batch_size),
    ("max_queue_size", "Most requests in the queue.", lambda stats: stats.max_queue_size),
    ("max_concurrent_batches", "Most batches computed at once.", lambda stats: stats.capacity),
    (
        "max_wait_seconds",
        "Longest a request waits for company; absent if not set.",
        lambda stats: _seconds(stats.max_wait_ns),
    ),
    (
        "max_latency_seconds",
        "End-to-end target that waiting for company must not break; absent if not set.",
        lambda stats: _seconds(stats.max_latency_ns),
    ),
)

_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[Stats], Histogram], int], ...]] = (
    ("batch_size", "Requests per dispatched batch.", lambda stats: stats.batch_size, 1),
    (
        "queue_delay_seconds",
        "Time from a request's arrival to its dispatch.",
        lambda stats: stats.queue_delay_ns,
        _NS_PER_S,
    ),
    (
        "service_seconds",
        "Time from a batch's dispatch to its completion.",
        lambda stats: stats.service_ns,
        _NS_PER_S,
    ),
)


def _families(snapshots: Sequence[tuple[str, Stats]]) -> list[Metric]:
    requests = CounterMetricFamily(
        "pybatch_requests", "Requests that ended, by how they ended.", labels=["scheduler", "outcome"]
    )
    batches = CounterMetricFamily("pybatch_batches", "Batches dispatched, by why.", labels=["scheduler", "reason"])
    elements = CounterMetricFamily(
        "pybatch_elements",
        "Array elements, or items of lists, that fn was given: of requests, and of padding and filler.",
        labels=["scheduler", "kind"],
    )
    policy = InfoMetricFamily("pybatch_policy", "The batching policy in force.", labels=["scheduler"])
    for name, stats in snapshots:
        for outcome in OUTCOMES:
            requests.add_metric([name, outcome], getattr(stats, outcome))
        for reason in REASONS:
            batches.add_metric([name, reason], stats.batches_by_reason[reason])
        elements.add_metric([name, "item"], stats.item_elements)
        elements.add_metric([name, "padding"], stats.batch_elements - stats.item_elements)
        policy.add_metric([name], {"policy": stats.policy})
    histograms = [
        _histogram(f"pybatch_{suffix}", text, [(name, read(stats)) for name, stats in snapshots], unit)
        for suffix, text, read, unit in _HISTOGRAMS
    ]
    gauges = [
        _gauge(f"pybatch_{suffix}", text, [(name, read(stats)) for name, stats in snapshots])
        for suffix, text, read in _GAUGES
    ]
    return [requests, batches, elements, *histograms, *gauges, policy]


def _histogram(metric: str, text: str, samples: Sequence[tuple[str, Histogram]], unit: int) -> Metric:
    family = HistogramMetricFamily(metric, text, labels=["scheduler"])
    for name, histogram in samples:
        bounds = [*(str(bound / unit) for bound in histogram.bounds), "+Inf"]
        cumulative = accumulate(histogram.counts)
        family.add_metric([name], list(zip(bounds, cumulative, strict=True)), histogram.sum / unit)
    return family


def _gauge(metric: str, text: str, samples: Sequence[tuple[str, float | None]]) -> Metric:
    family = GaugeMetricFamily(metric, text, labels=["scheduler"])
    for name, value in samples:
        if value is not None:
            family.add_metric([name], value)
    return family
