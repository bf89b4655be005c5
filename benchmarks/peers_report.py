"""What `peers.py` tells: the bars, the page and the plot."""

import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl  # pyright: ignore[reportMissingImports]
from matplotlib.figure import Figure  # pyright: ignore[reportMissingImports]
from matplotlib.layout_engine import ConstrainedLayoutEngine  # pyright: ignore[reportMissingImports]

from field import ASYNCIO, IDLE, SATURATED, THREADS, Contender

OURS = "pybatch"
OURS_COLOUR, PEER_COLOUR, OTHER_COLOUR = "#d9480f", "#5c7cfa", "#adb5bd"

INTRODUCTION = """\
# Against the batchers that one can install

What a request costs on its way to a no-op `fn` and back: CPU time of all threads, and wall time.

`make bench-peers` made this page in one run: {machine}. Figures are medians; rounds: {rounds}.
In each round every contender runs once, about {seconds:g} s a load, in a process of its own and in another order.

![CPU time of a request under a full queue, and time of an idle round trip](peers.svg)
"""

CAVEATS = """\
## How to read this

- **Saturated**: 1,024 requests are outstanding all the time. Threads: one thread takes the oldest answer, then submits
  the next request. asyncio: 1,024 tasks, each awaiting one request at a time; `fn` is an `async def`. Where CPU time is
  less than wall time, the contender slept or waited for a core.
- **Idle round trip**: one caller, one request at a time, windows closed.
- A peer has the settings that cost it least: saturated, the better of its default window and 1 ms; idle, none, or
  `max_batch_size=1` where that is quicker.
- The adapters are in [benchmarks/contenders](../benchmarks/contenders), one small file each, and say how each peer is
  driven and what was made easy for it: Ray's decorator runs without a cluster, LitServe's loop without its processes
  and with its `fn` on a thread, since it takes no `async def` for batches.
- "by hand" is the batcher that one writes in thirty lines; "one at a time" calls `fn` for each item. Neither has a
  bound, deadlines, metrics or a wait for company.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """What a request takes of one contender, the median over the rounds."""

    contender: Contender
    version: str
    cpu_us: float
    wall_us: float


@dataclass(frozen=True, slots=True)
class Table:
    """All contenders of a path under one load."""

    path: str
    load: str
    rows: list[Row]

    @property
    def ours(self) -> Row:
        return next(row for row in self.rows if row.contender.name == OURS)

    @property
    def ranked(self) -> list[Row]:
        """The cheapest first: by wall time where one waits for it, by CPU time under a full queue."""
        return sorted(self.rows, key=lambda row: row.wall_us if self.load == IDLE else row.cpu_us)

    def times_cpu(self, row: Row) -> float:
        return row.cpu_us / self.ours.cpu_us

    def times_wall(self, row: Row) -> float:
        return row.wall_us / self.ours.wall_us


@dataclass(frozen=True, slots=True)
class Promise:
    """That with ``max_batch_size=64`` the best of some peers takes at least `least` times our CPU time."""

    path: str
    of_whom: str
    least: float


PROMISES = [
    Promise(THREADS, "the best peer", 20.0),
    Promise(ASYNCIO, "the best peer with a queue and a wait window", 4.0),
]


@dataclass(frozen=True, slots=True)
class Bar:
    """What became of a promise, and what the peers that it is not about would have made of it."""

    promise: Promise
    best: str
    times: float
    uncounted: Mapping[str, tuple[float, str]]

    @property
    def met(self) -> bool:
        return self.times >= self.promise.least

    def __str__(self) -> str:
        found = f"{self.promise.of_whom}, {self.best}, takes {self.times:.1f} times the CPU time of {OURS}"
        return f"{'met' if self.met else 'MISSED'}: {self.promise.path}: {found} (at least {self.promise.least:g})"


def bars(tables: list[Table]) -> Iterator[Bar]:
    """Judge the promises; one whose peers did not run is left out."""
    for promise in PROMISES:
        table = next(table for table in tables if (table.path, table.load) == (promise.path, SATURATED[64]))
        peers = [row for row in table.ranked if row.contender.requirement]
        counted = [row for row in peers if not row.contender.uncounted]
        if counted:
            best = counted[0]
            others = {
                row.contender.name: (table.times_cpu(row), row.contender.uncounted)
                for row in peers
                if row.contender.uncounted
            }
            yield Bar(promise, best.contender.name, table.times_cpu(best), others)


def figure(number: float) -> str:
    """Write three digits, or all before the point."""
    return f"{number:,.{2 if number < 10 else 1 if number < 100 else 0}f}"


def grid(heads: list[str], rows: Iterable[list[str]], numbers: int) -> Iterator[str]:
    """Lay out a markdown table whose last columns are `numbers`."""
    yield f"| {' | '.join(heads)} |"
    yield f"|{'|'.join(['---'] * (len(heads) - numbers) + ['---:'] * numbers)}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def settings(contender: Contender, chosen: Mapping[str, float] | None, max_batch_size: int | None = None) -> str:
    if chosen is None:
        return "not run"
    sizes = {} if max_batch_size is None else {"max_batch_size": float(max_batch_size)}
    return ", ".join(f"`{name}={value:g}`" for name, value in {**chosen, **sizes}.items())


def page(tables: list[Table], judged: list[Bar], rounds: int, seconds: float) -> str:
    """Write the page as markdown."""
    machine = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    lines = [INTRODUCTION.format(machine=machine, rounds=rounds, seconds=seconds)]
    lines += ["## The bars\n"] if judged else []
    for bar in judged:
        lines.append(f"- {bar}")
        lines += [
            f"    - not counted: {name}, {times:.1f} times: {why}" for name, (times, why) in bar.uncounted.items()
        ]
    lines += ["", CAVEATS]
    versions: dict[tuple[str, str], Row] = {}
    for table in tables:
        lines.append(f"## {table.path}: {table.load}\n")
        heads = ["contender", "version", "CPU us", "times ours", "wall us", "times ours"]
        body = []
        for row in table.ranked:
            versions[table.path, row.contender.name] = row
            name = f"**{OURS}**" if row is table.ours else row.contender.name
            version = row.version if row is table.ours or row.contender.requirement else ""
            costs = [row.cpu_us, table.times_cpu(row), row.wall_us, table.times_wall(row)]
            body.append([name, version, *map(figure, costs)])
        lines += grid(heads, body, numbers=4)
    lines.append("## Settings\n")
    heads = ["contender", "path", "requirement", "saturated", "idle"]
    body = [
        [
            row.contender.name,
            path,
            f"`{row.contender.requirement}`",
            settings(row.contender, row.contender.saturated),
            settings(row.contender, row.contender.idle, row.contender.idle_batch_size),
        ]
        for (path, _), row in versions.items()
        if row.contender.requirement
    ]
    lines += grid(heads, body, numbers=0)
    return "\n".join(lines)


def colour(contender: Contender) -> str:
    if contender.name == OURS:
        return OURS_COLOUR
    return PEER_COLOUR if contender.requirement else OTHER_COLOUR


def plot(tables: list[Table], path: Path) -> None:
    """Draw a column of bars a load, a row a path, on logarithmic scales."""
    by_case = {(table.path, table.load): table for table in tables}
    paths = [THREADS, ASYNCIO]
    heights = [len(by_case[path, SATURATED[64]].rows) for path in paths]
    # Text stays text: small, sharp, and in the reader's own font. Same figures, same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": OURS, "font.size": 9}):
        spacious = ConstrainedLayoutEngine(w_pad=0.15)  # the reader's font may be wider
        drawing = Figure(figsize=(11, 0.3 * sum(heights) + 1.8), layout=spacious, facecolor="white")
        axes = drawing.subplots(2, 2, height_ratios=heights)
        for row, each in enumerate(paths):
            for column, load in enumerate([SATURATED[64], IDLE]):
                table = by_case[each, load]
                of = "wall" if load == IDLE else "CPU"
                ranked = table.ranked[::-1]
                costs = [line.wall_us if load == IDLE else line.cpu_us for line in ranked]
                times = [(table.times_wall if load == IDLE else table.times_cpu)(line) for line in ranked]
                axis = axes[row, column]
                drawn = axis.barh(
                    [line.contender.name for line in ranked], costs, color=[colour(line.contender) for line in ranked]
                )
                labels = [f"{figure(cost)}  ({figure(by)}x)" for cost, by in zip(costs, times, strict=True)]
                axis.bar_label(drawn, labels, padding=3)
                axis.set_xscale("log")
                axis.xaxis.set_major_formatter("{x:g}")
                axis.minorticks_off()
                axis.set_xlim(min(costs) / 2, max(costs) * 5)
                axis.set_title(f"{each}: {load}, {of} us a request", fontsize=9, loc="left")
                axis.spines[["top", "right"]].set_visible(False)
        drawing.supxlabel(
            f"orange: {OURS}, blue: from PyPI, grey: by hand or no batching; logarithmic scales", fontsize=9
        )
        drawing.savefig(path, metadata={"Date": None})
