"""What brings about in seconds what else takes weeks of service."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from gates import in_thread

LIMIT_S = 60.0


@pytest.fixture(autouse=True)
def _threads_switch_as_often_as_they_can() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def crowd() -> Callable[..., None]:
    """Run jobs at once, each on a thread of its own, and raise what the first of them raised."""

    def crowd(*jobs: Callable[[], object]) -> None:
        start = threading.Barrier(len(jobs))

        def run(job: Callable[[], object]) -> None:
            start.wait(LIMIT_S)
            job()

        for done in [in_thread(run, job) for job in jobs]:
            done.result(LIMIT_S)

    return crowd
