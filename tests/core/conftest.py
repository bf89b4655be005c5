"""What the stories share: a workshop of engines whose invariants are checked when the story is over."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from batchcore.engine import Engine

settings.register_profile(
    "batchcore",
    deadline=None,  # a busy machine is slow, not wrong
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # a pull request is not the place to find an older bug
)
settings.load_profile("batchcore")


@pytest.fixture
def make_engine() -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(**options: Any) -> Engine:
        made.append(Engine(**options))
        return made[-1]

    yield make
    for engine in made:
        engine.check()
