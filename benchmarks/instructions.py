"""Count the instructions of one request, and compare them with the figures that the repository keeps.

Instructions are blind to caches and to waiting, and no figures to quote. But they are the same in every run, on a busy
machine too, and so they show a growth that no clock would. `counted.py` has the loads.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

from batchcore import dispatcher

FIGURES = Path(__file__).with_suffix(".json")
LOADS = Path(__file__).with_name("counted.py")
TOLERANCE = 0.03
UPDATE = "make bench-instructions ARGS=--update"

EPILOG = f"""\
what is counted, for one request:
  submit             into a queue whose only worker is busy, one at a time
  submit_many of 64  the same, 64 at a time
  dispatch of 64     from the queue to the call of fn
  completion of 64   from the return of fn until the futures are done
  result             of a future that is done
  threads, asyncio   the whole way under a full queue, callers and collector of garbage included

{FIGURES.name} keeps the figures, those of each machine (architecture, Python, compilers) under its name. One that
grew by more than {TOLERANCE:.0%} fails the check. Make the code cheaper; or, if it is worth its price, run
  {UPDATE}
commit the file with the change, and say why. Do the same when a figure shrank: a gain that is not kept may get lost.

examples:
  python benchmarks/instructions.py            a table
  python benchmarks/instructions.py --check    for scripts: exit status 1 if a figure grew
  python benchmarks/instructions.py --update   keep what is counted now as the figures of this machine
"""


def machine() -> str:
    """Say what figures depend on: the interpreter, and who made our extensions, which is written in them."""
    python = f"{platform.python_implementation()} {sysconfig.get_python_version()}{sys.abiflags}"
    optimized = "optimized " if "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "") else ""
    python_by = platform.python_compiler().split(".")[0]
    extension = Path(dispatcher.__file__).read_bytes()
    cython, compiler = (
        b" ".join(found.groups()).decode() if (found := re.search(mark, extension)) else "unknown"
        for mark in (rb"_(cython)_(\d+_\d+)_", rb"(GCC|clang)[^\0]*? (\d+)\.\d+\.\d+")
    )
    return f"{optimized}{python} by {python_by}, {cython.replace('_', '.')} by {compiler}, {platform.machine()}"


def count() -> dict[str, float]:
    """Run the loads; return the instructions of one request of each."""
    if shutil.which("valgrind") is None:
        raise SystemExit("valgrind, which counts, is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as folder:
        parts = Path(folder, "part")
        callgrind = ["valgrind", "--tool=callgrind", "--zero-before=getuid", "--dump-before=getppid"]
        run = subprocess.run(
            [*callgrind, f"--callgrind-out-file={parts}", sys.executable, LOADS],
            env={"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            raise SystemExit(run.stderr)
        counts: dict[str, list[tuple[int, int]]] = {}
        for number, line in enumerate(run.stdout.splitlines(), 1):
            name, requests = line.split("\t")
            summary = re.search(r"^summary: (\d+)", Path(f"{parts}.{number}").read_text(), re.MULTILINE)
            if summary is None:
                raise SystemExit(f"callgrind wrote no count of {name}")
            counts.setdefault(name, []).append((int(requests), int(summary[1])))
    return {
        name: (long_count - short_count) / (long - short)
        for name, ((short, short_count), (long, long_count)) in counts.items()
    }


def table(kept: dict[str, int], counted: dict[str, float]) -> Iterator[str]:
    """Lay out the counts as markdown."""
    yield f"| {'instructions per request':37} |  kept |   now | change |"
    yield f"|{'-' * 39}|------:|------:|-------:|"
    for name, now in counted.items():
        old = kept.get(name)
        change = "" if old is None else f"{now / old - 1:+.1%}"
        yield f"| {name:37} | {old or '':>5} | {now:5.0f} | {change:>6} |"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Instructions that one request takes, counted by callgrind, against the figures kept.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="exit with status 1 if a figure grew")
    choice.add_argument("--update", action="store_true", help="keep what is counted now")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    here = machine()
    figures: dict[str, dict[str, int]] = json.loads(FIGURES.read_text())
    if chosen.check and here not in figures:
        print(f"nothing checked: {FIGURES.name} has no figures for {here}, only for {'; '.join(figures)}")
        return 0
    kept = figures.get(here, {})
    counted = count()
    print("\n".join([here, "", *table(kept, counted), ""]))
    if chosen.update:
        figures[here] = {name: round(now) for name, now in counted.items()}
        FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
        return 0
    grown = False
    for name, now in counted.items():
        old = kept.get(name)
        if old is None:
            print(f"{name} has no figure: run `{UPDATE}` and commit {FIGURES.name}")
        elif now > old * (1 + TOLERANCE):
            grown = True
            print(
                f"{name} GREW by {now / old - 1:.1%}, from {old} to {now:.0f} instructions: make it cheaper, or run "
                f"`{UPDATE}`, commit {FIGURES.name} and say why it is worth that"
            )
        elif now < old * (1 - TOLERANCE):
            print(f"{name} shrank by {1 - now / old:.1%}, from {old} to {now:.0f} instructions: keep it by `{UPDATE}`")
    return int(chosen.check and grown)


if __name__ == "__main__":
    sys.exit(main())
