"""What several commands accept: checked numbers, traffic, and what a batch costs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from pybatch.simulation import Service, Workload

__all__ = [
    "COST",
    "TRAFFIC",
    "CannotRun",
    "Commands",
    "add_cost",
    "add_traffic",
    "cost_of",
    "needs",
    "number",
    "traffic_of",
]

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Number = TypeVar("Number", int, float)

TRAFFIC = """\
traffic (several at once are added up):
  --poisson 420          420 requests/s from independent callers
  --gamma 420:4          the same, burstier: gaps with a variation (CV) of 4
  --mmpp 900:100:200     900/s and 100/s in turns of 200 ms on average
  --bursts 60:8-24       8 to 24 at once, every 60 ms on average
  --closed 16            16 clients that each wait for their answer
  --closed 16:5          ... and then think for 5 ms on average
  --trace traffic.csv    recorded: a column arrival_ms; or .npy, .npz"""

COST = """\
cost of a batch:
  --cost 1:6.1,8:14,32:39    6.1 ms for 1 item, 14 ms for 8, 39 ms for 32
  --profile resnet           one that others measured: resnet, bert, v100,
                             cpu or efficientnet-b7"""


class CannotRun(Exception):
    """The command was understood and cannot be done; the text says why and what to do."""


def number(kind: Callable[[str], Number], low: Number, high: Number) -> Callable[[str], Number]:
    """Return the argparse type of a number from `low` to `high`, both included."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        if not low <= value <= high:  # written so that NaN is refused too
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return parse


@contextmanager
def needs(command: str, what: str, extra: str, *packages: str) -> Iterator[None]:
    """Say how to install `extra` if one of its `packages` is missing; the error of any other passes.

    Raises
    ------
    CannotRun
        If one is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in packages:
            raise
        raise CannotRun(f"pybatch {command} needs {what}: pip install 'batchcore[{extra}]'") from None


def add_traffic(parser: argparse.ArgumentParser) -> None:
    """Add the options that say when requests come; `traffic_of` reads them."""
    group = parser.add_argument_group("traffic")
    for name, form, text in (
        ("poisson", "RATE", "independent callers, requests/s"),
        ("gamma", "RATE:CV", "gaps of a given coefficient of variation"),
        ("mmpp", "HIGH:LOW[:MS]", "two rates in turns of MS on average (default: 200)"),
        ("bursts", "MS[:N-M[:GAP]]", "N to M (default: 8-24) every MS, GAP ms apart (default: 0.1)"),
        ("closed", "N[:THINK]", "clients that wait for answers, and then THINK ms (default: 0.3)"),
        ("trace", "FILE", "recorded traffic: .csv, .npy or .npz"),
    ):
        group.add_argument(f"--{name}", action="append", type=_Described(name), dest="traffic", metavar=form, help=text)


class _Described:
    """The argparse type of traffic, which is made when what makes it has been imported."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, text: str) -> tuple[str, str]:
        return self.name, text


def traffic_of(args: argparse.Namespace) -> Workload:
    """Return the workload that the options describe.

    Raises
    ------
    ValueError
        If there is none, or one is not as it must be; the text names the option.
    """
    from pybatch.simulation import Mixed

    if not args.traffic:
        raise ValueError("say when requests come: --poisson 420, --closed 16, --trace FILE or another; see --help")
    parts = []
    for name, text in args.traffic:
        try:
            parts.append(_workload(name, text))
        except (OSError, TypeError, ValueError) as error:
            raise ValueError(f"argument --{name}: {error}") from None
    return parts[0] if len(parts) == 1 else Mixed(*parts)


def _workload(name: str, text: str) -> Workload:
    from pybatch.simulation import MMPP, Bursts, ClosedLoop, Gamma, Poisson, Trace

    match name:
        case "trace":
            trace = Trace.load(text)
            if len(trace) < 2:
                raise ValueError(f"{text} has fewer than 2 requests, and so no rate")
            return trace
        case "poisson":
            return Poisson(*_fields(text, "RATE", "420", float))
        case "gamma":
            return Gamma(*_fields(text, "RATE:CV", "420:4", float, float))
        case "mmpp":
            high, low, *mean_ms = _fields(text, "HIGH:LOW[:MS]", "900:100:200", float, float, float, optional=1)
            return MMPP((high, low), (mean_ms[0], mean_ms[0]) if mean_ms else (200.0, 200.0))
        case "bursts":
            return Bursts(*_fields(text, "MS[:N-M[:GAP]]", "60:8-24", float, _span, float, optional=2))
    clients, *think_ms = _fields(text, "N[:THINK_MS]", "16", int, float, optional=1)
    return ClosedLoop(clients, think_ms=think_ms[0] if think_ms else 0.3)


def _fields(text: str, form: str, example: str, *kinds: Callable[[str], Any], optional: int = 0) -> list[Any]:
    """Return what stands between the colons; the last `optional` ones may be missing."""
    fields = text.split(":")
    try:
        if not len(kinds) - optional <= len(fields) <= len(kinds):
            raise ValueError
        return [kind(field) for kind, field in zip(kinds, fields, strict=False)]
    except ValueError:
        raise ValueError(f"{text!r} is not of the form {form}, for example {example}") from None


def _span(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return int(low), int(high or low)


def add_cost(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what a batch costs; `cost_of` reads them."""
    group = parser.add_argument_group("cost of a batch")
    group.add_argument("--cost", metavar="SIZE:MS,...", help="milliseconds of batches of some sizes")
    group.add_argument("--profile", metavar="NAME", help="resnet, bert, v100, cpu or efficientnet-b7")


def cost_of(args: argparse.Namespace) -> Service | None:
    """Return the service model that the options describe; None if there is none.

    Raises
    ------
    ValueError
        If it is not as it must be, or there are two; the text names the option.
    """
    from pybatch.simulation import PROFILES, Service

    if args.cost is not None and args.profile is not None:
        raise ValueError("argument --profile: not allowed with argument --cost")
    if args.profile is not None:
        if args.profile not in PROFILES:
            raise ValueError(f"argument --profile: there is no {args.profile!r}; there are {', '.join(PROFILES)}")
        return PROFILES[args.profile]
    if args.cost is None:
        return None
    try:
        points = {int(size): float(ms) for size, ms in (point.split(":") for point in args.cost.split(","))}
    except ValueError:
        raise ValueError(
            f"argument --cost: {args.cost!r} is not of the form SIZE:MS,SIZE:MS, for example 1:6.1,32:38.8"
        ) from None
    try:
        if min(points.values()) <= 0.0:
            raise ValueError(f"{min(points.values()):g} ms is no time; a batch takes more than 0")
        return Service.table(points)
    except ValueError as error:
        raise ValueError(f"argument --cost: {error}") from None
