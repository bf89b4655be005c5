"""Tenants with models of their own: only requests of one tenant share a batch, and each gets its share of the time.

A free tenant has sent a heap of requests when one who pays sends some.

python examples/tenants.py
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pybatch import Scheduler, current_batch

Vectors = NDArray[np.float64]

MODELS = {tenant: np.random.default_rng(seed).normal(size=(8, 8)) for seed, tenant in enumerate(["free", "paying"])}
SERVICE_S = 0.002  # what a batch takes, whatever its size


def serve(**options: Any) -> str:
    """Let both tenants submit at once; return whose batches were computed, in order, by their first letters."""
    order = []

    def predict(batch: Vectors) -> Vectors:
        tenant = current_batch().key
        order.append(tenant[0])
        time.sleep(SERVICE_S)
        return batch @ MODELS[tenant]

    with Scheduler(predict, batch_as="stack", max_batch_size=8, metrics=False, **options) as scheduler:
        items = np.random.default_rng(2).normal(size=(8 * 24, 8))
        free = scheduler.submit_batch(items, key="free")
        paying = scheduler.submit_batch(items[:96], key="paying")
        np.testing.assert_allclose(paying.result(), items[:96] @ MODELS["paying"])
        np.testing.assert_allclose(free.result(), items @ MODELS["free"])
    return "".join(order)


def main() -> tuple[str, str]:
    """Serve them in order of arrival, then three parts of the time to one."""
    orders = serve(), serve(share_by_key={"paying": 3, "free": 1})
    for name, order in zip(("the most urgent first ", "shares of 3 and 1     "), orders, strict=True):
        last_ms = (order.rindex("p") + 1) * SERVICE_S * 1e3
        print(f"{name} {order}: the paying tenant has all its answers after {last_ms:.0f} ms")
    return orders


if __name__ == "__main__":
    main()
