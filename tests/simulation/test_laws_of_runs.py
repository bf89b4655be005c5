"""The laws: what holds for every run, each by its name."""

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import options, outstanding, policies, services, simulate, traces, whims, workloads

from batchcore.engine import Engine, Request
from batchcore.errors import QueueFull
from batchcore.records import OUTCOMES, REASONS
from pybatch.simulation import (
    MMPP,
    PROFILES,
    Bursts,
    ClosedLoop,
    Gamma,
    Mixed,
    Poisson,
    Service,
    Trace,
    Workload,
    run,
)

NEVER_NS = 2**63 - 1
ENDS = [OUTCOMES.index(outcome) for outcome in ("completed", "rejected", "expired")]
COMPLETED, REJECTED, EXPIRED = ENDS
Options = dict[str, Any]


@given(workloads, services, options)
def test_every_request_ends_exactly_once(workload: Workload, service: Service, options: Options) -> None:
    result = simulate(workload, service, **options)
    assert np.isin(result.outcome, ENDS).all()
    done = result.outcome == COMPLETED
    for column in (result.finished_ns, result.dispatched_ns, result.batch_of):
        assert np.array_equal(column >= 0, done)
    summary = simulate(workload, service, **options, warm_up=0).summary()
    assert summary.completed + summary.rejected + summary.expired == summary.count == len(result.arrival_ns)


@given(workloads, services, options)
def test_the_books_of_the_engine_say_the_same(workload: Workload, service: Service, options: Options) -> None:
    engines: list[Engine] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "Engine", lambda **options: engines.append(Engine(**options)) or engines[0])
        result = simulate(workload, service, **options)
    stats = engines[0].stats()
    engines[0].check()
    ended = np.bincount(result.outcome, minlength=len(OUTCOMES))
    assert [getattr(stats, outcome) for outcome in OUTCOMES] == ended.tolist()
    assert (stats.queued, stats.running, stats.in_flight_batches) == (0, 0, 0)
    assert stats.submitted == len(result.arrival_ns)
    assert stats.batches == stats.service_ns.count == len(result.batches.size)
    assert list(stats.batches_by_reason.values()) == np.bincount(result.batches.reason, minlength=len(REASONS)).tolist()


@given(workloads, services, options)
def test_both_tables_tell_the_same_story(workload: Workload, service: Service, options: Options) -> None:
    result = simulate(workload, service, **options)
    batches, done = result.batches, result.outcome == COMPLETED
    assert np.array_equal(np.bincount(result.batch_of[done], minlength=len(batches.size)), batches.size)
    of = result.batch_of[done]
    assert np.array_equal(result.dispatched_ns[done], batches.at_ns[of])
    assert np.array_equal(result.finished_ns[done], (batches.at_ns + batches.service_ns)[of])
    assert (np.diff(result.arrival_ns) >= 0).all()
    assert (np.diff(batches.at_ns) >= 0).all()
    assert (result.arrival_ns[done] <= result.dispatched_ns[done]).all()
    assert (batches.size <= options["max_batch_size"]).all()


@given(workloads, services, options)
def test_a_worker_runs_one_batch_at_a_time(workload: Workload, service: Service, options: Options) -> None:
    batches = simulate(workload, service, **options).batches
    assert np.isin(batches.worker, range(options["workers"])).all()
    for worker in range(options["workers"]):
        mine = batches.worker == worker
        ends = batches.at_ns[mine] + batches.service_ns[mine]
        assert (ends[:-1] <= batches.at_ns[mine][1:]).all()


@given(workloads, services, options)
def test_nothing_is_dispatched_at_or_after_its_deadline(workload: Workload, service: Service, options: Options) -> None:
    result = simulate(workload, service, **options)
    done = result.outcome == COMPLETED
    assert (result.dispatched_ns[done] < result.deadline_ns[done]).all()
    if options["policy"] is not whims:  # it gives requests up as it likes
        assert (result.deadline_ns[result.outcome == EXPIRED] < NEVER_NS).all()


@given(workloads, services, options)
def test_the_same_call_gives_the_same_bits(workload: Workload, service: Service, options: Options) -> None:
    assert simulate(workload, service, **options).digest() == simulate(workload, service, **options).digest()


@given(st.integers(1, 60), services, options)
def test_a_closed_loop_never_has_more_outstanding_than_clients(n: int, service: Service, options: Options) -> None:
    result = simulate(ClosedLoop(n), service, **options)
    assert (outstanding(result) <= n).all()


@given(workloads.filter(lambda workload: not workload.closed), services, options, policies, st.integers(1, 4))
def test_policies_meet_the_same_open_traffic(
    workload: Workload, service: Service, options: Options, policy: Options, workers: int
) -> None:
    other = {name: value for name, value in options.items() if name != "max_wait_ms"} | policy | {"workers": workers}
    first, second = simulate(workload, service, **options), simulate(workload, service, **other)
    for name in ("arrival_ns", "deadline_ns", "slo_ns", "source"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


def test_policies_meet_the_same_luck_of_the_nth_batch() -> None:
    noisy = Service.affine(0, 5, noise=0.3, spikes=(0.05, 40))
    first = simulate(Poisson(400), noisy, policy="immediate").batches.service_ns
    second = simulate(Poisson(400), noisy, policy="fixed", max_wait_ms=3, max_batch_size=7).batches.service_ns
    n = min(len(first), len(second))
    assert n > 1000
    assert np.array_equal(first[:n], second[:n])


def test_each_client_thinks_the_same_whatever_the_policy() -> None:
    first, second = (
        simulate(ClosedLoop(1, think_ms=9), PROFILES["v100"], requests=500, **options).arrival_ns
        for options in ({"policy": "immediate"}, {"policy": "fixed", "max_wait_ms": 4})
    )
    waited = np.arange(500) * 4_000_000  # for company that never comes
    assert np.array_equal(second, first + waited)


def test_timeouts_and_slos_of_one_mix_are_the_same_for_each_request() -> None:
    mix = ((15, 0.2), (200, 0.8))
    result = simulate(Poisson(400), PROFILES["resnet"], policy="immediate", timeout_ms=mix, slo_ms=mix)
    assert np.array_equal(result.deadline_ns, result.slo_ns)
    assert ((result.deadline_ns - result.arrival_ns) == 15_000_000).mean() == pytest.approx(0.2, abs=0.01)
    untold = simulate(Poisson(400), PROFILES["resnet"], policy="immediate", slo_ms=mix)
    assert (untold.deadline_ns == NEVER_NS).all()
    assert np.array_equal(untold.slo_ns, result.slo_ns)


@pytest.mark.parametrize("clients", [1, 16, 48])
def test_littles_law_of_a_closed_loop(clients: int) -> None:
    loop = ClosedLoop(clients, return_ms=0.5, think_ms=3)
    result = simulate(loop, PROFILES["bert"], policy="immediate", duration_s=60)
    assert result.per_second * (result.mean_ms + 3.5) / 1e3 == pytest.approx(clients, rel=0.01)


def test_time_in_queue_follows_littles_law_in_an_open_system() -> None:
    result = simulate(Poisson(600), PROFILES["resnet"], policy="immediate", requests=100_000)
    moments = np.linspace(result.arrival_ns[10_000], result.arrival_ns[-1], 50_000)
    came = np.searchsorted(result.arrival_ns, moments, side="right")
    left = np.searchsorted(np.sort(result.dispatched_ns), moments, side="right")
    waited_ms = (result.dispatched_ns - result.arrival_ns)[10_000:].mean() / 1e6
    assert (came - left).mean() == pytest.approx(0.6 * waited_ms, rel=0.03)


def test_a_run_is_bit_identical_on_every_machine() -> None:
    workload = Mixed(Poisson(300), Gamma(200, 4), Gamma(90, 0.5), MMPP((900, 20)), Bursts(60), ClosedLoop(7, 1, 20))
    service = Service.table(
        {1: 4.1, 8: 6.3, 32: 19.7}, noise=0.2, spikes=(0.01, 60), warm_up=(5, 20), drift=((2, 2.0), (4, 0.5))
    )
    limits = ((30, 0.3), (300, 0.6), (None, 0.1))
    result = simulate(workload, service, policy="immediate", workers=2, slo_ms=limits, requests=5000, seed=11)
    assert result.digest() == "488e6a55e2f9f15e783f2845df694388a32193a19918e73fb093dc0ad575e02f"


@given(traces, services.map(lambda service: Service(service.points)), options)
def test_the_simulator_is_the_engine(trace: Trace, service: Service, options: Options) -> None:
    """The compiled loop against a plain one in Python around the public engine."""
    options = {name: value for name, value in options.items() if name not in ("timeout_ms", "slo_ms", "requests")}
    result = simulate(trace, service, **options)
    assert np.array_equal(result.arrival_ns, trace.arrivals_ms * 1e6)
    fates = replay(trace, service, options)
    for row, (dispatched_ns, finished_ns, outcome) in enumerate(fates):
        assert result.dispatched_ns[row] == dispatched_ns
        assert result.finished_ns[row] == finished_ns
        assert OUTCOMES[result.outcome[row]] == outcome


def replay(trace: Trace, service: Service, options: Options) -> list[tuple[int, int, str]]:
    wait_ms = options.get("max_wait_ms")
    engine = Engine(
        policy=options["policy"],
        max_wait_ns=None if wait_ms is None else int(wait_ms * 1e6),
        max_batch_size=options["max_batch_size"],
        max_queue_size=options["max_queue_size"],
        capacity=options["workers"],
    )
    fates = [(-1, -1, "rejected")] * len(trace)
    rows: dict[Request, int] = {}
    running: list[tuple[int, int, Any]] = []
    coming = list(range(len(trace)))
    wake_at_ns: int | None = None
    while coming or running or wake_at_ns is not None:
        times = [running[0][0]] if running else []
        times += [round(trace.arrivals_ms[coming[0]] * 1e6)] if coming else []
        times += [] if wake_at_ns is None else [wake_at_ns]
        now = min(times)
        while running and running[0][0] == now:
            engine.complete(now, heapq.heappop(running)[2])
        while coming and round(trace.arrivals_ms[coming[0]] * 1e6) == now:
            row = coming.pop(0)
            timeout = np.inf if trace.timeouts_ms is None else trace.timeouts_ms[row]
            try:
                request = engine.submit(
                    now,
                    deadline_ns=None if timeout == np.inf else now + round(timeout * 1e6),
                    priority=0 if trace.priorities is None else int(trace.priorities[row]),
                )
            except QueueFull:
                continue
            rows[request] = row
            if request.status == "expired":
                fates[row] = (-1, -1, "expired")
        while True:
            decision = engine.decide(now)
            for request in decision.expired:
                fates[rows[request]] = (-1, -1, "expired")
            if decision.kind != "dispatch":
                break
            end = now + max(round(service.ms(len(decision.batch)) * 1e6), 1)
            assert decision.batch_id is not None
            heapq.heappush(running, (end, decision.batch_id, decision))
            for request in decision.batch:
                fates[rows[request]] = (now, end, "completed")
        wake_at_ns = decision.wake_at_ns
    engine.check()
    return fates
