"""What no policy can beat: exact optima where they can be computed, and bounds where they cannot.

Plain functions of plain numbers.  A model's service time is a sequence, ``service_ms[n - 1]`` milliseconds for a batch
of n, so that its length is the largest batch; rates are per second; arrivals are sorted integer nanoseconds.  Nothing
here simulates, waits or is random, and nothing knows a policy.  All functions are pure, hence thread-safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pybatch.simulation.smdp import (
    SmdpOptimum,
    at_least,
    immediate_bound_ms,
    immediate_mean_latency_ms,
    service_times,
    smdp_optimum,
)

__all__ = [
    "SmdpOptimum",
    "gather_per_second",
    "immediate_bound_ms",
    "immediate_mean_latency_ms",
    "offline_goodput",
    "saturated_per_second",
    "smdp_optimum",
    "stagger_latency_ms",
]

NEVER = 1 << 62
"""A finish time, in nanoseconds, that stands for "cannot be done"; adding a service time to it does not overflow."""

CHUNK = 256
"""Requests after which `offline_goodput` lets go of its older rows: bounds its memory, changes no result."""


def offline_goodput(arrivals_ns: npt.ArrayLike, service_ms: Sequence[float], slo_ms: float) -> float:
    """Return the greatest share of requests that any policy can answer in time, even one that knows the future.

    One worker, one SLO for all.  By exchange, some best schedule serves requests in order of arrival and in batches
    without gaps, so that a dynamic programme over "first i requests, d of them given up: earliest finish" is exact.
    Of the d it keeps those that matter: more given up than needed to be idle at the next arrival gains nothing, and
    fewer cannot be done.  That is a band about as wide as what one SLO can serve, so that 8,000 requests and 32 sizes
    take well under a second.  O(n B w) time for a band of w, O((B + 256) w) memory.

    A policy judged only by requests from the i-th on is bounded by the optimum of ``arrivals_ns[i:]``.

    Parameters
    ----------
    arrivals_ns : array_like of int, shape (n,)
        Instants of arrival, nanoseconds, sorted; at least one.
    service_ms : sequence of float
        Service time of a batch of n at index n - 1, milliseconds, positive.  Where a larger batch is quicker, a smaller
        one is taken to be filled up, so that the result bounds policies that do so with requests given up.
    slo_ms : float
        Longest time from arrival to result that counts, inclusive, milliseconds, not negative.

    Returns
    -------
    float
        From 0.0 to 1.0.

    Raises
    ------
    ValueError
        If there is no arrival, they are not sorted, or an argument is out of range.

    Examples
    --------
    >>> offline_goodput([0, 1_000_000, 2_000_000], service_ms=[10.0, 11.0], slo_ms=19.0)
    0.6666666666666666
    """
    arrivals = np.asarray(arrivals_ns, dtype=np.int64)
    if arrivals.ndim != 1 or not len(arrivals) or (np.diff(arrivals) < 0).any():
        raise ValueError("arrivals_ns must be at least one instant, in one row, sorted")
    at_least("slo_ms", slo_ms, 0.0)
    shortest = np.minimum.accumulate(service_times(service_ms)[::-1])  # for B, B - 1, ..., 1
    service = np.rint(shortest * 1e6).astype(np.int64)[:, None]
    most = len(service)
    due = np.concatenate([np.zeros(most, np.int64), arrivals + round(slo_ms * 1e6)])[:, None]
    upcoming = np.append(arrivals[1:], NEVER - 1)

    # Row r of the table holds what is known after request r - most of this chunk; column d: d more given up than all
    # rows from here on must.  An entry is the earliest finish, NEVER where it cannot be done or is not worth keeping.
    table = np.full((most, 1), NEVER)
    table[-1, 0] = arrivals[0]
    given_up = 0
    for start in range(0, len(arrivals), CHUNK):
        kept = table[-most:, np.argmax(table[-1] < NEVER) :]
        given_up += table.shape[1] - kept.shape[1]
        width = int(np.flatnonzero((kept < NEVER).any(axis=0))[-1]) + 1
        steps = min(CHUNK, len(arrivals) - start)
        table = np.full((most + steps, width + steps), NEVER)
        table[:most, :width] = kept[:, :width]
        low, ends = 0, [width] * most
        for row, request in enumerate(range(start, start + steps), start=most):
            high = max(ends[-most:]) + 1
            finish = np.maximum(table[row - most : row, low:high], arrivals[request])
            finish += service
            finish[finish > due[request + 1 : request + 1 + most]] = NEVER
            best = finish.min(axis=0)
            np.minimum(best[1:], table[row - 1, low : high - 1], out=best[1:])
            idle = best <= upcoming[request]
            if idle.any():
                best[int(idle.argmax()) + 1 :] = NEVER
            possible = np.flatnonzero(best < NEVER)
            table[row, low:high] = best
            ends.append(low + int(possible[-1]) + 1)
            low += int(possible[0])
    given_up += int(np.argmax(table[-1] < NEVER))
    return (len(arrivals) - given_up) / len(arrivals)


def saturated_per_second(service_ms: Sequence[float], slo_ms: float = math.inf, workers: int = 1) -> float:
    """Return the most requests a second that workers of this speed can serve, each within `slo_ms`.

    Parameters
    ----------
    service_ms : sequence of float
        Service time of a batch of n at index n - 1, milliseconds, positive.
    slo_ms : float, optional
        Batches that take longer do not count; default: all do.
    workers : int, optional
        Batches that can run at once, at least 1.

    Returns
    -------
    float
        0.0 if no batch is within the SLO.

    Raises
    ------
    ValueError
        If a service time is not positive or there is no worker.

    Examples
    --------
    >>> saturated_per_second([10.0, 16.0, 40.0])
    125.0
    >>> saturated_per_second([10.0, 16.0, 40.0], slo_ms=12.0, workers=2)
    200.0
    """
    at_least("workers", workers, 1)
    service = service_times(service_ms)
    rates = np.where(service <= slo_ms, np.arange(1, len(service) + 1) / service, 0.0)
    return float(rates.max()) * 1000.0 * workers


def gather_per_second(
    service_ms: Sequence[float], clients: int, return_ms: float = 0.05, think_ms: float = 0.3
) -> float:
    """Return the best steady throughput of one worker and clients that each wait for their answer: a closed loop.

    A rhythm of equal batches of g: of the clients, those not in the batch wait already when it ends, and the worker
    rests until enough of the others are back, ``return_ms`` plus an exponential time after their answer, to fill the
    next.  The best g is chosen; no client can be faster than alone.  Exact for such rhythms where returns are short
    beside a batch; a policy of varying batches might pass it by a little.

    Parameters
    ----------
    service_ms : sequence of float
        Service time of a batch of n at index n - 1, milliseconds, positive.
    clients : int
        Number of clients, at least 1.
    return_ms, think_ms : float, optional
        Constant part and mean of the exponential part of the time from an answer to the client's next request,
        milliseconds, not negative.

    Raises
    ------
    ValueError
        If an argument is out of range.

    Examples
    --------
    >>> round(gather_per_second([10.2 + 0.05 * n for n in range(1, 33)], clients=16))
    1326
    """
    at_least("clients", clients, 1)
    at_least("return_ms", return_ms, 0.0)
    at_least("think_ms", think_ms, 0.0)
    service = service_times(service_ms)
    fastest = clients / (return_ms + think_ms + service.min())
    best = 0.0
    for size in range(1, min(clients, len(service)) + 1):
        missing = max(2 * size - clients, 0)
        # The mean of the k-th smallest of g exponential times is the sum of their mean over g, g - 1, ..., g - k + 1.
        rest = return_ms + think_ms * sum(1.0 / (size - back) for back in range(missing)) if missing else 0.0
        best = max(best, size / (service[size - 1] + rest))
    return float(min(best, fastest)) * 1000.0


def stagger_latency_ms(service_ms: Sequence[float], per_second: float, workers: int) -> float:
    """Return the mean latency of workers that start evenly spaced and each take all that is queued.

    In that rhythm a batch starts every l(b) / K and takes what arrived since: b = rate l(b) / K, and a request waits
    for half a spacing, so that the mean is l(b) (1 + 1 / 2K).  An ideal to aim at, not a bound: at light load, where b
    is taken to be 1, an idle worker answers sooner.

    Parameters
    ----------
    service_ms : sequence of float
        Service time of a batch of n at index n - 1, milliseconds, positive; interpolated in between.
    per_second : float
        Arrival rate of all workers together.
    workers : int
        Number of workers, at least 1.

    Raises
    ------
    ValueError
        If an argument is out of range, or the workers cannot keep up in this rhythm.

    Examples
    --------
    >>> round(stagger_latency_ms([10.2 + 0.05 * n for n in range(1, 33)], 5424, workers=4), 1)
    12.3
    """
    at_least("per_second", per_second, 1e-9)
    at_least("workers", workers, 1)
    service = service_times(service_ms)
    short = per_second / (1000.0 * workers) * service - np.arange(1, len(service) + 1)  # arrivals a cycle beyond b
    if not (short <= 0.0).any():
        raise ValueError(
            f"per_second is {per_second:g}, but {workers} workers serve at most "
            f"{saturated_per_second(service_ms, workers=workers):g}; give a lower rate"
        )
    enough = int(np.argmax(short <= 0.0))
    latency = float(service[enough])
    if enough:  # the batch that keeps up lies between two sizes
        share = float(short[enough - 1] / (short[enough - 1] - short[enough]))
        latency = float(service[enough - 1] + share * (service[enough] - service[enough - 1]))
    return latency * (1.0 + 0.5 / workers)
