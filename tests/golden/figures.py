"""All that is told, by file and section, and the form in which it is kept.

Of a long section the first lines are kept, then every so manieth with a digest of all lines up to it, and the last ones:
short enough to be read, and nothing is left out of the comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from learning import LEARNING
from simulations import SIMULATIONS
from stepped import STEPPED
from stories import STORIES

FIGURES = {"stories": STORIES, "learning": LEARNING, "simulations": SIMULATIONS, "stepped": STEPPED}

SHORT, FIRST, EVERY, LAST = 70, 25, 200, 12
"""Lines: a section of so many is kept whole; of a longer one so many at the start and at the end, and in between."""


def path_of(name: str) -> Path:
    return Path(__file__).parent / "kept" / f"{name}.txt"


def condensed(lines: Iterable[str]) -> Iterator[str]:
    whole = list(lines)
    digest = hashlib.sha256()
    for number, line in enumerate(whole, 1):
        digest.update(f"{line}\n".encode())
        if len(whole) <= SHORT or number <= FIRST or number > len(whole) - LAST:
            yield line
        elif number % EVERY == 0 or number == len(whole) - LAST:
            yield f"line {number}, {digest.hexdigest()[:16]} so far: {line}"


def kept(name: str) -> dict[str, list[str]]:
    """The sections of a file."""
    sections: dict[str, list[str]] = {}
    for line in path_of(name).read_text().splitlines():
        if line.startswith("  "):
            sections[title].append(line[2:])
        else:
            title = line
            sections[title] = []
    return sections


def keep(name: str) -> None:
    with path_of(name).open("w") as file:
        for title, lines in FIGURES[name].items():
            print(title, *(f"  {line}" for line in condensed(lines())), sep="\n", file=file)
