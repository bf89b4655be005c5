"""Documents of many passages beside single queries: each document is one request, and equal queries are computed once.

python examples/documents.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pybatch import Scheduler

Vectors = NDArray[np.float64]


@dataclass(frozen=True)
class Result:
    """What `main` counted."""

    passages: int
    queries: int
    rows: int  # that the model was given
    query_ms: float
    document_ms: float


def main() -> Result:
    """Embed three documents while the same few queries come again and again."""
    random = np.random.default_rng(0)
    weights = random.normal(size=(64, 16))
    rows = 0

    def embed(batch: Vectors) -> Vectors:
        nonlocal rows
        rows += len(batch)
        time.sleep(0.002)  # what a model takes
        return batch @ weights

    documents = [random.normal(size=(count, 64)) for count in (700, 30, 200)]
    popular = random.normal(size=(5, 64))
    queries = [popular[i] for i in random.integers(0, 5, 100)]

    with Scheduler(embed, batch_as="stack", dedupe=True, max_batch_size=64, metrics=False) as scheduler:
        began_s = time.perf_counter()
        # Each is one future; priority 1 lets queries that come later go first.
        pending = [scheduler.submit_batch(document, priority=1) for document in documents]
        asked = [scheduler.submit(query) for query in queries]
        answers = [future.result() for future in asked]
        query_s = time.perf_counter() - began_s
        embedded = [future.result() for future in pending]  # an array of shape (count, 16) each
        document_s = time.perf_counter() - began_s

    np.testing.assert_allclose(answers, np.array(queries) @ weights)
    for document, vectors in zip(documents, embedded, strict=True):
        np.testing.assert_allclose(vectors, document @ weights)
    result = Result(sum(map(len, documents)), len(queries), rows, query_s * 1e3, document_s * 1e3)
    print(f"{result.queries} queries and {result.passages} passages, of which the model was given {result.rows} rows")
    print(f"all queries were answered after {result.query_ms:.0f} ms, all documents after {result.document_ms:.0f} ms")
    return result


if __name__ == "__main__":
    main()
