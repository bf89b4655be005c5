"""``pybatch tune``: find the setting for your traffic, your function and your latency goal, and write a report."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchcore.engine import MAX_BATCH_SIZE
from pybatch.commands.arguments import (
    COST,
    TRAFFIC,
    CannotRun,
    Commands,
    add_cost,
    add_traffic,
    cost_of,
    needs,
    number,
    traffic_of,
)
from pybatch.options import MAX_MS

if TYPE_CHECKING:
    from pybatch.simulation import Service
    from pybatch.simulation.findings import Findings
    from pybatch.simulation.measure import Measured
    from pybatch.simulation.tune import Setting, Tuned

__all__ = ["add"]

LARGEST_GUESSED = 64
"""Batch size up to which a profile is searched: what it says of larger ones nobody measured."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    line = "find the setting for your traffic, function and latency goal"
    parser = commands.add_parser(
        "tune",
        help=line,
        description=f"""{line.capitalize()}.

Measures what batches of your function cost, or takes what you say; simulates
settings of the scheduler with your traffic; says what to write, what it gains
over what you have, and what the limit is; and writes a report with plots, one
HTML file that needs no network.""",
        epilog=f"""\
{TRAFFIC}

{COST}
  app:predict --sample '[0.5, 1.5]'
                             measured: predict of app.py, given lists of
                             such items; the sample is JSON, or
                             module:function, or a Python expression that
                             may use the names in app.py

examples:
  pybatch tune --poisson 420 --profile resnet --goal-ms 50
  pybatch tune app:predict --sample 'numpy.zeros((3, 224, 224))'
               --trace traffic.csv --goal-ms 100 --max-workers 4
  pybatch tune --cost 1:6.1,32:39 --closed 16 --goal-ms 50
               --present max_batch_size=8,max_wait_ms=5
  pybatch tune --poisson 1200 --profile resnet --goal-ms 50 --drop-late
               --share 0.95 --json

Exits with 1 if nothing that was tried keeps the goal.
Needs: pip install 'batchcore[tune]'""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("function", nargs="?", metavar="MODULE:FUNCTION", help="what to measure; else give its cost")
    parser.add_argument("--sample", metavar="ITEM", help="one item, for measuring")
    add_traffic(parser)
    add_cost(parser)

    def option(name: str, kind: Any, default: Any, unit: str, text: str) -> None:
        text += "" if default is None else " (default: %(default)s)"
        group.add_argument(name, type=kind, default=default, metavar=unit, help=text)

    group = parser.add_argument_group("goal")
    group.add_argument(
        "--goal-ms", type=number(float, 0.001, MAX_MS), required=True, metavar="MS", help="time from submit to answer"
    )
    option("--share", number(float, 0.5, 1.0), 0.99, "SHARE", "of the requests that keep it; 0.99 is p99")
    group.add_argument(
        "--drop-late",
        action="store_true",
        help="late answers are worthless: give requests a timeout, so that hopeless ones fail and others make it",
    )
    group = parser.add_argument_group("search")
    option(
        "--max-batch-size", number(int, 1, MAX_BATCH_SIZE), None, "N", "largest that fits; default: as far as costs go"
    )
    option("--max-workers", number(int, 1, 256), 1, "N", "most batches at once that the machine can really run")
    group.add_argument("--present", metavar="NAME=VALUE,...", help="what you use now, to compare with")
    option("--requests", number(int, 1_000, 10_000_000), 20_000, "N", "simulated a run")
    option("--seed", number(int, 0, 2**32 - 1), 0, "N", "of all that is random")
    group = parser.add_argument_group("output")
    group.add_argument(
        "--report", type=Path, default=Path("tune.html"), metavar="FILE", help="where to write it (default: tune.html)"
    )
    group.add_argument("--no-report", action="store_true", help="write none")
    group.add_argument("--json", action="store_true", help="print one JSON object, units in its keys, not tables")
    parser.set_defaults(run=partial(_run, parser))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    with needs("tune", "plotly and rich", "tune", "plotly", "rich"):
        from pybatch.commands.progress import steps
        from pybatch.simulation.report import html
        from pybatch.simulation.tune import Goal, Task, tune
        from pybatch.simulation.verdict import findings
    if not args.no_report and not args.report.absolute().parent.is_dir():
        parser.error(f"argument --report: there is no folder {args.report.absolute().parent}")
    if not args.no_report and args.report.is_dir():
        parser.error(f"argument --report: {args.report} is a folder; name a file in it")
    try:
        workload, service = traffic_of(args), cost_of(args)
        present = _setting(args.present) if args.present else None
    except ValueError as error:
        parser.error(str(error))
    if (service is None) == (args.function is None):
        parser.error("say what a batch costs, in one way: MODULE:FUNCTION with --sample, --cost or --profile")
    measured = None
    if service is None:
        measured, service = _measured(parser, args)
    task = Task(
        workload,
        service,
        Goal(args.goal_ms, args.share),
        max_batch_size=_largest(args, service, measured),
        max_workers=args.max_workers,
        drop_late=args.drop_late,
        requests=args.requests,
        seed=args.seed,
    )
    try:
        with steps("searching") as begin:
            tuned = tune(task, present=present, progress=begin)
        with steps("comparing") as begin:
            found = findings(tuned, fn=args.function or "fn", measured=measured, progress=begin)
    except ValueError as error:
        raise CannotRun(f"this traffic cannot be tuned for: {error}") from error
    failure = None
    if not args.no_report:
        try:
            args.report.write_text(html(found), encoding="utf-8")
        except OSError as error:
            failure = error
    if args.json:
        print(json.dumps(_as_json(tuned, found), indent=2))
    else:
        _show(found, None if args.no_report or failure else args.report)
    if failure:
        raise CannotRun(f"the report cannot be written: {failure}; choose another place with --report")
    return 0 if tuned.kept else 1


def _measured(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Measured, Service]:
    from pybatch.commands.progress import steps
    from pybatch.simulation import Service
    from pybatch.simulation.measure import CannotMeasure, load, measure, sample, sizes_up_to

    if args.sample is None:
        parser.error("argument --sample: an item to measure the function with, for example --sample '[0.5, 1.5]'")
    most = args.max_batch_size or LARGEST_GUESSED
    try:
        fn = load(args.function)
        make_item = sample(args.sample, args.function.partition(":")[0])
        sizes = sizes_up_to(most)
        with steps("measuring", len(sizes)) as begin:
            begin("a batch of 1")
            measured = measure(
                fn,
                make_item,
                max_batch_size=most,
                progress=lambda row: begin(f"more than {row.size}, {row.median_ms:.3g} ms"),
            )
    except CannotMeasure as error:
        raise CannotRun(f"cannot measure: {error}") from error
    return measured, Service.table(dict(measured.cost_model))


def _largest(args: argparse.Namespace, service: Service, measured: Measured | None) -> int:
    """Return the largest batch that is known to be possible: none that was not measured or spoken of, unless told."""
    if measured or args.cost or args.profile == "efficientnet-b7":
        known = service.points[-1][0]
        return min(known, args.max_batch_size or known)
    return args.max_batch_size or LARGEST_GUESSED


def _setting(text: str) -> Setting:
    """Return a setting from how it would be written in a call of Scheduler."""
    from pybatch.simulation.tune import Setting

    kinds: dict[str, Any] = {
        "max_batch_size": int,
        "policy": str,
        "max_wait_ms": float,
        "max_latency_ms": float,
        "max_concurrent_batches": int,
        "timeout_ms": float,
    }
    values: dict[str, Any] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in kinds:
            raise ValueError(f"argument --present: {name.strip()!r} is none of {', '.join(kinds)}")
        try:
            values[name.strip()] = kinds[name.strip()](value.strip().strip("'\""))
        except ValueError:
            raise ValueError(
                f"argument --present: {part!r} is not of the form max_batch_size=8,max_wait_ms=5"
            ) from None
    setting = Setting(**values)
    if "policy" not in values and setting.max_wait_ms is not None:
        setting = replace(setting, policy="fixed")
    try:
        setting.check()
    except ValueError as error:
        raise ValueError(f"argument --present: {error}") from None
    return setting


def _as_json(tuned: Tuned, found: Findings) -> dict[str, Any]:
    def row(name: str) -> dict[str, Any]:
        trial = tuned.compared[name]
        return {
            "setting": asdict(trial.setting),
            "summary": asdict(trial.summary),
            "largest_load": trial.largest * found.present,
        }

    return {
        "verdict": found.verdict,
        "code": found.code,
        "goal_kept": tuned.kept,
        "goal_ms": found.goal_ms,
        "share": found.share,
        "load": {"unit": found.unit, "value": found.present},
        "limit": found.limit,
        "facts": [asdict(fact) for fact in found.facts],
        "explanation": found.explanation,
        "cost_model": list(zip(found.cost.size, found.cost.ms, strict=True)),
        **{name.replace(" ", "_"): row(name) for name in tuned.compared},
    }


def _show(found: Findings, report: Path | None) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(found.verdict)
    console.print(Padding(found.code, (1, 4), expand=False), style="bold")
    for fact in found.facts:
        console.print(f"{fact.name}: {fact.value}" + (f" ({fact.detail})" if fact.detail else ""))
    console.print()
    for sentence in found.explanation:
        console.print(sentence)
    console.print()
    narrow = [index for index, name in enumerate(found.columns) if name not in ("p95", "mean batch")]
    table = Table(*(found.columns[index] for index in narrow), box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for index, row in enumerate(found.rows):
        table.add_row(*(row[column] for column in narrow), style="bold" if index == 0 else None)
    console.print(table)
    if report:
        console.print(f"\nreport with plots: {report}")
