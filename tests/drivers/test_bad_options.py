"""Options and arguments that make no sense are refused at once, with the value, the limit and the remedy."""

from __future__ import annotations

import threading
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from gates import HOUR_MS, LIMIT_S, SchedulerOf, run_loop, same
from pybatch import DeadlineExceeded, Scheduler

NAN, INF, HUGE = float("nan"), float("inf"), 10**400

BAD_DURATIONS: list[tuple[Any, type[Exception]]] = [
    (-1, ValueError),
    (-0.001, ValueError),
    (NAN, ValueError),
    (INF, ValueError),
    (-INF, ValueError),
    (1e10 + 1e4, ValueError),
    (10**11, ValueError),
    (HUGE, ValueError),
    (np.float64("nan"), ValueError),
    (True, TypeError),
    ("5", TypeError),
    (b"5", TypeError),
    (1j, TypeError),
    ([5], TypeError),
]

BAD_COUNTS: list[tuple[Any, type[Exception]]] = [
    (0, ValueError),
    (-1, ValueError),
    (2**31, ValueError),
    (2**70, ValueError),
    (-(2**70), ValueError),
    (True, TypeError),
    (1.0, TypeError),
    (2.5, TypeError),
    (NAN, TypeError),
    ("8", TypeError),
    (None, TypeError),
    ([8], TypeError),
]

BAD_OPTIONS: list[tuple[str, Any, type[Exception]]] = [
    *(
        (name, value, kind)
        for name in ("max_batch_size", "max_queue_size", "max_concurrent_batches")
        for value, kind in BAD_COUNTS
        if (name, value) != ("max_batch_size", None)
    ),
    ("max_batch_size", 1_048_577, ValueError),
    ("max_batch_size", 10**9, ValueError),
    ("max_concurrent_batches", 4097, ValueError),
    *((name, value, kind) for name in ("max_latency_ms", "max_wait_ms", "timeout_ms") for value, kind in BAD_DURATIONS),
    ("on_full", "wait", ValueError),
    ("run_in", "thread", ValueError),
    *(("spin_us", value, ValueError) for value in (-1, -0.5, NAN, float("inf"), 10_001, 2**70)),
    *(("spin_us", value, TypeError) for value in (True, "50", None, [50])),
    ("policy", "hurried", ValueError),
    ("policy", "", ValueError),
]


def shown(value: Any) -> str:
    """Return how a message has to show the value: as it is, or its beginning if it is endless."""
    return repr(value) if value is not HUGE else "1"


def labels(value: Any) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize(("name", "value", "kind"), BAD_OPTIONS, ids=labels)
def test_a_bad_option_is_refused_by_name_and_value(name: str, value: Any, kind: type[Exception]) -> None:
    registry, before = CollectorRegistry(), set(threading.enumerate())
    with pytest.raises(kind) as caught:
        Scheduler(same, registry=registry, **{name: value})
    message = str(caught.value)
    assert name in message
    assert shown(value) in message or str(value) in message
    assert len(message) < 500
    assert list(registry.collect()) == []
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"on_full": None}, (TypeError, ValueError)),
        ({"on_full": 1}, (TypeError, ValueError)),
        ({"run_in": None}, (TypeError, ValueError)),
        ({"policy": 1}, (TypeError, ValueError)),
        ({"name": 5}, TypeError),
        ({"name": b"x"}, TypeError),
        ({"batch_size": 5}, TypeError),
    ],
    ids=str,
)
def test_an_option_of_the_wrong_kind_is_refused(options: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Scheduler(same, **({"metrics": False} | options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"policy": "immediate", "max_wait_ms": 5}, "max_wait_ms"),
        ({"policy": "immediate", "max_wait_ms": 0}, "max_wait_ms"),
        ({"policy": "fixed"}, "max_wait_ms"),
        ({"policy": "fixed", "max_wait_ms": None}, "max_wait_ms"),
    ],
    ids=str,
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scheduler(same, metrics=False, **options)


@pytest.mark.parametrize("fn", [None, 5, "predict", [same], same([1])], ids=repr)
def test_a_batch_function_has_to_be_callable(fn: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        Scheduler(fn, metrics=False)


def test_everything_but_fn_is_given_by_name() -> None:
    with pytest.raises(TypeError):
        Scheduler(same, 32)  # type: ignore[misc]
    with pytest.raises(TypeError):
        Scheduler()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "options",
    [
        {"max_batch_size": 1},
        {"max_batch_size": 1_048_576},
        {"max_batch_size": np.int64(4)},
        {"max_queue_size": 1},
        {"max_queue_size": 2**31 - 1},
        {"max_concurrent_batches": 1024},
        {"max_wait_ms": 0},
        {"max_wait_ms": 0.0},
        {"max_wait_ms": 0.5, "policy": "fixed"},
        {"max_wait_ms": np.float32(0.5)},
        {"max_wait_ms": np.int64(1)},
        {"max_wait_ms": Fraction(1, 3)},
        {"max_latency_ms": 0},
        {"max_latency_ms": 1e10},
        {"max_latency_ms": 1e-9},
        {"timeout_ms": 1e10},
        {"timeout_ms": 10**10},
        {"policy": "immediate"},
        {"policy": "adaptive", "max_wait_ms": None, "max_latency_ms": None, "timeout_ms": None, "name": None},
        {"name": 'a "name" \\ with\nall \u00fc'},
    ],
    ids=str,
)
def test_the_limits_themselves_are_allowed(scheduler_of: SchedulerOf, options: dict[str, Any]) -> None:
    scheduler = scheduler_of(same, registry=CollectorRegistry(), **options)
    assert scheduler.submit(1).result(LIMIT_S) == 1


def test_a_default_timeout_of_zero_expires_everything(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same, timeout_ms=0)
    assert isinstance(scheduler.submit(1).exception(LIMIT_S), DeadlineExceeded)
    assert scheduler.submit(1, timeout_ms=HOUR_MS).result(LIMIT_S) == 1


BAD_ARGUMENTS: list[tuple[str, Any, type[Exception]]] = [
    ("timeout_ms", NAN, ValueError),
    ("timeout_ms", INF, ValueError),
    ("timeout_ms", -INF, ValueError),
    ("timeout_ms", 10**11, ValueError),
    ("timeout_ms", HUGE, ValueError),
    ("timeout_ms", True, TypeError),
    ("timeout_ms", "5", TypeError),
    ("timeout_ms", 1j, TypeError),
    ("priority", 1_000_001, ValueError),
    ("priority", -1_000_001, ValueError),
    ("priority", 2**70, ValueError),
    ("priority", True, TypeError),
    ("priority", 1.0, TypeError),
    ("priority", "1", TypeError),
    ("priority", None, TypeError),
]


@pytest.mark.parametrize("how", ["submit", "submit_many", "map", "submit_wait"])
@pytest.mark.parametrize(("name", "value", "kind"), BAD_ARGUMENTS, ids=labels)
def test_a_bad_argument_of_a_request_is_refused_and_nothing_is_submitted(
    scheduler_of: SchedulerOf, how: str, name: str, value: Any, kind: type[Exception]
) -> None:
    scheduler = scheduler_of(same)

    async def submit_wait() -> None:
        await scheduler.submit_wait(1, **{name: value})

    ways: dict[str, Callable[[], Any]] = {
        "submit": lambda: scheduler.submit(1, **{name: value}),
        "submit_many": lambda: scheduler.submit_many([1, 2], **{name: value}),
        "map": lambda: list(scheduler.map([1, 2], **{name: value})),
        "submit_wait": lambda: run_loop(submit_wait()),
    }
    with pytest.raises(kind) as caught:
        ways[how]()
    message = str(caught.value)
    assert name in message
    assert shown(value) in message or str(value) in message
    assert len(message) < 500
    assert scheduler.stats().submitted == 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"priority": 1_000_000},
        {"priority": -1_000_000},
        {"priority": np.int32(3)},
        {"timeout_ms": 1e10},
        {"timeout_ms": np.float64(1e6)},
        {"timeout_ms": Fraction(10**9, 3)},
        {"timeout_ms": None},
    ],
    ids=str,
)
def test_the_limits_of_a_requests_arguments_are_allowed(scheduler_of: SchedulerOf, arguments: dict[str, Any]) -> None:
    assert scheduler_of(same).submit(1, **arguments).result(LIMIT_S) == 1


@pytest.mark.parametrize("timeout_ms", [-1e300, -(10**11)], ids=labels)
def test_any_finite_time_below_zero_expires_at_once(scheduler_of: SchedulerOf, timeout_ms: Any) -> None:
    assert isinstance(scheduler_of(same).submit(1, timeout_ms=timeout_ms).exception(LIMIT_S), DeadlineExceeded)


@pytest.mark.parametrize("value", ["1", b"1", [1]], ids=repr)
def test_waiting_for_a_time_that_is_no_number_is_refused(scheduler_of: SchedulerOf, value: Any) -> None:
    scheduler = scheduler_of(same)
    future = scheduler.submit(1)
    future.result(LIMIT_S)
    pending = scheduler_of(same, policy="fixed", max_wait_ms=HOUR_MS, max_batch_size=2).submit(1)
    for wait in (pending.result, pending.exception):
        with pytest.raises(TypeError):
            wait(value)
    with pytest.raises(TypeError):
        scheduler.drain(value)


def test_submit_takes_one_item_and_the_rest_by_name(scheduler_of: SchedulerOf) -> None:
    scheduler = scheduler_of(same)
    for wrong in (scheduler.submit, lambda: scheduler.submit(1, 2), lambda: scheduler.submit(1, timeout=3)):
        with pytest.raises(TypeError):
            wrong()
    assert scheduler.stats().submitted == 0
