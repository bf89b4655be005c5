"""Workloads: what is refused, what is recorded and repeated, and what survives a file or a pickle."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pybatch.simulation import MMPP, Bursts, ClosedLoop, Gamma, Mixed, Poisson, Service, Trace, simulate

COLUMNS = ("arrivals_ms", "timeouts_ms", "slos_ms", "priorities")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0), "per_second is 0; it must be from 1e-06 to 1e+09"),
        (lambda: Poisson(float("nan")), "per_second is nan"),
        (lambda: Poisson("9"), "per_second must be a number, not '9'"),
        (lambda: Poisson(True), "per_second must be a number, not True"),
        (lambda: Gamma(10, 0), "cv is 0; it must be from 0.01 to 100"),
        (lambda: MMPP(3), "per_second must be a tuple of two, not 3"),
        (lambda: MMPP((0, 0)), "in one phase at least something must come"),
        (lambda: MMPP((1, -1)), "per_second[1] is -1"),
        (lambda: MMPP((1, 2), mean_ms=(1, 0)), "mean_ms[1] is 0"),
        (lambda: Bursts(0), "every_ms is 0"),
        (lambda: Bursts(5, size=(4, 3)), "size[1] is 3; it must be from 4 to 1000000"),
        (lambda: Bursts(5, size=(0, 3)), "size[0] is 0; it must be from 1"),
        (lambda: Bursts(5, gap_ms=-1), "gap_ms is -1"),
        (lambda: ClosedLoop(0), "clients is 0; it must be from 1 to 1000000"),
        (lambda: ClosedLoop(1.5), "clients must be an integer, not 1.5"),
        (lambda: ClosedLoop(1, return_ms=-1), "return_ms is -1"),
        (lambda: ClosedLoop(1, think_ms=1e11), "think_ms is 100000000000.0"),
        (Mixed, "there are 0 parts; there must be from 1 to 64"),
        (lambda: Mixed(*[Poisson(1)] * 65), "there are 65 parts"),
        (lambda: Mixed(5), "a part must be a Workload, not 5"),
        (lambda: Trace([[1]]), "arrivals_ms has shape (1, 1); it must have one dimension"),
        (lambda: Trace([0, 1], [5]), "timeouts_ms has shape (1,); arrivals_ms has (2,)"),
        (lambda: Trace([0, -1]), "arrivals_ms[1] is -1; it must be a number from 0 to 1e+12"),
        (lambda: Trace([0], [float("nan")]), "timeouts_ms[0] is nan"),
        (lambda: Trace([0], priorities=[0.5]), "priorities[0] is 0.5; it must be a whole number from -1e+06 to 1e+06"),
        (lambda: Trace([0]).scaled(0), "factor is 0"),
    ],
)
def test_what_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make()
    assert message in str(error.value)


def test_a_mixture_in_a_mixture_counts_as_its_parts() -> None:
    one, two, loop = Poisson(1), Poisson(2), ClosedLoop(3)
    assert Mixed(one, Mixed(two, loop)) == Mixed(one, two, loop)
    assert Mixed(one, loop).closed
    assert not Mixed(one, two).closed


def test_everything_survives_a_pickle() -> None:
    mixed = Mixed(Poisson(1), Gamma(2, 3), MMPP((4, 0)), Bursts(5), ClosedLoop(6))
    assert pickle.loads(pickle.dumps(mixed)) == mixed
    trace = pickle.loads(pickle.dumps(Trace([1, 0], [5, 6], priorities=[1, 2])))
    assert trace.arrivals_ms.tolist() == [0, 1]
    result = simulate(trace, Service.affine(1, 1), policy="immediate")
    assert pickle.loads(pickle.dumps(result)).digest() == result.digest()


def test_a_trace_is_put_in_order_with_all_that_belongs_to_its_rows() -> None:
    trace = Trace([7, 3, 5, 3], [70, 30, 50, 31], [71, 32, 51, 33], [1, 2, 3, 4])
    assert trace.arrivals_ms.tolist() == [3, 3, 5, 7]
    assert trace.timeouts_ms is not None
    assert trace.timeouts_ms.tolist() == [30, 31, 50, 70]
    assert trace.slos_ms is not None
    assert trace.slos_ms.tolist() == [32, 33, 51, 71]
    assert trace.priorities is not None
    assert trace.priorities.tolist() == [2, 4, 3, 1]


def test_limits_of_a_trace_hold_for_its_requests_alone() -> None:
    trace = Trace([0.5, 1.5], timeouts_ms=[3, float("inf")])
    result = simulate(Mixed(trace, Poisson(300)), Service.affine(0, 0.01), policy="immediate", slo_ms=9, requests=50)
    told = result.deadline_ns - result.arrival_ns
    assert told[result.source == 0][0] == 3_000_000
    assert (result.deadline_ns[result.source == 1] == 2**63 - 1).all()
    assert (result.deadline_ns == 2**63 - 1).sum() == 49
    assert ((result.slo_ns - result.arrival_ns)[result.source == 1] == 9_000_000).all()
    assert ((result.slo_ns - result.arrival_ns)[result.source == 0] == 9_000_000).all()
    result = simulate(trace, Service.affine(0, 0.01), policy="immediate")
    assert result.slo_ns.tolist() == result.deadline_ns.tolist()


def test_a_trace_may_be_measured_by_limits_that_the_engine_is_not_told() -> None:
    result = simulate(Trace([0, 1], slos_ms=[1, 10]), Service.affine(0, 5), policy="immediate", warm_up=0)
    assert (result.deadline_ns == 2**63 - 1).all()
    assert result.good == 0.5


def test_priorities_of_a_trace_are_those_of_its_requests() -> None:
    trace = Trace([0, 1, 2, 3], priorities=[0, 5, 0, 0])
    result = simulate(trace, Service.affine(0, 10), policy="immediate", max_batch_size=1)
    assert result.batch_of.tolist() == [0, 3, 1, 2]


def test_a_trace_at_twice_its_rate() -> None:
    trace = Trace([0, 10, 30], [4, 5, 6]).scaled(2)
    assert trace.arrivals_ms.tolist() == [0, 5, 15]
    assert trace.timeouts_ms is not None
    assert trace.timeouts_ms.tolist() == [4, 5, 6]


def test_a_trace_is_sent_to_its_end_unless_told_otherwise() -> None:
    trace, service = Trace(np.arange(30_000)), Service.affine(0, 0.1)
    assert len(simulate(trace, service, policy="immediate").arrival_ns) == 30_000
    assert len(simulate(Mixed(trace, Trace([7])), service, policy="immediate").arrival_ns) == 30_001
    assert len(simulate(trace, service, policy="immediate", requests=10).arrival_ns) == 10
    assert len(simulate(trace, service, policy="immediate", duration_s=2).arrival_ns) == 2000
    assert len(simulate(Trace([]), service, policy="immediate").arrival_ns) == 0


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
@pytest.mark.parametrize(
    "trace",
    [
        Trace([0.1, 0.3, 1e9 / 3]),
        Trace([1, 2, 3], [5, float("inf"), 0.1], [7, 8, 9], [-1, 0, 1]),
        Trace([1, 2], priorities=[0, 3]),
        Trace([]),
    ],
)
def test_save_and_load(tmp_path: Path, suffix: str, trace: Trace) -> None:
    trace.save(tmp_path / f"trace{suffix}")
    loaded = Trace.load(tmp_path / f"trace{suffix}")
    for name in COLUMNS:
        before, after = getattr(trace, name), getattr(loaded, name)
        assert (before is None) == (after is None)
        assert before is None or (np.array_equal(before, after) and before.dtype == after.dtype)


def test_a_file_of_arrivals_alone(tmp_path: Path) -> None:
    Trace([3, 1, 2]).save(tmp_path / "trace.npy")
    assert Trace.load(str(tmp_path / "trace.npy")).arrivals_ms.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=r"cannot hold arrival_ms, timeout_ms: its name must end in .csv or .npz"):
        Trace([1], [2]).save(tmp_path / "more.npy")


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("1e1\n0\n", [(0.0, None, None), (10.0, None, None)]),
        ("1.5\n0\n", [(0.0, None, None), (1.5, None, None)]),
        ("0,20\n\n4,\n", [(0.0, 20.0, None), (4.0, np.inf, None)]),
        ("0,20,3\n4,30,-1\n", [(0.0, 20.0, 3), (4.0, 30.0, -1)]),
        ("arrival_ms, priority\n2,7\n", [(2.0, None, 7)]),
        ("timeout_ms,arrival_ms\n9,2\n", [(2.0, 9.0, None)]),
    ],
)
def test_csv_as_others_write_it(tmp_path: Path, text: str, rows: list[tuple[Any, ...]]) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    trace = Trace.load(path)
    columns = [trace.arrivals_ms, trace.timeouts_ms, trace.priorities]
    assert list(zip(*([None] * len(trace) if c is None else c.tolist() for c in columns), strict=True)) == rows


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1\n", "its name must end in .csv, .npy or .npz"),
        (
            "a.csv",
            "arrival_ms,color\n1,2\n",
            "has arrival_ms, color; it must have arrival_ms and may",
        ),
        ("a.csv", "timeout_ms\n1\n", "has timeout_ms; it must have arrival_ms"),
        ("a.csv", "1,2\n3\n", "row 2 is 3; it must be arrival_ms,timeout_ms"),
        ("a.csv", "1\nx\n", "row 2 is x; it must be arrival_ms"),
        ("a.csv", "1,2,3,4\n", "row 1 is 1,2,3,4; it must be arrival_ms,timeout_ms,priority"),
        ("a.csv", "1\n\n-3\n", "arrivals_ms[1] is -3"),
        ("a.csv", "arrival_ms\n\n,\n", "row 1 is ,; it must be arrival_ms"),
    ],
)
def test_a_file_that_is_no_trace(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=r".") as error:
        Trace.load(tmp_path / name)
    assert message in str(error.value)
