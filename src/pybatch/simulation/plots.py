"""The plots of the report as plotly.js takes them: plain dictionaries.

A colour is the name of a style-sheet variable; dashes, markers and patterns tell the settings apart without colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, log10
from typing import Any

from pybatch.simulation.findings import Findings, LoadCurve, Optimum

__all__ = ["Plot", "plots"]

DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "diamond", "triangle-up", "x", "cross")


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure, with its words and with a table of what it shows."""

    id: str
    title: str
    caption: str
    figure: dict[str, Any]
    columns: Sequence[str]
    rows: Iterable[Sequence[str]]
    choices: tuple[str, ...] = ()  # names of the groups of traces to choose from; the traces hold them in order


def plots(findings: Findings) -> list[Plot]:
    """Return all plots, in the order of the page."""
    return [
        _latency_by_load(findings),
        _good_by_load(findings),
        _latency_distribution(findings),
        _batch_size_distribution(findings),
        _queue_over_time(findings),
        _cost_by_size(findings),
    ]


def _latency_by_load(findings: Findings) -> Plot:
    percentiles = ("p50", "p95", "p99")
    traces = [
        _line(index, curve.label, curve.load, getattr(curve, f"{name}_ms"), unit="ms", shown=name == "p99")
        for name in percentiles
        for index, curve in enumerate(findings.load)
    ]
    # The goal has its room; a setting that has collapsed is cut off above: how late it is then only depends on how
    # long one simulates.
    lowest = min((ms for curve in findings.load for ms in curve.p50_ms if isfinite(ms)), default=findings.goal_ms)
    layout = _layout(f"offered load, {findings.unit}", "latency, ms")
    layout["yaxis"] |= _logarithmic(lowest * 0.8, findings.goal_ms * 6)
    layout["shapes"] = [_goal(findings.goal_ms), _present_load(findings.present)]
    side = "left" if 2 * findings.present < max(findings.load[0].load) else "right"
    layout["annotations"] = [
        _note(f"goal {_ms(findings.goal_ms)}", x=0, xref="paper", y=log10(findings.goal_ms), xanchor="left"),
        _note("your load", x=findings.present, y=1, yref="paper", xanchor=side, yanchor="top"),
    ]
    return Plot(
        "latency-by-load",
        "Latency against load",
        "Lower is better, and further right before the line leaves the goal. The axis of latency is logarithmic.",
        {"data": traces, "layout": layout},
        ("setting", findings.unit, "p50", "p95", "p99"),
        [
            (curve.label, f"{load:,.4g}", _ms(p50), _ms(p95), _ms(p99))
            for curve in findings.load
            for load, p50, p95, p99 in zip(curve.load, curve.p50_ms, curve.p95_ms, curve.p99_ms, strict=True)
        ],
        percentiles,
    )


def _good_by_load(findings: Findings) -> Plot:
    traces = [
        _line(index, curve.label, curve.load, [100 * good for good in curve.good], unit="%")
        for index, curve in enumerate(findings.load)
    ]
    curves: list[LoadCurve | Optimum] = [*findings.load]
    if findings.optimum:
        good = [100 * good for good in findings.optimum.good]
        curves.append(findings.optimum)
        traces.append(
            _line(0, findings.optimum.label, findings.optimum.load, good, unit="%")
            | {"line": {"color": "var(--text)", "width": 1.5, "dash": "dot"}, "mode": "lines"}
        )
    layout = _layout(f"offered load, {findings.unit}", "answered in time, %")
    layout["yaxis"]["range"] = [0, 102]
    layout["shapes"] = [_goal(100 * findings.share), _present_load(findings.present)]
    limit = (
        f" Dotted: {findings.optimum.label}, which knows the future; no schedule answers more."
        if findings.optimum
        else ""
    )
    return Plot(
        "goodput",
        "Goodput",
        f"Share of all requests, also those that were dropped, answered within {_ms(findings.goal_ms)}.{limit}",
        {"data": traces, "layout": layout},
        ("setting", findings.unit, "in time"),
        [
            (curve.label, f"{load:,.4g}", f"{good:.1%}")
            for curve in curves
            for load, good in zip(curve.load, curve.good, strict=True)
        ],
    )


def _latency_distribution(findings: Findings) -> Plot:
    traces = [
        _line(index, row.label, row.ms, [100 * share for share in row.share], unit="%") | {"mode": "lines"}
        for index, row in enumerate(findings.latencies)
    ]
    layout = _layout("latency, ms", "requests answered by then, %")
    layout["yaxis"]["range"] = [0, 102]
    times = [ms for row in findings.latencies for ms in row.ms]
    most = min(max(times, default=findings.goal_ms) * 1.1, findings.goal_ms * 6)
    layout["xaxis"] |= _logarithmic(min(times, default=1.0) * 0.9, max(most, findings.goal_ms * 1.2))
    layout["shapes"] = [_present_load(findings.goal_ms)]
    layout["annotations"] = [_note("goal", x=log10(findings.goal_ms), y=0, yref="paper", xanchor="right")]
    shares = (0.5, 0.9, 0.99)
    return Plot(
        "latency-distribution",
        "Latency distribution at your load",
        "Further left is better; a long tail bends to the right near the top.",
        {"data": traces, "layout": layout},
        ("setting", *(f"{share:.0%} within" for share in shares)),
        [
            (
                row.label,
                *(
                    _ms(next((ms for ms, at in zip(row.ms, row.share, strict=True) if at >= share), row.ms[-1]))
                    for share in shares
                ),
            )
            for row in findings.latencies
        ],
    )


def _batch_size_distribution(findings: Findings) -> Plot:
    traces = [
        {
            "type": "bar",
            "name": row.label,
            "x": row.size,
            "y": [100 * share for share in row.share],
            "marker": {"color": _colour(index), "pattern": {"shape": ("", "/", ".", "x", "-", "|")[index % 6]}},
            "hovertemplate": "size %{x}: %{y:.1f} %",
        }
        for index, row in enumerate(findings.batch_sizes)
    ]
    return Plot(
        "batch-sizes",
        "Batch sizes at your load",
        "How many of the batches had which size.",
        {"data": traces, "layout": _layout("batch size, requests", "share of the batches, %")},
        ("setting", "size", "share"),
        [
            (row.label, f"{size}", f"{share:.1%}")
            for row in findings.batch_sizes
            for size, share in zip(row.size, row.share, strict=True)
        ],
    )


def _queue_over_time(findings: Findings) -> Plot:
    traces = [
        _line(index, row.label, row.at_s, row.queued, unit="queued")
        | {"mode": "lines", "line": {"color": _colour(index), "width": 1.5, "shape": "hv"}}
        for index, row in enumerate(findings.queues)
    ]
    return Plot(
        "queue",
        "Queue over time at your load",
        "Requests that wait for a batch. One that keeps growing means that the load is too high.",
        {"data": traces, "layout": _layout("time, s", "queued requests")},
        ("setting", "mean", "most"),
        [
            (row.label, f"{sum(row.queued) / max(1, len(row.queued)):.1f}", f"{max(row.queued)}")
            for row in findings.queues
        ],
    )


def _cost_by_size(findings: Findings) -> Plot:
    cost = findings.cost
    measured: dict[str, Any] = _line(0, "latency", cost.size, cost.ms, unit="ms") | {"mode": "markers"}
    measured["marker"]["size"] = 9
    if cost.low_ms and cost.high_ms:
        measured["error_y"] = {
            "type": "data",
            "symmetric": False,
            "array": [high - ms for high, ms in zip(cost.high_ms, cost.ms, strict=True)],
            "arrayminus": [ms - low for low, ms in zip(cost.low_ms, cost.ms, strict=True)],
            "color": _colour(0),
        }
    formula = f"{cost.per_batch_ms:.3g} ms + {cost.per_item_ms:.3g} ms per item"
    ends = (0, max(cost.size))
    line = _line(1, formula, ends, [cost.per_batch_ms + cost.per_item_ms * size for size in ends], unit="ms")
    return Plot(
        "cost",
        "Latency per batch size",
        f"What one batch takes; the line is {formula}. The flatter it is, the more batching gains.",
        {
            "data": [line | {"mode": "lines"}, measured],
            "layout": _layout("batch size, requests", "latency of one batch, ms"),
        },
        ("size", "latency", "items/s"),
        [(f"{size}", _ms(ms), f"{1e3 * size / ms:,.0f}") for size, ms in zip(cost.size, cost.ms, strict=True)],
    )


def _line(
    index: int, label: str, x: Sequence[float], y: Sequence[float], *, unit: str, shown: bool = True
) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": label,
        "x": x,
        "y": [value if isfinite(value) else None for value in y],
        "visible": shown,
        "zorder": 1 if index == 0 else 0,
        "line": {"color": _colour(index), "width": 3 if index == 0 else 1.8, "dash": DASHES[index % len(DASHES)]},
        "marker": {"color": _colour(index), "symbol": MARKERS[index % len(MARKERS)], "size": 6},
        "hovertemplate": f"%{{y:.4~g}} {unit}",
    }


def _layout(x: str, y: str) -> dict[str, Any]:
    axis = {
        "gridcolor": "var(--line)",
        "linecolor": "var(--line)",
        "zerolinecolor": "var(--line)",
        "automargin": True,
        "rangemode": "tozero",
        "fixedrange": True,  # so that a finger scrolls the page, not the plot
    }
    return {
        "xaxis": axis | {"title": {"text": x, "standoff": 8}},
        "yaxis": axis | {"title": {"text": y, "standoff": 6}},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": "var(--text)"},
        "hoverlabel": {"bgcolor": "var(--card)", "font": {"color": "var(--text)"}},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
    }


def _logarithmic(low: float, high: float) -> dict[str, Any]:
    """Return what makes an axis of milliseconds logarithmic: round ticks, more of them where it spans little."""
    steps = (1, 2, 5) if high > 30 * low else (1, 1.5, 2, 3, 4, 5, 7)
    ticks = [float(f"{step}e{power}") for power in range(-4, 8) for step in steps]
    return {
        "type": "log",
        "range": [log10(low), log10(high)],
        "tickvals": ticks,
        "ticktext": [f"{tick:,.10g}" for tick in ticks],
    }


def _goal(y: float) -> dict[str, Any]:
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": _rule()}


def _present_load(x: float) -> dict[str, Any]:
    return {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": _rule()}


def _rule() -> dict[str, Any]:
    return {"color": "var(--muted)", "width": 1, "dash": "dash"}


def _note(text: str, **where: Any) -> dict[str, Any]:
    style = {"showarrow": False, "yanchor": "bottom", "font": {"color": "var(--muted)"}, "bgcolor": "var(--card)"}
    return style | {"text": text} | where


def _colour(index: int) -> str:
    return f"var(--c{index % 6})"


def _ms(ms: float) -> str:
    return f"{ms:,.0f} ms" if ms >= 100 else f"{ms:.3g} ms"
