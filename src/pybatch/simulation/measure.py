"""Measure what a batch of each size costs: the cost model that the simulator and the scheduler can start from.

Calls the user's function as a scheduler would, with lists of 1, 2, 4, ... items, one batch at a time.  Knows no
simulator.  The median of a size's runs is its cost: robust against a pause of the machine, and what the engine learns.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["CannotMeasure", "Measured", "Measurement", "load", "measure", "sample", "sizes_up_to"]

WARM_UP_RUNS = 2
FEWEST_RUNS, MOST_RUNS = 3, 100

NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


class CannotMeasure(Exception):
    """What was named cannot be imported, or does not compute batches; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What batches of one size took, in milliseconds: the median of `runs`, and the quarter and three quarters."""

    size: int
    median_ms: float
    low_ms: float
    high_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class Measured:
    """All sizes, smallest first; `stopped` says why there are no larger ones, None if all were measured."""

    measurements: tuple[Measurement, ...]
    stopped: str | None = None

    @property
    def cost_model(self) -> list[tuple[int, float]]:
        """Size and median milliseconds of each: what `Scheduler(cost_model=...)` and `Service.table` take."""
        return [(row.size, row.median_ms) for row in self.measurements]


def load(name: str) -> Any:
    """Import what ``module:attribute`` names, looking in the current folder first, as ``python -m`` does.

    Parameters
    ----------
    name : str
        As ``app:predict`` or ``package.module:model.predict``.

    Returns
    -------
    object

    Raises
    ------
    CannotMeasure
        If it is no such name, the import fails, or the module has no such attribute.

    Examples
    --------
    >>> load("math:sqrt")(9.0)
    3.0
    """
    if not NAME.fullmatch(name):
        raise CannotMeasure(f"{name!r} is not of the form module:function; write, for example, app:predict")
    module_name, _, path = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        remedy = f"importing {module_name!r} raised {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and error.name and module_name.startswith(error.name):
            remedy = f"there is no module {error.name!r} here; run this in the folder that has it, or install it"
        raise CannotMeasure(f"cannot load {name!r}: {remedy}") from error
    for attribute in path.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            callables = [key for key in dir(found) if key[0] != "_" and callable(getattr(found, key, None))][:8]
            hint = f"; it has {', '.join(callables)}" if callables else ""
            raise CannotMeasure(f"cannot load {name!r}: {module_name!r} has no {attribute!r}{hint}") from None
    return found


def sample(text: str, module_name: str | None = None) -> Callable[[], Any]:
    """Return what makes one item from how it was described on a command line.

    Parameters
    ----------
    text : str
        JSON (``[1.0, 2.0]``), ``module:function`` (called without arguments for each item; anything else is the item
        itself), or a Python expression, evaluated once for each item with the names of `module_name` at hand.
    module_name : str, optional
        A module that is imported already.

    Returns
    -------
    callable
        Without arguments; returns an item.

    Raises
    ------
    CannotMeasure
        If it is none of these.

    Examples
    --------
    >>> sample("[1, 2]")()
    [1, 2]
    >>> sample("bytes(3)")()
    b'\\x00\\x00\\x00'
    """
    try:
        json.loads(text)
    except ValueError:
        pass
    else:
        return lambda: json.loads(text)  # a fresh one each time: a function may write into its items
    if NAME.fullmatch(text):
        found = load(text)
        make: Callable[[], Any] = found if callable(found) else lambda: found
        return make
    names = dict(vars(sys.modules[module_name])) if module_name else {}
    try:
        code = compile(text, "<sample>", "eval")
        eval(code, names)
    except (Exception, SystemExit) as error:
        raise CannotMeasure(
            f"the sample {text!r} is neither JSON nor module:function, and as a Python expression it raised "
            f"{type(error).__name__}: {error}; text is written as JSON, in double quotes of its own: '\"hello\"'"
        ) from error
    return lambda: eval(code, names)


def sizes_up_to(max_batch_size: int) -> list[int]:
    """Return 1, 2, 4, ... and `max_batch_size` itself.

    Examples
    --------
    >>> sizes_up_to(24)
    [1, 2, 4, 8, 16, 24]
    """
    return [1 << power for power in range(max_batch_size.bit_length()) if 1 << power < max_batch_size] + [
        max_batch_size
    ]


def measure(
    fn: Callable[[list[Any]], Any],
    make_item: Callable[[], Any],
    *,
    max_batch_size: int = 32,
    seconds_per_size: float = 0.5,
    slowest_ms: float = 5000.0,
    progress: Callable[[Measurement], None] | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Measured:
    """Measure the latency of `fn` for batches of 1, 2, 4, ..., `max_batch_size` items.

    Parameters
    ----------
    fn : callable
        Takes a list of items, returns a sequence of as many results; may be ``async def``.
    make_item : callable
        Returns an item; called for each item of each batch, while no clock runs.
    max_batch_size : int, default 32
        Largest size, at least 1; the batches of a size must fit in memory.
    seconds_per_size : float, default 0.5
        Time that the runs of a size take together; there are at least 3 and at most 100 of them.
    slowest_ms : float, default 5000
        No larger size is tried when a batch takes longer than this.
    progress : callable, optional
        Told each measurement when it is there.
    clock_ns : callable, default time.perf_counter_ns
        For tests.

    Returns
    -------
    Measured

    Raises
    ------
    CannotMeasure
        If `fn` raises, or returns anything else than a sequence of as many results.

    Notes
    -----
    Two runs of each size go before those that count.  About a minute for the default sizes of a slow model.

    Examples
    --------
    >>> measured = measure(lambda xs: [x * x for x in xs], lambda: 3, max_batch_size=4, seconds_per_size=0.0)
    >>> [row.size for row in measured.measurements]
    [1, 2, 4]
    """
    measurements: list[Measurement] = []
    with asyncio.Runner() as runner:
        for size in sizes_up_to(max_batch_size):
            slow_ms = 0.0
            for _ in range(WARM_UP_RUNS):
                slow_ms = _run(runner, fn, [make_item() for _ in range(size)], clock_ns) / 1e6
            took_ns: list[int] = []
            while len(took_ns) < FEWEST_RUNS or (sum(took_ns) < seconds_per_size * 1e9 and len(took_ns) < MOST_RUNS):
                took_ns.append(_run(runner, fn, [make_item() for _ in range(size)], clock_ns))
                if slow_ms > slowest_ms:
                    break  # one more was enough to know that it was not the first call alone
            low, median, high = (
                statistics.quantiles(took_ns, n=4, method="inclusive") if len(took_ns) > 1 else took_ns * 3
            )
            measurements.append(Measurement(size, median / 1e6, low / 1e6, high / 1e6, len(took_ns)))
            if progress:
                progress(measurements[-1])
            if median > slowest_ms * 1e6 and size < max_batch_size:
                return Measured(
                    tuple(measurements),
                    f"a batch of {size} takes {median / 1e6:,.0f} ms, more than {slowest_ms:,.0f} ms: "
                    f"no larger one was tried",
                )
    return Measured(tuple(measurements))


def _run(runner: asyncio.Runner, fn: Callable[[list[Any]], Any], items: list[Any], clock_ns: Callable[[], int]) -> int:
    """Return the nanoseconds that one batch takes."""
    size = len(items)
    try:
        if inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(getattr(fn, "__call__", None)):  # noqa: B004
            results, took_ns = runner.run(_run_async(fn, items, clock_ns))
        else:
            began_ns = clock_ns()
            results = fn(items)
            took_ns = clock_ns() - began_ns
    except Exception as error:
        raise CannotMeasure(
            f"the function raised {type(error).__name__} for a batch of {size}: {error}; it gets a list of {size} "
            f"{'item' if size == 1 else 'items'} as the sample describes one"
        ) from error
    if isinstance(results, (str, bytes, dict)) or not (hasattr(results, "__len__") and hasattr(results, "__getitem__")):
        raise CannotMeasure(
            f"the function must return a sequence of results, one for each item; for a batch of {size} it returned "
            f"{type(results).__name__}"
        )
    if len(results) != size:
        raise CannotMeasure(
            f"the function returned {len(results)} results for a batch of {size}; it takes a list of items and must "
            "return one result for each, in their order"
        )
    for result in results:
        if isinstance(result, BaseException):
            raise CannotMeasure(
                f"the function returned {result!r} as a result for a batch of {size}; is the sample right?"
            )
    return took_ns


async def _run_async(
    fn: Callable[[list[Any]], Awaitable[Any]], items: list[Any], clock_ns: Callable[[], int]
) -> tuple[Any, int]:
    began_ns = clock_ns()  # in the running loop: starting and ending a task is not the function's time
    results = await fn(items)
    return results, clock_ns() - began_ns
