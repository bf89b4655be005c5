"""What a policy does to your traffic, before it does: the engine that serves, run in virtual time.

A workload says when requests come, a service model what batches take, and `simulate` lets them meet under a policy.
The engine and the event loop are compiled, so a million requests take a fraction of a second, and the same call gives
the same bits on every machine.

>>> from pybatch.simulation import PROFILES, Poisson, simulate
>>> bert = PROFILES["bert"]
>>> result = simulate(Poisson(per_second=1000), bert, policy="immediate", requests=10_000, slo_ms=50)
>>> round(result.mean_ms, 1), round(result.mean_batch_size, 1), result.good
(16.1, 10.7, 1.0)
"""

from pybatch.simulation.result import Batches, Result, Summary
from pybatch.simulation.run import simulate
from pybatch.simulation.service import PROFILES, Service
from pybatch.simulation.trace import Trace
from pybatch.simulation.workloads import MMPP, Bursts, ClosedLoop, Gamma, Mixed, Poisson, Workload

__all__ = [
    "MMPP",
    "PROFILES",
    "Batches",
    "Bursts",
    "ClosedLoop",
    "Gamma",
    "Mixed",
    "Poisson",
    "Result",
    "Service",
    "Summary",
    "Trace",
    "Workload",
    "simulate",
]
