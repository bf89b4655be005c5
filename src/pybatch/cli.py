"""The command ``pybatch``: each subcommand is a module of `pybatch.commands`, which imports what it
needs only when it is asked for.

Exit codes: 0 all is well; 1 it ran and found something wrong, or cannot run here; 2 wrong usage; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from pybatch.commands import demo, simulate, tune
from pybatch.commands.arguments import CannotRun

__all__ = ["main"]


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
    except CannotRun as error:
        print(error, file=sys.stderr)
        return 1
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
    for command in (demo, simulate, tune):
        command.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
