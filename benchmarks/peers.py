"""Compare what a request costs, here and in the batchers that can be installed, and say if this project keeps its word.

Each peer runs in an environment of its own (``.venv-peers``), made on first use and kept. A round measures every
contender once, in a process of its own and in another order than the round before; a figure is the median over the
rounds. `field.py` has the contenders and their settings, `loads.py` the loads, `peers_report.py` the bars.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from field import FIELD, Contender, Cost
from peers_report import OURS, Row, Table, bars, page, plot
from pybatch.commands.progress import steps

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".venv-peers"

EPILOG = """\
the loads are a full queue (1,024 requests outstanding; max_batch_size 1, 8 and
64) and idle round trips (one caller, one request at a time). fn does nothing: a
figure is the price of the way there and back. CPU time is that of all threads;
where it is less than wall time, the contender slept or waited for a core.

A full run writes docs/peers.md and docs/peers.svg; one with --quick or --only
writes nothing. The environments (.venv-peers) take 0.9 GB, mostly Ray.

examples:
  make bench-peers                        five minutes: figures to quote
  make bench-peers ARGS=--quick           a look: too short for close calls
  make bench-peers ARGS="--only batched"  one peer and pybatch
  make bench-peers ARGS=--check           for scripts: exit status 1 if a bar is missed
"""


def interpreter(contender: Contender) -> Path:
    """Return the Python that runs the contender; install its package first where that is not done."""
    if not contender.requirement:
        return Path(sys.executable)
    home = ENVIRONMENTS / contender.package
    python, installed = home / "bin" / "python", home / "installed.txt"
    if not installed.exists() or installed.read_text() != contender.requirement:
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", contender.requirement]
        subprocess.run([python, *pip], check=True)
        installed.write_text(contender.requirement)
    return python


def run(contender: Contender, seconds: float) -> tuple[str, list[Cost]]:
    """Measure a contender in a process of its own; return its version and what its requests took."""
    program = [interpreter(contender), ROOT / "benchmarks" / "field.py"]
    case = [contender.name, contender.path, str(seconds)]
    done = subprocess.run([*program, *case], capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"{contender.name} ({contender.path}) cannot be measured:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["version"], [Cost(**cost) for cost in found["costs"]]


def measure(contenders: list[Contender], rounds: int, seconds: float, begin: Callable[[str], None]) -> list[Table]:
    """Give each contender `seconds` of each load in each round; return a table a load."""
    for contender in contenders:
        begin(f"installing {contender.name}")
        interpreter(contender)
    versions: dict[str, str] = {}
    taken: dict[tuple[str, str], dict[int, list[Cost]]] = defaultdict(lambda: defaultdict(list))
    for turn in range(rounds):
        first = turn * len(contenders) // rounds
        for index in [*range(first, len(contenders)), *range(first)]:
            contender = contenders[index]
            begin(f"round {turn + 1} of {rounds}, {contender.name}, {contender.path}")
            versions[contender.package], costs = run(contender, seconds)
            for cost in costs:
                taken[contender.path, cost.load][index].append(cost)
    tables = []
    for (path, load), by_index in taken.items():
        rows = []
        for index, costs in by_index.items():
            cpu_us = statistics.median(cost.cpu_ns for cost in costs) / 1e3
            wall_us = statistics.median(cost.wall_ns for cost in costs) / 1e3
            rows.append(Row(contenders[index], versions[contenders[index].package], cpu_us, wall_us))
        tables.append(Table(path, load, rows))
    return tables


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="What a request costs: this scheduler, batchers from PyPI, batchers written by hand, no batching.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = list(dict.fromkeys(contender.name for contender in FIELD if contender.name != OURS))
    parser.add_argument("--quick", action="store_true", help="1 round of 0.2 s a load instead of 7 of 0.5 s")
    parser.add_argument("--rounds", type=int, metavar="N", help="another number of rounds")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, help=f"{OURS} and some of: {', '.join(names)}"
    )
    return parser.parse_args()


def main() -> int:
    chosen = options()
    rounds, seconds = (1, 0.2) if chosen.quick else (7, 0.5)
    rounds = chosen.rounds or rounds
    contenders = [each for each in FIELD if not chosen.only or each.name in {OURS, *chosen.only}]
    with steps("peers", (rounds + 1) * len(contenders)) as begin:
        tables = measure(contenders, rounds, seconds, begin)
    judged = list(bars(tables))
    text = page(tables, judged, rounds, seconds)
    print(text)
    if not chosen.quick and not chosen.only:
        (ROOT / "docs" / "peers.md").write_text(text)
        plot(tables, ROOT / "docs" / "peers.svg")
    return int(chosen.check and not all(bar.met for bar in judged))


if __name__ == "__main__":
    sys.exit(main())
