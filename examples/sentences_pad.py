"""A sentence encoder that takes tokens of different lengths: padded batches, bounded in tokens.

The encoder is a small transformer with random weights: embedding, one layer of attention, mean of the real tokens. What
it is given is what tokenisers make: a dict of arrays, one row a sentence.

python examples/sentences_pad.py
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from pybatch import Pad, Scheduler

VOCABULARY = 5_000
WIDTH = 32
MAX_TOKENS = 512  # that a batch may hold, padding included

Tokens = dict[str, NDArray[np.int64]]
Vectors = NDArray[np.float64]


class Encoder:
    """Tokens of shape (n, longest) to vectors of shape (n, WIDTH)."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.embedding = random.normal(size=(VOCABULARY, WIDTH))
        self.query, self.key, self.value = random.normal(size=(3, WIDTH, WIDTH)) / WIDTH**0.5

    def __call__(self, batch: Tokens) -> Vectors:
        real = batch["attention_mask"] == 1
        x = self.embedding[batch["input_ids"]]
        scores = (x @ self.query) @ (x @ self.key).swapaxes(1, 2) / WIDTH**0.5
        scores = np.where(real[:, None, :], scores, -np.inf)  # nobody looks at padding
        weights = np.exp(scores - scores.max(axis=2, keepdims=True))
        x = x + (weights / weights.sum(axis=2, keepdims=True)) @ (x @ self.value)
        mean: Vectors = (x * real[:, :, None]).sum(axis=1) / real.sum(axis=1, keepdims=True)
        return mean


def tokenise(sentence: str) -> Tokens:
    """Return one number a word; 0 is kept for padding."""
    ids = np.array([1 + crc32(word.encode()) % (VOCABULARY - 1) for word in sentence.split()])
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def sentences(count: int) -> list[str]:
    """Return sentences as users write them: most are short, some go on and on."""
    random = np.random.default_rng(1)
    lengths = np.clip(random.lognormal(2.3, 0.7, count), 2, 64).astype(int)
    return [" ".join(f"word{word}" for word in random.zipf(1.3, length)) for length in lengths]


@dataclass(frozen=True)
class Run:
    """What came of one way to encode all sentences."""

    vectors: Vectors
    per_s: float
    batches: int
    padding: float


def alone(encoder: Encoder, items: list[Tokens]) -> Run:
    """Encode one sentence after the other."""
    began_s = time.perf_counter()
    vectors = [encoder({name: tokens[None] for name, tokens in item.items()})[0] for item in items]
    return Run(np.array(vectors), len(items) / (time.perf_counter() - began_s), len(items), 0.0)


def batched(encoder: Encoder, items: list[Tokens], **options: Any) -> Run:
    """Submit everything at once, which is a backlog, and wait for all of it."""
    with Scheduler(encoder, batch_as=Pad(give=None), name="encoder", metrics=False, **options) as scheduler:
        began_s = time.perf_counter()
        vectors = [future.result() for future in scheduler.submit_many(items)]
        elapsed_s = time.perf_counter() - began_s
        stats = scheduler.stats()
    return Run(np.array(vectors), len(items) / elapsed_s, stats.batches, stats.padding_ratio)


def main() -> dict[str, Run]:
    """Encode the same sentences in four ways, and compare."""
    encoder = Encoder()
    items = [tokenise(sentence) for sentence in sentences(2_000)]
    with threadpool_limits(1):  # matrices this small gain nothing from more threads
        runs = {
            "one at a time": alone(encoder, items),
            # Where all weigh the same, none is like another, and they go as they come.
            "batches of 32, as they come": batched(encoder, items, max_batch_size=32, weight_fn=lambda _: 1),
            "batches of 32, by length": batched(encoder, items, max_batch_size=32),
            f"batches of {MAX_TOKENS} tokens, by length": batched(
                encoder, items, max_batch_size=128, max_batch_weight=MAX_TOKENS
            ),
        }
    expected = runs["one at a time"].vectors
    for name, result in runs.items():
        difference = np.abs(result.vectors - expected).max()
        print(
            f"{name:33} {result.per_s:6,.0f} sentences/s, {result.batches:5,} batches, {result.padding:3.0%} padding, "
            f"largest difference {difference:.0e}"
        )
    return runs


if __name__ == "__main__":
    main()
