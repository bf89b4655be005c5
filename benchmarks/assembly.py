"""Compare the assembly of batches with one memcpy of the same bytes and with NumPy by hand, and check the bars.

All contenders run in this one process in turn. A figure is the median over the rounds, and so is a ratio, since in one
round both meet the same machine. Padding writes as many bytes as a memcpy of the whole batch, and that bounds what it
can gain on a loop in Python.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from batchcore.assembly import Assembler

Array = np.ndarray[Any, Any]
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Case:
    """Ways to make one batch, ours the first; the bar is on what ours takes, in times of another one or in ns."""

    name: str
    ways: dict[str, Call]
    against: str | None
    most: float
    wanted: bool = True  # False: shown, and no bar


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def timed(call: Call, times: int) -> float:
    start_ns = time.perf_counter_ns()
    for _ in range(times):
        call()
    return (time.perf_counter_ns() - start_ns) / times


def memcpy_of(items: Sequence[Array]) -> Call:
    """Return a copy of the same bytes from one place to another, both there already."""
    source = np.concatenate([item.reshape(-1).view(np.uint8) for item in items])
    target = np.zeros_like(source)
    from_bytes, to_bytes = source.data, target.data

    def copy() -> None:
        to_bytes[:] = from_bytes

    return copy


def stacked(name: str, items: list[Array], most: float, against: str | None = "one memcpy") -> Case:
    assembler = Assembler()
    pieces = [assembler.prepare_item(item) for item in items]
    ways = {
        "assemble": lambda: assembler.assemble_pieces(pieces),
        "one memcpy": memcpy_of(items),
        "np.stack": lambda: np.stack(items),
    }
    return Case(name, ways, against, most)


def by_hand(items: list[Array]) -> tuple[Array, Array]:
    """Pad as people do."""
    lengths = np.array([len(item) for item in items])
    batch = np.full((len(items), lengths.max()), 0, np.int64)
    for i, item in enumerate(items):
        batch[i, : len(item)] = item
    return batch, lengths


def padded(name: str, items: list[Array], most: float) -> Case:
    assembler = Assembler(axis=0, give="lengths")
    pieces = [assembler.prepare_item(item) for item in items]
    for ours, theirs in zip(assembler.assemble_pieces(pieces), by_hand(items), strict=True):
        if not np.array_equal(ours, theirs):
            raise SystemExit("the contenders do not make the same batch")
    whole = np.zeros((len(items), max(map(len, items))), np.int64)
    ways = {
        "assemble": lambda: assembler.assemble_pieces(pieces),
        "one memcpy": memcpy_of(list(whole)),
        "np.full and slices": lambda: by_hand(items),
    }
    return Case(name, ways, "np.full and slices", most)


def prepared(name: str, item: Any) -> Case:
    assembler = Assembler()
    return Case(name, {"prepare": lambda: assembler.prepare_item(item)}, None, 0, wanted=False)


def cases() -> list[Case]:
    random = np.random.default_rng(0)
    tokens = [random.integers(0, 30_000, int(length)) for length in random.integers(5, 513, 64)]
    return [
        stacked("64 float32 (3, 224, 224)", [random.random((3, 224, 224), np.float32) for _ in range(64)], 1.1),
        stacked("64 float32 (384,)", [random.random(384, np.float32) for _ in range(64)], 3_000, against=None),
        stacked("512 int64 (16,)", [random.integers(0, 9, 16) for _ in range(512)], 4.0),
        padded("64 int64 of 5 to 512", tokens, 1 / 6),
        prepared("an array like the last", np.zeros(384, np.float32)),
        prepared("a dict of two arrays", {"ids": np.zeros(9, np.int64), "mask": np.zeros(9, np.int64)}),
        prepared("a float", 1.5),
        prepared("a list of 16 floats", [1.5] * 16),
    ]


def measure(case: Case, rounds: int) -> dict[str, list[float]]:
    once_ns = {name: min(timed(way, 1) for _ in range(5)) for name, way in case.ways.items()}
    times = {name: max(1, int(2e6 / once)) for name, once in once_ns.items()}
    taken: dict[str, list[float]] = {name: [] for name in case.ways}
    for turn in range(rounds):
        names = list(case.ways)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken[name].append(timed(case.ways[name], times[name]))
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, {os.cpu_count()} cores\n")
    missed = 0
    for case in cases():
        taken = measure(case, options.rounds)
        figures = ", ".join(f"{name} {median(values) / 1e3:,.2f} us" for name, values in taken.items())
        line = f"{case.name:25} {figures}"
        if case.wanted:
            ours = taken["assemble"]
            theirs = [1.0] * len(ours) if case.against is None else taken[case.against]
            ratio = median([one / other for one, other in zip(ours, theirs, strict=True)])
            kept = ratio <= case.most
            missed += not kept
            bar = f"{case.most:,} ns" if case.against is None else f"{case.most:.3g} of {case.against}"
            line += f"; {ratio:,.2f}, at most {bar}: {'kept' if kept else 'MISSED'}"
        print(line)
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
