"""What the engine learns, once more in plain Python: service times by batch size, and how requests come.

The sums repeat the documented ones in the documented order, because predictions decide when a batch leaves and are
meant to be the same bit for bit on every machine: the comparison is exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

LONGEST_NS = 1e16
MOST_LOAD = 2**31 - 1
MEMORY_NS = 300_000_000
BIN_ENDS_NS = [1 << 13, *((quarter << octave) << 11 for octave in range(23) for quarter in (5, 6, 7, 8))][:90]


def decay(x: float) -> float:
    """exp(-x): halved until it is small, a short series, squared back."""
    if x > 60.0:
        return 0.0
    halvings = 0
    while x > 0.0625:
        x, halvings = x * 0.5, halvings + 1
    y = 1.0 - x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0 - x * (1.0 / 120.0)))))
    for _ in range(halvings):
        y *= y
    return y


@dataclass
class Average:
    """Of the batches whose sizes share a slot."""

    seen: float = 0.0
    size: float = 0.0
    ns: float = 0.0
    set_at: int = 0  # batches learned when that was last confirmed, or rescaled


class ReferenceCost:
    """An affine law through decayed sums, and an average by size that the law fills in."""

    def __init__(self, allowed: Sequence[int] = ()) -> None:
        self.allowed = allowed  # sizes of batches; none: any
        self.per_request = 0.0  # usual weight of a request; 0: the load is the size
        self.weight = self.size = self.ns = self.size_size = self.size_ns = 0.0
        self.slope = self.intercept = self.deviation = self.fastest_ns = 0.0
        self.learned = 0  # batches
        self.measured: list[float] = []  # the fastest and the slowest ever
        self.odd_sizes: list[Average] = []  # of `odd`
        self.odd: list[float] = []  # how far off the latest batches were, while all are slow or all are fast
        self.averages: dict[int, Average] = {}

    @property
    def known(self) -> bool:
        return self.weight > 0

    def law(self, size: float) -> float:
        return self.slope * size + self.intercept

    def average(self, size: int) -> Average:
        """Exact up to 63; above, an eighth of an octave for each."""
        eighth = max(0, size.bit_length() - 4) if size >= 64 else 0
        return self.averages.setdefault(size >> eighth << eighth, Average())

    def from_average(self, average: Average, size: int) -> float:
        return average.ns if average.size == size else average.ns * self.law(size) / self.law(average.size)

    def expect(self, size: int) -> float:
        return self.expect_load(int(max(min(self.load(float(size)), float(MOST_LOAD)), 1.0)))

    def load(self, size: float) -> float:
        """What so many requests are likely to load the model with."""
        if self.per_request or not self.allowed:
            return size * (self.per_request or 1.0)
        return float(min((other for other in self.allowed if other >= int(size)), default=int(size)))

    def expect_load(self, load: int) -> float:
        average, law = self.average(load), self.law(load)
        if average.seen:
            trust = 1.0 if average.seen < 3 else 0.2
            law = (average.seen * self.from_average(average, load) + trust * law) / (average.seen + trust)
        return min(law, LONGEST_NS)

    def predict(self, size: int) -> int | None:
        return int(self.expect(size)) if self.known else None

    def careful(self, size: int) -> int:
        """What to count on where a deadline is at stake."""
        return int(min(self.expect(size) * (1.0 + 0.5 * self.deviation), LONGEST_NS))

    def largest_within(self, slack_ns: int, limit: int) -> int:
        """The largest batch that is fast enough, found by halving; 0: none."""
        if self.careful(limit) <= slack_ns:
            return limit
        fits, fails = 0, limit
        while fits + 1 < fails:
            middle = (fits + fails) // 2
            fits, fails = (middle, fails) if self.careful(middle) <= slack_ns else (fits, middle)
        return fits

    def learn(self, size: int, service_ns: int) -> None:
        average = self.average(size)
        ns = min(float(max(service_ns, 1)), LONGEST_NS)
        self.measured = [min([ns, *self.measured]), max([ns, *self.measured])]
        self.learned += 1
        if average.seen:
            ns = self._judge(average, size, self.from_average(average, size), ns)
        else:
            average.set_at = self.learned
        gain = max(0.1, 1.0 / (average.seen + 1.0))
        average.size += gain * (size - average.size)
        average.ns += gain * (ns - average.ns)
        average.seen = min(average.seen + 1.0, 1000.0)
        self.fastest_ns = min(ns, self.fastest_ns * 1.02) if self.known else ns
        self.weight = self.weight * 0.985 + 1.0
        self.size = self.size * 0.985 + size
        self.ns = self.ns * 0.985 + ns
        self.size_size = self.size_size * 0.985 + float(size) * size
        self.size_ns = self.size_ns * 0.985 + size * ns
        self._fit()

    def _judge(self, average: Average, size: int, expected: float, ns: float) -> float:
        """What to learn of a batch: its time, or less of it if it is odd."""
        ratio = ns / expected
        tolerance = max(4.0 * self.deviation, 0.25)
        if ratio < 0.6 and ratio * (1.0 + 4.0 * self.deviation) < 1.0:
            self._rescale(max(ratio, 1e-6), self._until(average), size, ns)
            return ns
        most = 1.0 + tolerance
        if ratio <= most and ratio * most >= 1.0:
            self.odd = []
            average.set_at = self.learned
            self.deviation = min(self.deviation + 0.1 * (abs(ratio - 1.0) - self.deviation), 1.0)
            return ns
        if self.odd and (self.odd[0] > 1.0) != (ratio > 1.0):
            self.odd = []
        self.odd_sizes = [*self.odd_sizes[: len(self.odd)], average]
        self.odd = [*self.odd, ratio]
        if len(self.odd) < 3:
            return expected * most if ratio > 1.0 else expected / most
        ratio = min(self.odd) if ratio > 1.0 else max(self.odd)
        mixed = any(other is not average for other in self.odd_sizes)
        self._rescale(ratio, self.learned if mixed else self._until(average), size, ratio * expected)
        return ratio * expected

    def _until(self, average: Average) -> int:
        """Until when what was learned is in doubt since a size is odd."""
        known = average.seen >= 3 and self.learned - average.set_at <= 64
        return self.learned if known else average.set_at

    def _credible(self, ns: float) -> float:
        return min(max(ns, 0.125 * self.measured[0]), 8.0 * self.measured[1])

    def _rescale(self, ratio: float, until: int, size: int, ns: float) -> None:
        """Multiply what was learned up to an instant, and the law with it if that is all."""
        self.odd = []
        seen = {key: average for key, average in sorted(self.averages.items()) if average.seen}
        later = []
        for average in seen.values():
            share = average.size / float(size)
            agrees = ns * min(1.0, share) <= 4.0 * average.ns and average.ns <= 4.0 * ns * max(1.0, share)
            if average.set_at > until and agrees:
                later.append(average)
            else:
                average.ns, average.set_at = self._credible(average.ns * ratio), self.learned
        if not later:
            mean = self.ns / self.weight
            ratio = self._credible(ratio * mean) / mean
            self.ns *= ratio
            self.size_ns *= ratio
            self.fastest_ns *= ratio
            return
        batches = sum(average.seen for average in seen.values())
        self.weight = self.size = self.ns = self.size_size = self.size_ns = 0.0
        for average in seen.values():
            weight = average.seen * min(1.0, 66.0 / batches)
            self.weight += weight
            self.size += weight * average.size
            self.ns += weight * average.ns
            self.size_size += weight * average.size * average.size
            self.size_ns += weight * average.size * average.ns

    def _fit(self) -> None:
        mean_size, mean_ns = self.size / self.weight, self.ns / self.weight
        spread = self.size_size - self.size * mean_size
        doubt = self.deviation * mean_size / 0.3
        doubt = doubt * doubt + 1e-9 * self.size_size
        rise = self.size_ns - self.size * mean_ns + doubt * 0.1 * mean_ns / mean_size
        self.slope = max(rise / (spread + doubt), 0.0)
        self.intercept = mean_ns - self.slope * mean_size
        if self.intercept < 0:
            self.slope, self.intercept = self.size_ns / self.size_size, 0.0


@dataclass
class Gaps:
    """A histogram in which each gap counts more than the one before."""

    growth: float
    weights: list[float] = field(default_factory=lambda: [0.0] * len(BIN_ENDS_NS))
    total: float = 0.0
    unit: float = 0.0

    @staticmethod
    def bin(gap_ns: int) -> int:
        return min(bisect_right(BIN_ENDS_NS, gap_ns), len(BIN_ENDS_NS) - 1)

    def add(self, gap_ns: int) -> None:
        if self.unit > 1e100:
            self.weights = [weight / self.unit for weight in self.weights]
            self.total /= self.unit
            self.unit = 1.0
        self.unit = self.unit * self.growth if self.unit else 1.0
        self.weights[self.bin(gap_ns)] += self.unit
        self.total += self.unit

    @property
    def known(self) -> bool:
        return self.total > 7.0 * self.unit > 0


class ReferenceTraffic:
    """The rate of arrivals, what follows an instant of decision, and whether callers wait for their answers."""

    def __init__(self) -> None:
        self.seen = 0
        self.arrivals = 0.0
        self.first_at = self.latest_at = 0
        self.moment: tuple[str, int] | None = None
        self.gaps = {kind: Gaps(1.0 / 0.97) for kind in ("completion", "into idle", "further")}
        self.returns = Gaps(1.0 / 0.998)
        self.completed_at = self.cycle_ns = 0
        self.awaited = 0  # of the latest batch, how many have not come back if each arrival is one of them
        self.early = self.late = 0.0
        self.present = 0
        self.callers = self.spread = 0.0

    def arrive(self, now: int, present: int) -> None:
        if not self.seen:
            self.first_at = self.latest_at = now
        self.seen += 1
        self.arrivals = self.arrivals * decay((now - self.latest_at) / MEMORY_NS) + 1.0
        self.latest_at = now
        if self.moment:
            kind, instant = self.moment
            self.gaps[kind].add(now - instant)
            self.moment = None
        self.awaited = max(self.awaited - 1, 0)
        if self.cycle_ns:
            lag = now - self.completed_at
            self.returns.add(lag)
            if lag <= self.cycle_ns:
                early = lag <= self.cycle_ns // 4
                self.early = self.early * 0.98 + early
                self.late = self.late * 0.98 + (not early)
        self.present = max(self.present, present)

    def complete(self, now: int, cycle_ns: int, size: int, present: int) -> None:
        if self.cycle_ns:
            off = self.present - self.callers
            self.callers += 0.1 * off
            self.spread += 0.1 * (abs(off) - self.spread)
        else:
            self.callers = float(self.present)
        self.present, self.completed_at, self.cycle_ns, self.awaited = present, now, cycle_ns, size

    def rate(self, now: int) -> float:
        """Arrivals a nanosecond, the first one left out."""
        if self.seen < 2 or now <= self.first_at:
            return 0.0
        first = decay((now - self.first_at) / MEMORY_NS)
        since = self.arrivals * decay((now - self.latest_at) / MEMORY_NS)
        return max(since - first, 0.0) / (MEMORY_NS * (1.0 - first))

    @property
    def closed(self) -> bool:
        return self.early + self.late > 20.0 and self.early > 0.6 * (self.early + self.late)

    def missing(self, present: int) -> int:
        """Callers that are neither queued nor running."""
        return int(self.callers - self.spread + 0.5) - present
