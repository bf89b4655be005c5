"""All that is told, by file and section, and the form in which it is kept.

Of a long section the first and the last lines are kept, and in between some with a digest of all lines up to them:
short enough to be read, and nothing is left out of the comparison.
"""

from __future__ import annotations

import hashlib
import re
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
    """The sections of a file; each is a title and lines that are indented."""
    sections = re.split(r"\n(?=\S)", path_of(name).read_text().rstrip("\n"))
    rows = (section.split("\n  ") for section in sections)
    return {title: lines for title, *lines in rows}


def keep(name: str) -> None:
    with path_of(name).open("w") as file:
        for title, lines in FIGURES[name].items():
            print(title, *(f"  {line}" for line in condensed(lines())), sep="\n", file=file)
