"""Every machine, Python and compiler finds the figures that are kept here, bit for bit; `make.py` writes them."""

from __future__ import annotations

from itertools import zip_longest

import pytest
from figures import FIGURES, condensed, kept, path_of

from batchcore.records import REASONS

KEPT = {name: kept(name) for name in FIGURES}


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_told_is_what_is_kept(name: str) -> None:
    assert list(KEPT[name]) == list(FIGURES[name])


@pytest.mark.parametrize(("name", "title"), [(name, title) for name in FIGURES for title in FIGURES[name]])
def test_the_figures_are_those_that_are_kept(name: str, title: str) -> None:
    before = "the start"
    for was, found in zip_longest(KEPT[name].get(title, []), condensed(FIGURES[name][title]())):
        if found != was:
            pytest.fail(
                f"{path_of(name)}, {title!r}: the first difference is after\n  {before}\nwhere is kept\n  {was}\n"
                f"and found\n  {found}\n`python tests/golden/make.py {name} {title!r}` prints all lines",
                pytrace=False,
            )
        before = was


def test_batches_of_every_reason_are_told() -> None:
    told = "\n".join(line for lines in KEPT["stories"].values() for line in lines)
    assert [reason for reason in REASONS if f"{reason}=" not in told] == []
