"""What tests of a running scheduler share: it is shut down when the test ends, and then its books must balance."""

from __future__ import annotations

import operator
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

from gates import check_books

if TYPE_CHECKING:
    from pybatch import Scheduler
    from pybatch.testing import SteppingScheduler

LIMIT_S = 30.0

settings.register_profile(
    "batchcore",
    max_examples=int(os.environ.get("BATCHCORE_EXAMPLES", "100")),  # fewer where each takes long, as under emulation
    deadline=None,  # a busy machine is slow, not wrong
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # a pull request is not the place to find an older bug
)
settings.load_profile("batchcore")

if os.environ.get("BATCHCORE_TRACED") == "1":
    # A function in C in the place of one in Python, which would run once a line, also in sections that the GIL guards.
    from Cython.Coverage import CythonModuleTracer

    CythonModuleTracer.line_number_range = staticmethod(operator.attrgetter("f_lineno", "f_lineno"))


def pytest_configure() -> None:
    """Let Ctrl-C interrupt, also where a shell that runs the tests in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count a skip as a failure where BATCHCORE_NO_SKIPS=1 says that everything a test may want is there."""
    report = yield
    if report.skipped and os.environ.get("BATCHCORE_NO_SKIPS") == "1":
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr}"
    return report


@pytest.fixture
def scheduler_of() -> Iterator[Callable[..., Scheduler[Any, Any]]]:
    """Make schedulers (without metrics unless asked for) that end with the test and whose books must balance then."""
    from pybatch import Scheduler

    made: list[Scheduler[Any, Any]] = []
    threads_before = set(threading.enumerate())

    def scheduler_of(fn: Callable[..., Any], **options: Any) -> Scheduler[Any, Any]:
        options.setdefault("metrics", "registry" in options)
        made.append(Scheduler(fn, **options))
        return made[-1]

    yield scheduler_of

    for scheduler in made:
        stopping = threading.Thread(target=scheduler.shutdown, daemon=True)
        stopping.start()
        stopping.join(LIMIT_S)
        assert not stopping.is_alive(), f"shutdown of {scheduler!r} does not end"
        check_books(scheduler.stats())
    for thread in set(threading.enumerate()) - threads_before:
        thread.join(LIMIT_S)
        assert not thread.is_alive(), f"{thread!r} outlives its scheduler"


@pytest.fixture
def stepping() -> Iterator[Callable[..., SteppingScheduler[Any, Any]]]:
    """Make schedulers in virtual time, of `list` unless told otherwise, whose books must balance when all is done."""
    from pybatch.testing import SteppingScheduler

    made: list[SteppingScheduler[Any, Any]] = []

    def stepping(fn: Callable[..., Any] = list, **options: Any) -> SteppingScheduler[Any, Any]:
        made.append(SteppingScheduler(fn, **options))
        return made[-1]

    yield stepping

    for scheduler in made:
        scheduler.shutdown()
        check_books(scheduler.stats())
