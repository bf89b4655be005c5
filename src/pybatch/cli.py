"""The command ``pybatch``: each subcommand is a parser here and a module that is imported only when it is asked for.

Exit codes: 0 all is well; 1 it ran and found something wrong, or cannot run here; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from batchcore.engine import MAX_BATCH_SIZE
from pybatch.options import MAX_MS

if TYPE_CHECKING:
    from argparse import _SubParsersAction

    Commands = _SubParsersAction[argparse.ArgumentParser]

__all__ = ["main"]

Number = TypeVar("Number", int, float)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; None (default) takes those of the process.

    Returns
    -------
    int
        The exit code.

    Raises
    ------
    SystemExit
        After ``--help`` and ``--version`` (code 0), and on wrong usage (code 2), as argparse does.
    """
    args = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pybatch",
        description="Batch single items from many callers into one model call.",
        epilog="'pybatch COMMAND --help' explains a command and shows examples.",
    )
    parser.add_argument("--version", action="version", version=f"pybatch {version('batchcore')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demo(commands)
    return parser


def _add_demo(commands: Commands) -> None:
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

    option("--threads", _number(int, 0, 256), 8, "N", "calling threads")
    option("--tasks", _number(int, 0, 10_000), 120, "N", "calling asyncio tasks")
    option("--duration", _number(float, 0.01, 3600), 3.0, "SECONDS", "length of each of the two phases")
    option("--max-batch-size", _number(int, 1, MAX_BATCH_SIZE), 64, "N", "most images in a batch")
    option(
        "--max-latency-ms", _number(float, 0, MAX_MS), None, "MS", "target, submit to answer; waiting must not break it"
    )
    option("--seed", _number(int, 0, 2**32 - 1), 0, "N", "of the training and the order of the images")
    demo.add_argument("--json", action="store_true", help="print one JSON object, units in its keys, not tables")
    demo.set_defaults(run=partial(_demo, demo))


def _demo(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    if args.threads + args.tasks == 0:
        parser.error("--threads and --tasks are both 0: nobody would call")
    try:
        from pybatch import demo
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("numpy", "rich", "sklearn"):
            raise
        print("pybatch demo needs scikit-learn and rich: pip install 'batchcore[demo]'", file=sys.stderr)
        return 1
    options = demo.Options(
        threads=args.threads,
        tasks=args.tasks,
        duration_s=args.duration,
        max_batch_size=args.max_batch_size,
        max_latency_ms=args.max_latency_ms,
        seed=args.seed,
    )
    return demo.main(options, as_json=args.json)


def _number(kind: Callable[[str], Number], low: Number, high: Number) -> Callable[[str], Number]:
    """Return the argparse type of a number from `low` to `high`, both included."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        if not low <= value <= high:  # written so that NaN is refused too
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
