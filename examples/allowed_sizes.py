"""A compiled model that accepts certain batch sizes only, and writes each answer where it wrote the last one.

So do CUDA graphs, TensorRT engines and XLA programs: a graph a size, with memory of its own for what goes in and out.

python examples/allowed_sizes.py
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from pybatch import Scheduler, current_batch

SIZES = [1, 2, 4, 8, 16]
FEATURES = 32

Vectors = NDArray[np.float64]


class CompiledModel:
    """Accepts batches of `SIZES` and no others."""

    def __init__(self) -> None:
        self.weights = np.random.default_rng(0).normal(size=(FEATURES, 3))
        self.outputs = {size: np.empty((size, 3)) for size in SIZES}
        self.calls: Counter[tuple[int, int]] = Counter()

    def __call__(self, batch: Vectors) -> Vectors:
        if len(batch) not in self.outputs:
            raise ValueError(f"no graph was compiled for a batch of {len(batch)}")
        self.calls[current_batch().size, len(batch)] += 1
        return np.matmul(batch, self.weights, out=self.outputs[len(batch)])


def main() -> Counter[tuple[int, int]]:
    """Send bursts of every size; return how often so many requests came as a batch of such a size."""
    model = CompiledModel()
    random = np.random.default_rng(1)
    # copy_results: a view of the output would be overwritten by the next batch before its caller has read it.
    with Scheduler(
        model, batch_as="stack", allowed_batch_sizes=SIZES, copy_results=True, name="compiled", metrics=False
    ) as scheduler:
        for count in random.integers(1, 40, 200):
            items = random.normal(size=(count, FEATURES))
            answers = [future.result() for future in scheduler.submit_many(list(items))]
            np.testing.assert_allclose(answers, items @ model.weights)
        stats = scheduler.stats()
    for size in SIZES:
        filled = [times for (requests, rows), times in model.calls.items() if rows == size and requests < size]
        full = model.calls[size, size]
        print(f"size {size:2}: {full + sum(filled):4} batches, {sum(filled):2} of them with filler")
    filler = f"{stats.padding_ratio:.1%} of the rows were filler"
    print(f"{stats.completed:,} requests answered, {stats.failed} failed; {filler}")
    return model.calls


if __name__ == "__main__":
    main()
