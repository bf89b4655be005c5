"""How many requests a second the simulator serves, and what one decision costs.

A round of the first is 500,000 requests, workload and results included: 500 ms are 1,000,000 a second, the bar of
``immediate``, and 1,667 ms are 300,000, that of ``adaptive``.

A round of the second is 10,000 decisions: read its milliseconds as tenths of a microsecond.  ``nothing to decide`` is
what it costs to ask from Python; the bars, 1 us under a full queue and 5 us for a wait, are for what comes on top.
"""

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from batchcore.engine import Engine
from pybatch.simulation import PROFILES, ClosedLoop, Poisson, Workload, simulate
from timing import compare

MS = 1_000_000
COSTS = [(size, round(PROFILES["bert"].ms(size) * MS)) for size in range(1, 33)]
SERVICE_NS = 11 * MS


@pytest.mark.parametrize("policy", ["immediate", "adaptive"])
@pytest.mark.parametrize("traffic", ["50 %", "95 %", "16 clients"])
def test_requests(benchmark: BenchmarkFixture, traffic: str, policy: str) -> None:
    service = PROFILES["resnet"]
    full = service.capacity_per_second(32)
    workloads: dict[str, Workload] = {"50 %": Poisson(0.5 * full), "95 %": Poisson(0.95 * full)}
    workload = workloads.get(traffic, ClosedLoop(16))

    def load(requests: int) -> None:
        simulate(workload, service, policy=policy, requests=requests)

    compare(benchmark, f"simulated requests, {traffic}", load, 500_000)


def busy() -> Engine:
    """Return an engine whose only worker is busy."""
    engine = Engine(policy="adaptive", cost_model=COSTS)
    engine.submit(0)
    engine.decide(0)
    engine.submit(0)
    return engine


def saturated() -> Engine:
    """Return an engine whose worker has just become free, with three batches queued."""
    engine = Engine(policy="adaptive", cost_model=COSTS)
    for _ in range(96):
        engine.submit(0)
    return engine


def overloaded(*timeouts_ms: int) -> Callable[[], Engine]:
    """Return how to make an engine with more queued than it can answer in time."""

    def make() -> Engine:
        engine = Engine(policy="adaptive", cost_model=COSTS)
        for i in range(96):
            engine.submit(0, deadline_ns=timeouts_ms[i % len(timeouts_ms)] * MS)
        return engine

    return make


def gathering() -> Engine:
    """Return an engine that 16 callers have taught to wait for all of them, with 8 of them back."""
    engine = Engine(policy="adaptive", cost_model=COSTS)
    now_ns = 0
    for _ in range(50):
        engine.set_capacity(now_ns, 0)
        for _ in range(16):
            now_ns += MS // 50
            engine.submit(now_ns)
        engine.set_capacity(now_ns, 1)
        batch = engine.decide(now_ns)
        now_ns += SERVICE_NS
        engine.complete(now_ns, batch)
    for _ in range(8):
        now_ns += MS // 50
        engine.submit(now_ns)
    return engine


def lingering() -> Engine:
    """Return an engine that has seen bursts of 16, after the second request of one."""
    engine = Engine(policy="adaptive", cost_model=COSTS)
    now_ns = 0
    for _ in range(50):
        now_ns += 50 * MS
        running = []
        for _ in range(16):
            now_ns += MS // 10
            engine.submit(now_ns)
            running.append(engine.decide(now_ns))
        engine.flush(now_ns)
        running.append(engine.decide(now_ns))
        for batch in running:
            if batch.kind == "dispatch":
                now_ns += SERVICE_NS
                engine.complete(now_ns, batch)
                running.append(engine.decide(now_ns))
    for _ in range(2):
        now_ns += MS // 10
        engine.submit(now_ns)
    return engine


@pytest.mark.parametrize(
    ("make", "answer"),
    [
        pytest.param(busy, "idle", id="nothing to decide"),
        pytest.param(saturated, "dispatch", id="a full queue"),
        pytest.param(overloaded(11), "dispatch", id="a full queue, one timeout"),
        pytest.param(overloaded(11, 200), "dispatch", id="a full queue, two timeouts"),
        pytest.param(gathering, "wait", id="waiting for callers"),
        pytest.param(lingering, "wait", id="waiting for a burst"),
    ],
)
def test_decisions(benchmark: BenchmarkFixture, make: Callable[[], Engine], answer: str) -> None:
    engine = make()

    def load(decisions: int) -> None:
        for _ in range(decisions):
            engine.set_capacity(0, 1)  # whatever changes makes it decide anew
            engine.next_wakeup_ns()

    compare(benchmark, "decisions", load, 10_000)
    assert make().decide(0).kind == answer
