"""The best mean latency that any policy can have under Poisson arrivals, and that of `immediate`: exact, one worker.

A semi-Markov decision process with a handful of states: Deb & Serfozo, "Optimal control of batch service queues" (Adv.
Appl. Prob. 5, 1973), solved by policy iteration.  Knows plain numbers only; pure functions, hence thread-safe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "SmdpOptimum",
    "at_least",
    "immediate_bound_ms",
    "immediate_mean_latency_ms",
    "service_times",
    "smdp_optimum",
]

Floats = npt.NDArray[np.float64]


def service_times(service_ms: Sequence[float]) -> Floats:
    """Return the service times as an array if they are at least one and all positive.

    Raises
    ------
    ValueError
        If there is none, or one is not a positive number of milliseconds.
    """
    service = np.asarray(service_ms, dtype=np.float64)
    if service.ndim != 1 or not len(service):
        raise ValueError(f"service_ms must be the times of batches of 1, 2, 3, ... in one row, not {service_ms!r}")
    if not (np.isfinite(service) & (service > 0.0)).all():
        raise ValueError(f"service_ms must all be positive and finite, not {service_ms!r}")
    return service


def at_least(name: str, value: float, least: float) -> None:
    """Raise ValueError unless a number is finite and at least `least`."""
    if not least <= value < math.inf:
        raise ValueError(f"{name} is {value!r}; it must be a finite number of at least {least:g}")


@dataclass(frozen=True, slots=True)
class SmdpOptimum:
    """The best policy for mean latency, and what it reaches.

    Attributes
    ----------
    mean_ms : float
        Mean latency from arrival to result, milliseconds.
    batch_sizes : tuple of int
        What to do with an idle worker, by the number of requests queued: the batch to send, or 0 to wait for the
        next arrival.  The last entry holds for every longer queue.
    """

    mean_ms: float
    batch_sizes: tuple[int, ...]

    @property
    def control_limit(self) -> int:
        """Smallest queue at which the optimum sends a batch."""
        return next(queued for queued, size in enumerate(self.batch_sizes) if size)


class _Chain:
    """One worker under Poisson arrivals, looked at whenever it is idle and a decision is due.

    The state is the number queued, the action a batch size or 0 to wait for the next arrival, the cost the number in
    the system integrated over time: its long-run average is the arrival rate times the mean latency (Little).  Poisson
    arrivals have no memory, so that no instant but an arrival or a completion is worth a decision.

    The chain is cut at `last` queued.  Beyond it relative values are continued as the parabola that they tend to when
    long queues are served in batches of one size, so that heavy load needs no more states than light load, where such
    queues do not happen.
    """

    def __init__(self, service: Floats, per_second: float) -> None:
        at_least("per_second", per_second, 1e-9)
        self.service = service
        self.rate = per_second / 1000.0
        self.last = 4 * len(service) + 200
        self.queued = np.arange(self.last + 1)
        self.arrivals = [_poisson(self.rate * time) for time in service]

    def refuse_overload(self, size: int) -> None:
        """Raise where batches of `size` cannot keep up: the mean would be infinite."""
        capacity = size / self.service[size - 1]
        if self.rate >= capacity:
            raise ValueError(
                f"per_second is {self.rate * 1e3:g}, but batches of {size} serve {capacity * 1e3:g} a second: "
                "the queue grows for ever; give a lower rate"
            )

    def cost(self, queued: Any, time: float) -> Any:
        """Return the cost of `time` milliseconds that begin with `queued` requests in the system, without its end."""
        return queued * time + self.rate * time * time / 2.0

    def evaluate(self, actions: npt.NDArray[np.int64]) -> tuple[float, Floats]:
        """Return average cost and relative values of a policy, the values continued past the last state."""
        last, tail = self.last, int(actions[-1])
        bend = self.service[tail - 1] / (2.0 * (tail - self.rate * self.service[tail - 1]))
        matrix = np.eye(last + 1)
        times, costs = np.empty(last + 1), np.empty(last + 1)
        for queued, size in enumerate(actions.tolist()):
            if size == 0:
                times[queued] = 1.0 / self.rate
                costs[queued] = queued / self.rate
                matrix[queued, queued + 1] -= 1.0
                continue
            chance, left = self.arrivals[size - 1], queued - size
            inside, beyond = chance[: last + 1 - left], chance[last + 1 - left :]
            steps = np.arange(1, len(beyond) + 1)
            slope = float(beyond @ steps)
            times[queued] = self.service[size - 1]
            costs[queued] = self.cost(queued, times[queued]) + bend * float(beyond @ (steps * (steps + 1)))
            matrix[queued, left : left + len(inside)] -= inside
            matrix[queued, last] -= beyond.sum() + slope
            matrix[queued, last - 1] += slope
        matrix[:, 0] = times  # the value of an empty queue is zero: its column is free for the average cost
        values: Floats = np.linalg.solve(matrix, costs).astype(np.float64, copy=False)
        average, values[0] = float(values[0]), 0.0
        steps = np.arange(1, max(map(len, self.arrivals)) + 1)
        beyond = values[-1] + steps * (values[-1] - values[-2]) + bend * steps * (steps + 1)
        return average, np.concatenate([values, beyond])

    def improve(self, actions: npt.NDArray[np.int64], average: float, values: Floats) -> npt.NDArray[np.int64]:
        """Return the policy that is best for one step if `actions` follow; an action changes only for a gain."""
        choices = np.full((len(self.service) + 1, self.last + 1), np.inf)
        choices[0, :-1] = (self.queued[:-1] - average) / self.rate + values[1 : self.last + 1]
        for size, (time, chance) in enumerate(zip(self.service, self.arrivals, strict=True), start=1):
            after = np.correlate(values, chance, "valid")[: self.last + 1 - size]
            choices[size, size:] = self.cost(self.queued[size:], time) - average * time + after
        best = choices.argmin(axis=0)
        gain = values[: self.last + 1] - choices[best, self.queued]
        return np.where(gain > 1e-9 * (1.0 + np.abs(values[: self.last + 1])), best, actions)


def _poisson(mean: float) -> Floats:
    """Return the chances of 0, 1, 2, ... arrivals where `mean` are expected, as far as they matter to a double."""
    count = np.arange(math.ceil(mean + 12.0 * math.sqrt(mean) + 30.0))
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(count[1:]))])
    chances: Floats = np.exp(count * math.log(mean) - mean - log_factorial)
    chances /= chances.sum()
    return chances


def smdp_optimum(service_ms: Sequence[float], per_second: float) -> SmdpOptimum:
    """Return the least mean latency that any policy can reach: Poisson arrivals, one worker, no deadlines.

    Whenever the worker is idle it may send a batch of any size or wait for the next arrival.  About 20 ms for 32 sizes;
    O((B + 50)^3) for B sizes and each of a few iterations.

    Parameters
    ----------
    service_ms : sequence of float
        Service time of a batch of n at index n - 1, milliseconds, positive; need not be increasing.
    per_second : float
        Arrival rate, above 0 and below the greatest of ``1000 * n / service_ms[n - 1]``.

    Raises
    ------
    ValueError
        If a service time is not positive, or the worker cannot keep up with the rate.

    Examples
    --------
    >>> service_ms = [5.072 + 1.053 * n for n in range(1, 33)]
    >>> round(smdp_optimum(service_ms, 412.7).mean_ms, 2)
    14.98
    """
    service = service_times(service_ms)
    chain = _Chain(service, per_second)
    fastest = int(np.argmax(np.arange(1, len(service) + 1) / service)) + 1
    chain.refuse_overload(fastest)
    actions = np.minimum(chain.queued, fastest)
    while True:
        average, values = chain.evaluate(actions)
        better = chain.improve(actions, average, values)
        if (better == actions).all():
            return SmdpOptimum(average / chain.rate, tuple(actions[: 2 * len(service) + 1].tolist()))
        actions = better


def immediate_mean_latency_ms(service_ms: Sequence[float], per_second: float) -> float:
    """Return the mean latency of "take all that is queued, up to the largest batch, whenever the worker is idle".

    Exact for Poisson arrivals and one worker, from the same chain as `smdp_optimum`.

    Parameters
    ----------
    service_ms, per_second
        As in `smdp_optimum`; the rate below ``1000 * B / service_ms[B - 1]`` for the largest batch B.

    Raises
    ------
    ValueError
        If a service time is not positive, or batches of B cannot keep up with the rate.

    Examples
    --------
    >>> round(immediate_mean_latency_ms([5.072 + 1.053 * n for n in range(1, 33)], 412.4), 2)
    14.98
    """
    chain = _Chain(service_times(service_ms), per_second)
    chain.refuse_overload(len(service_ms))
    actions = np.clip(chain.queued, 0, len(service_ms))
    return chain.evaluate(actions)[0] / chain.rate


def immediate_bound_ms(per_item_ms: float, per_batch_ms: float, per_second: float) -> float:
    """Return a closed form near the mean latency of `immediate` if service is affine and batches have no largest size.

    An upper bound from Inoue, "Queueing analysis of GPU-based inference servers with dynamic batching" (Performance
    Evaluation 147, 2021), and in the limit exact where a batch hardly ever ends with nothing queued.

    Parameters
    ----------
    per_item_ms, per_batch_ms : float
        Slope and intercept of the service time, milliseconds, not negative.
    per_second : float
        Poisson arrival rate, below ``1000 / per_item_ms``.

    Raises
    ------
    ValueError
        If an argument is negative, or the worker cannot keep up.

    Examples
    --------
    >>> round(immediate_bound_ms(1.0, 4.0, 600.0), 3)
    17.031
    """
    at_least("per_item_ms", per_item_ms, 0.0)
    at_least("per_batch_ms", per_batch_ms, 0.0)
    at_least("per_second", per_second, 0.0)
    rate = per_second / 1000.0
    load = rate * per_item_ms
    if load >= 1.0:
        raise ValueError(f"per_second is {per_second:g}, but {per_item_ms:g} ms an item allow {1e3 / per_item_ms:g}")
    return 1.5 * per_batch_ms / (1.0 - load) + 0.5 * per_item_ms * (load + 2.0) / (1.0 - load * load)
