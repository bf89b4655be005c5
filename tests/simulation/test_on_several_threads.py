"""Machines share nothing: simulations, which need no GIL, run on several threads at once as they do alone.

The sanitizer of threads (`make sanitize-threads`) sees what they would share.
"""

from __future__ import annotations

import functools
import threading

import numpy as np

from gates import LIMIT_S, in_thread
from pybatch.simulation import MMPP, Result, Service, simulate

THREADS = 4
POLICIES = ("adaptive", "immediate", "adaptive", "fixed")


def run(policy: str) -> Result:
    return simulate(
        MMPP((2000.0, 200.0), (20.0, 30.0)),
        Service.affine(1.0, 0.2, noise=0.2),
        policy=policy,
        max_wait_ms=2.0 if policy == "fixed" else None,
        max_batch_size=16,
        workers=2,
        timeout_ms=20.0,
        requests=20_000,
        seed=1,
    )


def test_simulations_on_several_threads_at_once_are_as_they_are_alone() -> None:
    start = threading.Barrier(THREADS)

    def at_once(policy: str) -> Result:
        start.wait(LIMIT_S)
        return run(policy)

    together = [done.result(LIMIT_S) for done in [in_thread(functools.partial(at_once, name)) for name in POLICIES]]
    for policy, result in zip(POLICIES, together, strict=True):
        alone = run(policy)
        assert np.array_equal(result.finished_ns, alone.finished_ns)
        assert np.array_equal(result.outcome, alone.outcome)
        assert np.array_equal(result.batch_of, alone.batch_of)
