"""`simulate` and what it returns: arguments, figures worked out by hand, and runs that are broken off."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
import pytest

from batchcore.engine import Engine
from batchcore.records import OUTCOMES, REASONS
from batchcore.simulator import Simulator
from pybatch.policies import Policy, View, Wait
from pybatch.simulation import PROFILES, ClosedLoop, Mixed, Poisson, Service, Trace, simulate

TEN = Service.affine(0, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workload": 5}, "workload must be a pybatch.simulation.Workload, not 5"),
        ({"service": 5}, "service must be a pybatch.simulation.Service, not 5"),
        ({"policy": "clever"}, "policy is 'clever'"),
        ({"policy": "fixed"}, "needs max_wait_ms"),
        ({"max_batch_size": 0}, "max_batch_size is 0"),
        ({"max_queue_size": 0}, "max_queue_size is 0"),
        ({"workers": 0}, "workers is 0; it must be from 1 to 4096"),
        ({"requests": 0}, "requests is 0"),
        ({"requests": 1.5}, "requests must be an integer, not 1.5"),
        ({"duration_s": 0}, "duration_s is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"warm_up": -1}, "warm_up is -1"),
        ({"timeout_ms": -1}, "timeout_ms is -1; it must be from 0 to 1e+10 milliseconds"),
        ({"timeout_ms": "9"}, "timeout_ms must be a number of milliseconds"),
        ({"slo_ms": ((5, 0.5), (6, 0.4))}, "the shares of slo_ms add up to 0.9; they must add up to 1"),
        ({"slo_ms": ((5, 0.5), 6)}, "slo_ms[1] must be a tuple of two, not 6"),
        ({"slo_ms": ((5, 1.5), (6, -0.5))}, "the share of slo_ms[0] is 1.5"),
        ({"slo_ms": ()}, "the shares of slo_ms add up to 0"),
        ({"slo_ms": [(i, 1 / 17) for i in range(17)]}, "there are 17 classes of limits; at most 16 are possible"),
        ({"workload": Mixed(*[ClosedLoop(1)] * 64), "max_batch_size": 2**20 + 1}, "max_batch_size is 1048577"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    arguments = {"workload": Poisson(10), "service": TEN, "policy": "immediate"} | options
    with pytest.raises((TypeError, ValueError)) as error:
        simulate(**arguments)
    assert message in str(error.value)


def test_a_story_worked_out_by_hand() -> None:
    """One worker, batches of 2 take 10 ms, and the queue has room for 3."""
    trace = Trace([0, 1, 2, 3, 4, 30], timeouts_ms=[np.inf, 50, 5, np.inf, np.inf, np.inf])
    result = simulate(trace, TEN, policy="immediate", max_batch_size=2, max_queue_size=3, slo_ms=10, warm_up=0)
    ms = 1_000_000
    assert [OUTCOMES[i] for i in result.outcome] == ["completed"] * 2 + [
        "expired",
        "completed",
        "rejected",
        "completed",
    ]
    assert result.dispatched_ns.tolist() == [0, 10 * ms, -1, 10 * ms, -1, 30 * ms]
    assert result.finished_ns.tolist() == [10 * ms, 20 * ms, -1, 20 * ms, -1, 40 * ms]
    assert result.batch_of.tolist() == [0, 1, -1, 1, -1, 2]
    assert result.batches.at_ns.tolist() == [0, 10 * ms, 30 * ms]
    assert result.batches.size.tolist() == [1, 2, 1]
    assert result.batches.service_ns.tolist() == [10 * ms] * 3
    assert [REASONS[i] for i in result.batches.reason] == ["idle_worker", "full", "idle_worker"]
    assert result.source.tolist() == [0] * 6
    assert result.latencies_ms.tolist() == [10, 19, 17, 10]
    assert (result.count, result.mean_ms, result.p50_ms, result.percentile(100)) == (6, 14, 13.5, 19)
    assert result.mean_batch_size == 4 / 3
    assert result.per_second == pytest.approx(3 / 0.030)  # three after the first completion, 30 ms after it
    assert result.good == 2 / 6  # within 10 ms; the timeouts of the trace are the SLO only where none is given
    result = simulate(trace, TEN, policy="immediate", max_batch_size=2, max_queue_size=3, warm_up=0)
    assert result.good == 4 / 6


def test_workers_run_batches_at_the_same_time() -> None:
    result = simulate(Trace([0, 1, 2, 3]), TEN, policy="immediate", max_batch_size=1, workers=3)
    assert result.dispatched_ns.tolist() == [0, 1_000_000, 2_000_000, 10_000_000]
    assert result.batches.worker.tolist() == [0, 1, 2, 0]


def test_completions_come_before_arrivals_and_these_before_decisions() -> None:
    result = simulate(Trace([0, 10, 10]), TEN, policy="immediate")
    assert result.batch_of.tolist() == [0, 1, 1]
    assert result.finished_ns.tolist() == [10_000_000, 20_000_000, 20_000_000]


def test_a_client_comes_back_after_an_error_too() -> None:
    loop = ClosedLoop(3, return_ms=1, think_ms=0)
    result = simulate(loop, TEN, policy="immediate", max_batch_size=1, max_queue_size=1, requests=300)
    assert np.bincount(result.outcome).tolist()[2] > 200
    assert (result.outcome == OUTCOMES.index("completed")).sum() > 20
    timed_out = simulate(loop, TEN, policy="immediate", max_batch_size=1, timeout_ms=3, requests=300)
    assert (timed_out.outcome == OUTCOMES.index("expired")).sum() > 100


def test_what_has_come_when_the_time_is_up_is_served() -> None:
    result = simulate(Poisson(5000), TEN, policy="immediate", duration_s=1)
    assert result.arrival_ns[-1] < 1_000_000_000 < result.finished_ns[-1]
    assert len(result.arrival_ns) == pytest.approx(5000, rel=0.05)
    both = simulate(Poisson(5000), TEN, policy="immediate", duration_s=1, requests=100)
    assert np.array_equal(both.arrival_ns, result.arrival_ns[:100])


@pytest.mark.parametrize(("gap_ms", "service_ms"), [(1, 2.5), (1e8, 2.5e9)])
def test_the_mean_is_exact_in_whatever_order_latencies_are_added_up(gap_ms: float, service_ms: float) -> None:
    service = Service.affine(0, service_ms, noise=0.2)
    result = simulate(Poisson(1000 / gap_ms), service, policy="immediate", warm_up=0)
    ns = (result.finished_ns - result.arrival_ns).tolist()
    assert (len(ns), sum(ns) > 2**63) == (20_000, gap_ms == 1e8)
    assert result.mean_ms == sum(ns) / (len(ns) * 10**6)


def test_warm_up_is_left_out_of_the_figures() -> None:
    assert simulate(Poisson(10), TEN, policy="immediate", requests=1000).warm_up == 100
    assert simulate(ClosedLoop(2), TEN, policy="immediate", requests=1000).warm_up == 200
    assert simulate(ClosedLoop(2), TEN, policy="immediate", requests=100).warm_up == 50
    result = simulate(Trace([0, 100, 200]), Service.affine(0, 10, warm_up=(1, 5)), policy="immediate", warm_up=1)
    assert (result.count, result.mean_ms, result.percentile(0)) == (2, 10, 10)
    assert simulate(Trace([0]), TEN, policy="immediate", warm_up=7).count == 0


def test_a_summary_is_ready_for_json_even_of_nothing() -> None:
    full = asdict(simulate(Poisson(100), TEN, policy="immediate", slo_ms=20).summary())
    assert json.loads(json.dumps(full, allow_nan=False)) == full
    empty = asdict(simulate(Trace([0, 1]), TEN, policy="immediate", timeout_ms=0, warm_up=0).summary())
    assert json.loads(json.dumps(empty, allow_nan=False)) == empty
    assert (empty["count"], empty["completed"], empty["expired"], empty["good"]) == (2, 0, 2, 0)
    assert empty["mean_ms"] is empty["p99_ms"] is empty["per_second"] is empty["mean_batch_size"] is None
    assert asdict(simulate(Trace([]), TEN, policy="immediate").summary())["good"] is None


def test_progress_grows_to_the_end() -> None:
    for options in ({"requests": 40_000}, {"duration_s": 40.0}):
        shares: list[float] = []
        simulate(Poisson(1000), TEN, policy="immediate", progress=shares.append, **options)  # type: ignore[arg-type]
        assert len(shares) > 3
        assert shares == sorted(shares)
        assert shares[0] < 0.5
        assert shares[-1] == 1


def test_a_run_that_is_broken_off_leaves_the_engine_sound() -> None:
    engine = Engine(policy="immediate", capacity=3)
    simulator = simulator_of(engine)

    def stop(count: int, now_ns: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulator.run(stop)
    assert engine.stats().queued > 100
    assert engine.stats().running > 0
    del simulator
    engine.check()
    stats = engine.stats()
    assert (stats.queued, stats.running, stats.in_flight_batches) == (0, 0, 0)
    assert stats.shut_down > 100


def simulator_of(engine: Engine) -> Simulator:
    from array import array

    simulator = Simulator(engine, 1, 10**6, 2**62)
    simulator.set_service(
        array("d", [1e7] * 32),
        noise=0,
        spike_probability=0,
        spike_ns=0,
        warm_up_batches=0,
        warm_up_factor=1,
        drift_at_ns=array("q"),
        drift_factors=array("d"),
    )
    simulator.add("poisson", 1e4)
    return simulator


def test_the_compiled_part_guards_its_memory() -> None:
    from array import array

    engine = Engine(policy="immediate", max_batch_size=4)
    good: dict[str, Any] = {
        "noise": 0,
        "spike_probability": 0,
        "spike_ns": 0,
        "warm_up_batches": 0,
        "warm_up_factor": 1,
        "drift_at_ns": array("q"),
        "drift_factors": array("d"),
    }
    simulator = Simulator(engine, 0, 10, 10**9)
    with pytest.raises(RuntimeError, match="needs a service model"):
        simulator.run()
    with pytest.raises(ValueError, match="ns has 3 sizes; it needs 4"):
        simulator.set_service(array("d", [1] * 3), **good)
    with pytest.raises(ValueError, match="there are 0 instants of drift and 1 factors"):
        simulator.set_service(array("d", [1] * 4), **good | {"drift_factors": array("d", [1])})
    with pytest.raises(TypeError, match="an array of type 'd' is needed, not 'q'"):
        simulator.set_service(array("q", [1] * 4), **good)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no process has more than 4"):
        simulator.add("poisson", 1, 2, 3, 4, 5)
    with pytest.raises(ValueError, match="a column has 1 rows; there are 2 arrivals"):
        simulator.add_trace(array("q", [1, 2]), array("q", [1]), None, None)
    simulator.set_service(array("d", [1] * 4), **good)
    times = array("q", [1, 2])
    simulator.add_trace(times, None, None, None)
    with pytest.raises(BufferError):
        times.append(3)
    simulator.run()
    with pytest.raises(RuntimeError, match="good for one run"):
        simulator.run()
    with pytest.raises(ValueError, match="the engine has been used"):
        Simulator(engine, 0, 10, 10**9)
    for _ in range(61):
        simulator.add("poisson", 1)
    with pytest.raises(ValueError, match="more than 64 sources"):
        simulator.add("poisson", 1)


def test_an_error_of_a_policy_reaches_the_caller() -> None:
    def clumsy(view: View) -> int:
        if view.now_ns > 50_000_000:
            raise LookupError("oops")
        return view.queued

    with pytest.raises(LookupError, match="oops"):
        simulate(Poisson(1000), TEN, policy=clumsy)
    with pytest.raises(ValueError, match="it must name a later instant"):
        simulate(Poisson(1000), TEN, policy=lambda view: Wait(view.now_ns))


def test_a_policy_is_told_of_completions() -> None:
    class Attentive(Policy):
        told: ClassVar[list[tuple[int, int, int]]] = []

        def decide(self, view: View) -> int:
            return 1

        def completed(self, now_ns: int, batch_size: int, service_ns: int) -> None:
            self.told.append((now_ns, batch_size, service_ns))

    batches = simulate(Poisson(50), TEN, policy=Attentive(), requests=100).batches
    ends = (batches.at_ns + batches.service_ns).tolist()
    assert Attentive.told == list(zip(ends, batches.size.tolist(), batches.service_ns.tolist(), strict=True))


def test_an_engine_may_know_the_service_beforehand() -> None:
    seen: list[int | None] = []

    def curious(view: View) -> int:
        seen.append(view.predict_ns(1))
        return view.queued

    simulate(Poisson(1000), TEN, policy=curious, requests=1)
    simulate(Poisson(1000), TEN, policy=curious, requests=1, cost_model=[(1, 4.5), (8, 9)])
    assert seen == [None, pytest.approx(4_500_000)]
    with pytest.raises(ValueError, match=r"the time in cost_model\[0\] is -1"):
        simulate(Poisson(1000), TEN, cost_model=[(1, -1)])
    with pytest.raises(TypeError, match=r"cost_model\[0\] must be a pair"):
        simulate(Poisson(1000), TEN, cost_model=[3])  # type: ignore[list-item]


def test_a_run_longer_than_the_engine_can_count_is_refused() -> None:
    with pytest.raises(OverflowError, match="146 years"):
        simulate(Poisson(1e-6), TEN, policy="immediate", requests=10_000)


def test_a_large_run_with_many_workers_and_clients() -> None:
    result = simulate(ClosedLoop(20_000, think_ms=500), PROFILES["v100"], policy="immediate", workers=40, duration_s=4)
    assert result.summary().completed > 50_000
    assert result.good == 1
