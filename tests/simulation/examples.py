"""A report with figures made by formula, as real ones look: what tests of the page show."""

from __future__ import annotations

from pybatch.simulation.findings import BatchSizes, Cost, Fact, Findings, Latencies, LoadCurve, Optimum, Queue

LABELS = ("adaptive", "immediate", "fixed 5 ms", "BentoML's rule", "no batching")
LOADS = tuple(100.0 * step for step in range(1, 13))


def _curve(label: str, base_ms: float, capacity: float) -> LoadCurve:
    def latency(load: float, factor: float) -> float:
        return min(5000.0, base_ms * factor / max(1e-3, 1 - load / capacity))

    return LoadCurve(
        label,
        LOADS,
        tuple(latency(load, 1.0) for load in LOADS),
        tuple(latency(load, 1.7) for load in LOADS),
        tuple(latency(load, 2.2) for load in LOADS),
        tuple(min(1.0, (capacity / load) ** 6) for load in LOADS),
    )


def example() -> Findings:
    """Return a whole report; its title has characters that mean something in HTML."""
    bases, capacities = (6.0, 7.0, 11.0, 7.5, 6.0), (1150.0, 1000.0, 1000.0, 950.0, 160.0)
    shares = tuple(step / 100 for step in range(1, 101))
    return Findings(
        title="How to batch app:predict </script><b>&",
        verdict="Batching with the default policy meets the goal: 99 % within 50 ms up to 980 requests/s.",
        code="Scheduler(predict, max_batch_size=32, max_latency_ms=50)",
        facts=(
            Fact("p99 at your load", "18.3 ms", "goal: 50 ms"),
            Fact("most load within the goal", "980/s", "2.3 times your 420/s"),
            Fact("against no batching", "6.1x the load", "which holds 160/s"),
            Fact("of what is possible", "97 %", "of the best any schedule could do"),
        ),
        explanation=(
            "Immediate dispatch needs 1.4 times as long at the 99th percentile.",
            "The limit is the function.",
        ),
        columns=("setting", "p50", "p95", "p99", "in time", "largest load"),
        rows=tuple((label, "7.1 ms", "14 ms", "18 ms", "100.0 %", "980/s") for label in LABELS),
        goal_ms=50.0,
        share=0.99,
        unit="requests/s",
        present=420.0,
        limit=1010.0,
        load=tuple(map(_curve, LABELS, bases, capacities)),
        optimum=Optimum("offline optimum", LOADS, tuple(min(1.0, 1200 / load) for load in LOADS)),
        latencies=tuple(
            Latencies(label, tuple(base * (0.6 + share**4 * 3) for share in shares), shares)
            for label, base in zip(LABELS, bases, strict=True)
        ),
        batch_sizes=tuple(
            BatchSizes(label, tuple(range(1, 13)), tuple([(13 - size) / 78 for size in range(1, 13)]))
            for label in LABELS[:2]
        ),
        queues=tuple(
            Queue(
                label,
                tuple(step / 100 for step in range(500)),
                tuple(step // 5 * (index + 7) % 23 for step in range(500)),
            )
            for index, label in enumerate(LABELS[:3])
        ),
        cost=Cost(
            (1, 2, 4, 8, 16, 32),
            (6.1, 7.4, 9.2, 13.6, 21.7, 38.8),
            1.053,
            5.07,
            (6.0, 7, 9, 13, 21, 38),
            (7.0, 8, 11, 15, 24, 42),
        ),
        method=("Each figure is the median of 3 runs of 20,000 requests.", "Seeds 0, 1, 2."),
    )
