"""``pybatch simulate``: what policies make of traffic, in virtual time; one scenario, or the whole suite."""

from __future__ import annotations

import argparse
import json
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from batchcore.engine import MAX_BATCH_SIZE
from pybatch.commands.arguments import (
    COST,
    TRAFFIC,
    Commands,
    add_cost,
    add_traffic,
    cost_of,
    needs,
    number,
    traffic_of,
)
from pybatch.options import MAX_CONCURRENT_BATCHES, MAX_MS

if TYPE_CHECKING:
    from pybatch.simulation import Service, Summary, Workload
    from pybatch.simulation.suite import Outcome, Scenario

__all__ = ["add"]

POLICIES = ("adaptive", "immediate", "fixed")
MEASURES = {
    "mean_ms": ("mean latency, ms", 1.0, -1.0),
    "per_second": ("answers a second", 1.0, 1.0),
    "good": ("answered in time, %", 100.0, 1.0),
}
"""How a scenario's figure is shown, by what factor, and whether more of it is better."""

WIDE = 160


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    line = "what policies make of your traffic, in virtual time"
    parser = commands.add_parser(
        "simulate",
        help=line,
        description=f"""{line.capitalize()}.

The engine that serves is run against a model of your traffic and of what a
batch costs: hours in a second, and the same figures on every machine.""",
        epilog=f"""\
{TRAFFIC}

{COST}

examples:
  pybatch simulate --poisson 420 --profile resnet
  pybatch simulate --closed 16 --profile bert --policy adaptive fixed
                   --max-wait-ms 5
  pybatch simulate --trace traffic.csv --cost 1:6.1,32:39 --slo-ms 50
                   --timeout-ms 50 --workers 2 --json
  pybatch simulate --suite               every policy in every situation that
                                         is known to be hard, in a minute
  pybatch simulate --suite --seeds 5 --only overload

Needs: pip install 'batchcore[tune]'""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_traffic(parser)
    add_cost(parser)
    group = parser.add_argument_group("scheduler")
    group.add_argument(
        "--policy",
        nargs="+",
        metavar="NAME",
        help="one or more to compare: adaptive, immediate, fixed, or the rule of another batcher: bentoml, clipper, "
        "clockwork, symphony, triton; or your own as module:name, a function of a view, a Policy or a class of them "
        "(default: adaptive immediate)",
    )

    def option(name: str, kind: Any, default: Any, unit: str, text: str) -> None:
        text += " (default: none)" if default is None else " (default: %(default)s)"
        group.add_argument(name, type=kind, default=default, metavar=unit, help=text)

    ms = number(float, 0.0, MAX_MS)
    option("--max-batch-size", number(int, 1, MAX_BATCH_SIZE), 32, "N", "most requests in a batch")
    option("--max-wait-ms", ms, None, "MS", "longest wait for company; policy fixed needs it")
    option("--max-latency-ms", ms, None, "MS", "target that waiting must not break")
    option("--workers", number(int, 1, MAX_CONCURRENT_BATCHES), 1, "N", "batches that may run at once")
    option("--timeout-ms", ms, None, "MS", "fail requests that cannot be answered by then")
    option("--slo-ms", ms, None, "MS", "count answers within this, without failing others")
    group = parser.add_argument_group("run")
    option("--requests", number(int, 10, 100_000_000), None, "N", "length of the run; else a trace once, or 20000")
    option("--seed", number(int, 0, 2**32 - 1), 0, "N", "of all that is random")
    group.add_argument("--suite", action="store_true", help="run the whole suite of scenarios instead of one")
    group.add_argument("--only", metavar="TEXT", help="with --suite: those whose name contains it")
    option("--seeds", number(int, 1, 1000), 3, "N", "with --suite: runs of each scenario, and the spread of them")
    group.add_argument("--json", action="store_true", help="print one JSON object, units in its keys, not tables")
    parser.set_defaults(run=partial(_run, parser))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    with needs("simulate", "rich", "tune", "rich"):
        import rich.progress  # noqa: F401

        import pybatch.simulation  # noqa: F401
    if args.suite:
        return _suite(parser, args)
    try:
        workload, service = traffic_of(args), cost_of(args)
    except ValueError as error:
        parser.error(str(error))
    if service is None:
        parser.error("say what a batch costs: --cost 1:6.1,32:38.8 or --profile resnet")
    return _one(parser, args, workload, service)


def _one(parser: argparse.ArgumentParser, args: argparse.Namespace, workload: Workload, service: Service) -> int:
    from pybatch.commands.progress import steps
    from pybatch.simulation import simulate

    names = args.policy or ["adaptive", "immediate"]
    summaries: dict[str, Summary] = {}
    with steps("simulating", len(names)) as begin:
        for name in names:
            begin(name)
            try:
                summaries[name] = simulate(
                    workload,
                    service,
                    policy=_policy(name, args, service),
                    max_batch_size=args.max_batch_size,
                    max_wait_ms=args.max_wait_ms if name in ("fixed", "adaptive") else None,
                    max_latency_ms=args.max_latency_ms,
                    workers=args.workers,
                    timeout_ms=args.timeout_ms,
                    slo_ms=args.slo_ms,
                    requests=args.requests,
                    seed=args.seed,
                ).summary()
            except (TypeError, ValueError) as error:
                if ":" in name:  # a policy of the user's own: where it went wrong is what they need
                    traceback.print_exc()
                parser.error(f"policy {name}: {error}")
    limits = _limits(args, workload, service)
    if args.json:
        print(
            json.dumps({"policies": {name: asdict(row) for name, row in summaries.items()}, "limits": limits}, indent=2)
        )
    else:
        _show_one(summaries, limits)
    return 0


def _policy(name: str, args: argparse.Namespace, service: Service) -> Any:
    if name in POLICIES:
        return name
    from pybatch.simulation.rivals import RIVALS
    from pybatch.simulation.suite import service_ms

    if ":" in name:
        from pybatch.simulation.measure import CannotMeasure, load

        try:
            own = load(name)
        except CannotMeasure as error:
            raise ValueError(str(error)) from error
        return own() if isinstance(own, type) else own
    if name not in RIVALS:
        raise ValueError(f"there is no such policy; there are {', '.join((*POLICIES, *RIVALS))}, and module:name")
    goal_ms = args.slo_ms or args.timeout_ms or args.max_latency_ms
    if goal_ms is None:
        raise ValueError("it is made for a latency goal; give --slo-ms")
    return RIVALS[name](goal_ms, service_ms(service, args.max_batch_size))


def _limits(args: argparse.Namespace, workload: Workload, service: Service) -> dict[str, float]:
    """Return what no policy can pass, by its name with its unit."""
    from pybatch.simulation.references import saturated_per_second
    from pybatch.simulation.suite import Scenario, reference, service_ms

    slo_ms = args.timeout_ms if args.slo_ms is None else args.slo_ms
    times = service_ms(service, args.max_batch_size)
    limits = {"saturated_per_second": saturated_per_second(times, workers=args.workers)}
    for measure in ("mean_ms", "per_second"):
        scenario = Scenario(
            "this", workload, service, slo_ms or 0.0, measure, max_batch_size=args.max_batch_size, workers=args.workers
        )
        found = reference(scenario)
        if found:
            limits[f"{found[0]}_{measure}"] = found[1]
    return limits


def _show_one(summaries: dict[str, Summary], limits: dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("", *summaries, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    rows = (
        ("latency p50", "p50_ms", "{:,.2f} ms"),
        ("latency p95", "p95_ms", "{:,.2f} ms"),
        ("latency p99", "p99_ms", "{:,.2f} ms"),
        ("latency mean", "mean_ms", "{:,.2f} ms"),
        ("in time", "good", "{:.2%}"),
        ("answers", "per_second", "{:,.0f} /s"),
        ("mean batch size", "mean_batch_size", "{:.1f}"),
        ("expired", "expired", "{:,}"),
        ("requests counted", "count", "{:,}"),
    )
    for name, field, form in rows:
        values = [getattr(summary, field) for summary in summaries.values()]
        table.add_row(name, *("-" if value is None else form.format(value) for value in values))
    console = Console(highlight=False, markup=False)
    console.print(table)
    for name, value in limits.items():
        console.print(f"{name}: {value:,.4g}")


def _suite(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    from pybatch.commands.progress import steps
    from pybatch.simulation.suite import CONTENDERS, SCENARIOS, reference, run

    scenarios = [scenario for scenario in SCENARIOS if (args.only or "").lower() in scenario.name.lower()]
    if not scenarios:
        parser.error(f"argument --only: no scenario has {args.only!r} in its name")
    seeds = range(args.seed, args.seed + args.seeds)
    found = []
    with steps("suite", len(scenarios)) as begin:
        for scenario in scenarios:
            begin(scenario.name)
            (outcomes,) = run([scenario], CONTENDERS, seeds)
            found.append((scenario, outcomes, reference(scenario, seeds)))
    if args.json:
        print(json.dumps({"seeds": list(seeds), "scenarios": [_as_json(*row) for row in found]}, indent=2))
    else:
        _show_suite(found)
    return 0


def _as_json(scenario: Scenario, outcomes: Sequence[Outcome], limit: tuple[str, float] | None) -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "measure": scenario.measure,
        "reference": None if limit is None else {"name": limit[0], "value": limit[1]},
        "policies": {
            outcome.contender: {
                "mean": outcome.mean,
                "spread": outcome.spread,
                "summaries": [asdict(summary) for summary in outcome.summaries],
            }
            for outcome in outcomes
        },
    }


def _show_suite(found: Sequence[tuple[Scenario, Sequence[Outcome], tuple[str, float] | None]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDE
    ours = ("immediate", "adaptive", "adaptive + timeout")
    wide = console.width >= WIDE
    shown = [outcome.contender for outcome in found[0][1]] if wide else ours
    several = len(found[0][1][0].summaries) > 1
    table = Table(box=None, pad_edge=False, collapse_padding=not wide)
    table.add_column("scenario", no_wrap=True)
    headers = [name.replace(" ", "\n", 1) for name in shown]
    for header in (*headers, *(() if wide else ("best\nother",)), "limit", *(("±\nadaptive",) if several else ())):
        table.add_column(header, justify="right", no_wrap=True)
    for measure, (unit, factor, sign) in MEASURES.items():
        rows = [row for row in found if row[0].measure == measure]
        if rows:
            table.add_row(f"[bold]{unit}[/bold]")
        for scenario, outcomes, limit in rows:
            by_name = {outcome.contender: outcome for outcome in outcomes}
            best = sign * max(sign * outcome.mean for outcome in outcomes)
            cells = [_cell(by_name[name], factor, best) for name in shown]
            if not wide:
                others = [outcome for outcome in outcomes if outcome.contender not in ours]
                other = max(others, key=lambda outcome: sign * outcome.mean)
                cells.append(f"{_cell(other, factor, best)} {other.contender}")
            cells.append("" if limit is None else _short(factor * limit[1]) + (f" {limit[0]}" if wide else ""))
            if several:
                spreads = [by_name[name].spread / 2 for name in ours[1:]]
                cells.append(_short(factor * max(spreads)))
            table.add_row(f"  {scenario.name}", *cells)
        table.add_section()
    console.print(table)
    console.print(
        "\nBold: the best, and what is within 1 % of it. Limits: optimum, what one can expect of the best policy\n"
        "(knowing the future, where answers in time count); gather and stagger, ideal rhythms.",
        style="dim",
    )


def _cell(outcome: Outcome, factor: float, best: float) -> str:
    text = _short(factor * outcome.mean)
    return f"[bold]{text}[/bold]" if abs(outcome.mean - best) <= 0.01 * abs(best) else text


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 200 else f"{value:.1f}"
