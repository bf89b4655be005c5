"""``pybatch demo``: what it accepts; `pybatch.demo` does it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from batchcore.engine import MAX_BATCH_SIZE
from pybatch.commands.arguments import Commands, needs, number
from pybatch.options import MAX_MS

__all__ = ["add"]


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    line = "serve a real model one item at a time, then batched, and compare"
    demo = commands.add_parser(
        "demo",
        help=line,
        description=f"""{line.capitalize()}.

A small neural network is trained on the spot on scikit-learn's handwritten
digits. Threads and asyncio tasks then submit one image after another, each
waiting for its answer, and every answer is checked against the model's own.""",
        epilog="""\
examples:
  pybatch demo                             what most people want to see
  pybatch demo --threads 0 --tasks 512     asyncio callers only
  pybatch demo --max-batch-size 1          no batching: what scheduling costs
  pybatch demo --json | jq .gain           for machines

Exits with 1 if any answer is wrong. Needs: pip install 'batchcore[demo]'""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def option(name: str, kind: Callable[[str], float], default: float | None, unit: str, text: str) -> None:
        text += " (default: none)" if default is None else " (default: %(default)s)"
        demo.add_argument(name, type=kind, default=default, metavar=unit, help=text)

    option("--threads", number(int, 0, 256), 8, "N", "calling threads")
    option("--tasks", number(int, 0, 10_000), 120, "N", "calling asyncio tasks")
    option("--duration", number(float, 0.01, 3600), 3.0, "SECONDS", "length of each of the two phases")
    option("--max-batch-size", number(int, 1, MAX_BATCH_SIZE), 64, "N", "most images in a batch")
    option(
        "--max-latency-ms", number(float, 0, MAX_MS), None, "MS", "target, submit to answer; waiting must not break it"
    )
    option("--seed", number(int, 0, 2**32 - 1), 0, "N", "of the training and the order of the images")
    demo.add_argument("--json", action="store_true", help="print one JSON object, units in its keys, not tables")
    demo.set_defaults(run=partial(_run, demo))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.threads + args.tasks == 0:
        parser.error("--threads and --tasks are both 0: nobody would call")
    with needs("demo", "scikit-learn and rich", "demo", "rich", "sklearn"):
        from pybatch import demo
    options = demo.Options(
        threads=args.threads,
        tasks=args.tasks,
        duration_s=args.duration,
        max_batch_size=args.max_batch_size,
        max_latency_ms=args.max_latency_ms,
        seed=args.seed,
    )
    return demo.main(options, as_json=args.json)
