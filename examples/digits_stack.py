"""Handwritten digits: a model that takes one array, called for single images from many threads.

python examples/digits_stack.py
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from pybatch import Scheduler

THREADS = 8
ROUNDS = 20  # how often each thread goes through the images


@dataclass(frozen=True)
class Result:
    """What `main` measured."""

    answers: int
    mismatches: int
    alone_per_s: float
    batched_per_s: float
    mean_batch_size: float


def main() -> Result:
    """Compare answers and throughput, one at a time and batched."""
    images, labels = load_digits(return_X_y=True)
    model: Any = MLPClassifier((64,), learning_rate_init=0.01, tol=0.01, n_iter_no_change=3, random_state=0)
    model.fit(images[:1297], labels[:1297])
    unseen = list(images[1297:])  # 500 arrays of shape (64,)

    began_s = time.perf_counter()
    expected = [model.predict(image[None])[0] for image in unseen]
    alone_s = time.perf_counter() - began_s

    # `model.predict` takes an array (n, 64) and returns an array (n,): that is all it takes.
    with Scheduler(model.predict, batch_as="stack", max_batch_size=64, metrics=False) as scheduler:

        def caller(_: int) -> list[np.int64]:
            return list(scheduler.map(unseen * ROUNDS))  # one image each, submitted ahead of the answers

        with ThreadPoolExecutor(THREADS) as threads:
            began_s = time.perf_counter()
            answers: NDArray[np.int64] = np.array(list(threads.map(caller, range(THREADS))))
            batched_s = time.perf_counter() - began_s
        mean_batch_size = scheduler.stats().batch_size.mean

    result = Result(
        answers=answers.size,
        mismatches=int((answers != np.tile(expected, (THREADS, ROUNDS))).sum()),
        alone_per_s=len(unseen) / alone_s,
        batched_per_s=answers.size / batched_s,
        mean_batch_size=mean_batch_size,
    )
    print(f"one at a time  {result.alone_per_s:9,.0f} images/s")
    print(
        f"batched        {result.batched_per_s:9,.0f} images/s from {THREADS} threads, "
        f"{result.batched_per_s / result.alone_per_s:.0f} times as many, in batches of {result.mean_batch_size:.0f}"
    )
    print(f"{result.answers - result.mismatches:,} of {result.answers:,} answers equal the model's own")
    return result


if __name__ == "__main__":
    main()
