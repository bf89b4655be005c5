"""Runs drawn at random: any small traffic, any service, any options."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from pybatch.policies import Drop, View, Wait
from pybatch.simulation import MMPP, Bursts, ClosedLoop, Gamma, Mixed, Poisson, Result, Service, Trace, simulate

rates = st.floats(10, 20_000)
limits = st.none() | st.floats(0, 100) | st.just(((0.5, 0.2), (20, 0.5), (None, 0.3)))

open_sources = st.one_of(
    st.builds(Poisson, rates),
    st.builds(Gamma, rates, st.floats(0.2, 6)),
    st.builds(MMPP, st.tuples(rates, st.just(0.0) | rates), st.tuples(st.floats(1, 100), st.floats(1, 100))),
    st.builds(Bursts, st.floats(0.1, 100), st.just((1, 1)) | st.just((2, 40)), st.floats(0, 1)),
)
traces = st.builds(
    lambda rows, limited, ranked: Trace(
        [arrival for arrival, _, _ in rows],
        [timeout for _, timeout, _ in rows] if limited else None,
        priorities=[priority for _, _, priority in rows] if ranked else None,
    ),
    st.lists(st.tuples(st.integers(0, 60), st.just(np.inf) | st.integers(0, 80), st.integers(-2, 2)), max_size=60),
    st.booleans(),
    st.booleans(),
)
loops = st.builds(ClosedLoop, st.integers(1, 60), st.floats(0, 1), st.floats(0, 5))
workloads = st.one_of(open_sources, loops, traces, st.builds(Mixed, open_sources, loops, open_sources))

services = st.builds(
    Service.affine,
    st.floats(0, 2),
    st.floats(0, 20),
    noise=st.just(0.0) | st.floats(0, 1),
    spikes=st.just((0.0, 0.0)) | st.just((0.1, 30.0)),
    warm_up=st.just((0, 1.0)) | st.just((3, 20.0)),
    drift=st.just(()) | st.just(((0.01, 2.0), (0.05, 0.5))),
)


def whims(view: View) -> int | Wait | Drop:
    """Answer in every way that a policy of one's own may."""
    kind = (view.queued * 7 + view.running + view.now_ns // 1000) % 11
    if kind == 0:
        return Drop(1)
    if kind < 3 and view.in_flight:
        return Wait()
    if kind < 6 and view.now_ns < view.oldest_arrival_ns + 3_000_000:
        return Wait(view.now_ns + 500_000 * kind)
    return (view.queued + 1) // 2 if kind < 9 else 10**6


policies: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({"policy": "immediate"}),
    st.just({"policy": "adaptive"}),
    st.just({"policy": whims}),
    st.builds(lambda ms: {"policy": "fixed", "max_wait_ms": ms}, st.floats(0, 30)),
)
options: st.SearchStrategy[dict[str, Any]] = st.builds(
    lambda policy, **others: policy | others,
    policies,
    max_batch_size=st.integers(1, 40),
    max_queue_size=st.just(1_000_000) | st.integers(1, 30),
    workers=st.integers(1, 5),
    timeout_ms=limits,
    slo_ms=limits,
    requests=st.integers(1, 600),
    seed=st.integers(0, 2**63 - 1),
)


def outstanding(result: Result) -> np.ndarray:
    """Return how many requests that were ever in a batch are in the system just after each arrival of theirs."""
    used = result.dispatched_ns >= 0
    arrivals, ends = result.arrival_ns[used], np.sort(result.finished_ns[used])
    return np.arange(1, len(arrivals) + 1) - np.searchsorted(ends, arrivals, side="right")


__all__ = ["options", "outstanding", "policies", "services", "simulate", "traces", "whims", "workloads"]
