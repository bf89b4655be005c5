"""What batches take: by size, and what makes one batch longer or shorter than another of its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from batchcore.engine import MAX_BATCH_SIZE, integer
from pybatch.simulation.workloads import MAX_MS, number, pair

__all__ = ["PROFILES", "Service"]


@dataclass(frozen=True, slots=True)
class Service:
    """How long a worker is busy with a batch.  Immutable, safe to share and to pickle.

    Made by `affine` or `table`.

    Parameters
    ----------
    points : tuple of (int, float)
        Batch sizes in growing order and what such a batch takes, ms, 0 to 1e10.  In between it is interpolated; above
        the last point the last slope goes on, if it is not negative; below the first one it is that of the first.
    noise : float, default 0
        Sigma, 0 to 3, of a lognormal factor of mean 1 on every batch.
    spikes : (float, float), default (0, 0)
        Probability that a batch takes longer, and by how many ms.
    warm_up : (int, float), default (0, 1)
        How many of the first batches take a multiple of the time, 1e-3 to 1e6, and which.
    drift : tuple of (float, float), default ()
        Instants in s, in growing order, and the multiple of the original time, 1e-3 to 1e6, that a batch takes from
        each of them on.

    Raises
    ------
    TypeError, ValueError
        If something is of the wrong type or out of range.

    Examples
    --------
    >>> service = Service.affine(per_item_ms=0.5, per_batch_ms=6)
    >>> service.ms(1), service.ms(32)
    (6.5, 22.0)
    >>> round(service.capacity_per_second(32), 1)
    1454.5
    >>> Service.table({1: 4.0, 8: 7.5, 16: 12.0}).ms(12)
    9.75
    """

    points: tuple[tuple[int, float], ...]
    noise: float = 0.0
    spikes: tuple[float, float] = (0.0, 0.0)
    warm_up: tuple[int, float] = (0, 1.0)
    drift: tuple[tuple[float, float], ...] = ()

    def __post_init__(self) -> None:
        if not self.points:
            raise ValueError("there are no points; give what a batch of at least one size takes")
        last: float = 0
        for i, (size, ms) in enumerate(self.points):
            last = integer(f"the size of points[{i}]", size, int(last) + 1, MAX_BATCH_SIZE)
            number(f"the time of points[{i}]", ms, 0, MAX_MS)
        number("noise", self.noise, 0, 3)
        probability, ms = pair("spikes", self.spikes)
        number("the probability of spikes", probability, 0, 1)
        number("the time of spikes", ms, 0, MAX_MS)
        batches, factor = pair("warm_up", self.warm_up)
        integer("the batches of warm_up", batches, 0, 2**62)
        number("the factor of warm_up", factor, 1e-3, 1e6)
        last = 0.0
        for i, step in enumerate(self.drift):
            at_s, factor = pair(f"drift[{i}]", step)
            last = number(f"the instant of drift[{i}]", at_s, last, MAX_MS)
            number(f"the factor of drift[{i}]", factor, 1e-3, 1e6)

    @classmethod
    def affine(
        cls,
        per_item_ms: float,
        per_batch_ms: float,
        *,
        noise: float = 0.0,
        spikes: tuple[float, float] = (0.0, 0.0),
        warm_up: tuple[int, float] = (0, 1.0),
        drift: tuple[tuple[float, float], ...] = (),
    ) -> Service:
        """Return the model of a batch of n that takes ``per_item_ms * n + per_batch_ms``."""
        number("per_item_ms", per_item_ms, 0, MAX_MS / 4)
        number("per_batch_ms", per_batch_ms, 0, MAX_MS / 4)
        points = ((1, per_batch_ms + per_item_ms), (2, per_batch_ms + 2 * per_item_ms))
        return cls(points, noise, spikes, warm_up, drift)

    @classmethod
    def table(
        cls,
        ms: Mapping[int, float],
        *,
        noise: float = 0.0,
        spikes: tuple[float, float] = (0.0, 0.0),
        warm_up: tuple[int, float] = (0, 1.0),
        drift: tuple[tuple[float, float], ...] = (),
    ) -> Service:
        """Return the model of batches whose times were measured at some sizes, ``{size: ms}``."""
        return cls(tuple(sorted(ms.items())), noise, spikes, warm_up, drift)

    def ms(self, batch_size: int) -> float:
        """Return what a batch of `batch_size` takes without noise, spikes, warm-up and drift.  O(points)."""
        integer("batch_size", batch_size, 1, MAX_BATCH_SIZE)
        low_size, low_ms = self.points[0]
        if batch_size <= low_size or len(self.points) == 1:
            return float(low_ms)
        high_size, high_ms = self.points[1]
        for size, ms in self.points[2:]:
            if batch_size <= high_size:
                break
            low_size, low_ms, high_size, high_ms = high_size, high_ms, size, ms
        slope = (high_ms - low_ms) / (high_size - low_size)
        if batch_size > high_size:
            return high_ms + max(slope, 0.0) * (batch_size - high_size)
        return low_ms + slope * (batch_size - low_size)

    def capacity_per_second(self, max_batch_size: int) -> float:
        """Return how many requests a second one worker serves in full batches."""
        return 1e3 * max_batch_size / self.ms(max_batch_size)


PROFILES: Final[Mapping[str, Service]] = MappingProxyType(
    {
        "resnet": Service.affine(1.053, 5.072),
        "bert": Service.affine(0.05, 10.2),
        "v100": Service.affine(0.1438, 1.8874),
        "cpu": Service.affine(1.0, 0.05),
        "efficientnet-b7": Service.table(
            {1: 52.5, 2: 316.5, 3: 363.0, 4: 409.6, 5: 425.0, 6: 440.0, 7: 455.0, 8: 471.0},
        ),
    }
)
"""Models that were measured by others: ResNet-50 on a GTX 1080 Ti (Symphony, 2023); BERT-base in ONNX Runtime on the
same (Proteus, 2024); ResNet-50 on a V100 (Inoue, 2021); a convolutional network on a CPU, where batching gains nothing;
and EfficientNet-b7 in ONNX Runtime, where batches of 2 to 7 cost more than they save (Proteus; 3 and 5 to 7 are
interpolated)."""
