"""A progress bar on stderr, in a terminal; elsewhere one line for each thing that begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["steps"]


@contextmanager
def steps(title: str, total: int | None = None) -> Iterator[Callable[[str], None]]:
    """Show `title` and a bar; tell the function that this gives what begins, `total` times in all (None: unknown)."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        console.print(f"{title} ...")
        yield lambda step: None
        return
    columns = TextColumn("{task.description}"), BarColumn(24), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(title, total=total)
        done = -1

        def begin(step: str) -> None:
            nonlocal done
            done += 1
            progress.update(task, completed=done, description=f"{title}: {step}")

        yield begin
