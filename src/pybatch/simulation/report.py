"""One self-contained HTML page: what to write, what it gains, what the limit is, and the plots.

plotly.js is inlined and a content security policy forbids all else, so the page needs no network and cannot use one.
Colours are style-sheet variables, looked up when a plot is drawn: they follow the reader's light or dark mode.  Every
figure of a plot is in a table below it too.  Held by `tests/simulation/test_report.py`, in a real browser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from html import escape
from typing import Final

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from pybatch.simulation.findings import Findings
from pybatch.simulation.plots import Plot, plots

__all__ = ["html"]


def html(findings: Findings) -> str:
    """Return the page.

    Parameters
    ----------
    findings : Findings
        Any text in it is shown as it is, never taken for markup.

    Returns
    -------
    str
        A whole HTML document of about 5 MB, nearly all of it plotly.js.
    """
    drawn = plots(findings)
    parts = {
        "title": escape(findings.title),
        "verdict": escape(findings.verdict),
        "code": escape(findings.code),
        "facts": "".join(
            f"<div><dt>{escape(fact.name)}</dt><dd><b>{escape(fact.value)}</b>{escape(fact.detail)}</dd></div>"
            for fact in findings.facts
        ),
        "explanation": _paragraphs(findings.explanation),
        "settings": _table(findings.columns, findings.rows),
        "plots": "".join(map(_section, drawn)),
        "method": _paragraphs(findings.method),
        "figures": json.dumps({plot.id: plot.figure for plot in drawn}).replace("</", "<\\/"),
        "plotly": get_plotlyjs(),
    }
    # In one pass: what a part says is never taken for the name of another.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], PAGE)


def _paragraphs(texts: Iterable[str]) -> str:
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>"


def _section(plot: Plot) -> str:
    title = escape(plot.title)
    radios = "".join(
        f'<label><input type="radio" name="{plot.id}" value="{choice}"{" checked" * (choice == plot.choices[-1])}>'
        f"{choice}</label>"
        for choice in plot.choices
    )
    choose = f"<fieldset><legend>percentile</legend>{radios}</fieldset>" if radios else ""
    return (
        f'<section><h2>{title}</h2><p class="caption">{escape(plot.caption)}</p>{choose}'
        f'<div class="plot" id="{plot.id}" role="img" aria-label="{title}; its figures are in the table below"></div>'
        f'<details><summary>Figures</summary><div class="scroll">{_table(plot.columns, plot.rows)}</div></details>'
        "</section>"
    )


PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:">
<title>{{title}}</title>
<style>
:root {
  --page: #f5f6f8; --card: #ffffff; --text: #1b1f24; --muted: #5b6470; --line: #dfe3e8; --accent: #0060a8;
  --c0: #0072b2; --c1: #c2500a; --c2: #00805c; --c3: #a8447e; --c4: #6b6f76; --c5: #8a6d00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171b; --card: #1d2126; --text: #e8eaed; --muted: #a2abb6; --line: #363c44; --accent: #6cbcf5;
    --c0: #56b4e9; --c1: #ff9a4d; --c2: #3ccf9f; --c3: #ea9ac8; --c4: #b4b9c1; --c5: #e0c341;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 8px 0 4px; }
h2 { font-size: 1.1rem; margin: 0 0 2px; }
p { margin: 0 0 8px; max-width: 75ch; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px; min-width: 0; }
.verdict { font-size: 1.1rem; }
.caption, .method p, td:first-child + td.unit { color: var(--muted); font-size: .9rem; }
pre { background: var(--page); border: 1px solid var(--line); border-left: 4px solid var(--accent); border-radius: 6px;
      padding: 12px; margin: 12px 0; overflow-x: auto; font: 15px/1.5 ui-monospace, monospace; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 12px; margin: 16px 0; }
dl div { border-top: 3px solid var(--accent); padding-top: 6px; }
dt { color: var(--muted); font-size: .85rem; }
dd { margin: 0; font-size: .9rem; }
dd b { display: block; font-size: 1.5rem; line-height: 1.3; }
.plots { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; margin: 16px 0; }
.plot { height: 380px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--muted); font-weight: 500; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.settings tbody tr:first-child { font-weight: 600; }
.settings tbody tr:first-child td:first-child { color: var(--accent); }
details { margin-top: 8px; font-size: .9rem; }
summary { cursor: pointer; color: var(--accent); }
details .scroll { max-height: 300px; overflow-y: auto; }
fieldset { border: 0; padding: 0; margin: 8px 0; display: flex; gap: 4px; }
legend { position: absolute; clip-path: inset(50%); }
fieldset label { border: 1px solid var(--line); border-radius: 6px; padding: 2px 12px; font-size: .9rem;
                 cursor: pointer; }
fieldset input { position: absolute; opacity: 0; }
fieldset label:has(:checked) { background: var(--accent); border-color: var(--accent); color: var(--card); }
fieldset label:has(:focus-visible) { outline: 2px solid var(--text); outline-offset: 2px; }
@media (max-width: 900px) {
  .plots { grid-template-columns: minmax(0, 1fr); }
}
@media (max-width: 500px) {
  main { padding: 8px 8px 32px; }
  section { padding: 12px; }
  .plot { height: 400px; }
  dl { grid-template-columns: 1fr 1fr; }
  dd b { font-size: 1.2rem; }
  pre { font-size: 13px; white-space: pre-wrap; }
}
</style>
</head>
<body>
<main>
<section>
<h1>{{title}}</h1>
<p class="verdict">{{verdict}}</p>
<pre><code>{{code}}</code></pre>
<dl>{{facts}}</dl>
{{explanation}}
<div class="scroll settings">{{settings}}</div>
</section>
<div class="plots">
{{plots}}
</div>
<section class="method">
<h2>How this was found</h2>
{{method}}
</section>
</main>
<noscript>The plots need JavaScript; their figures are in the tables below each.</noscript>
<script>{{plotly}}</script>
<script type="application/json" id="figures">{{figures}}</script>
<script>
function draw() {
  const style = getComputedStyle(document.documentElement);
  const text = document.getElementById("figures").textContent;
  const figures = JSON.parse(text.replace(/var\\((--\\w+)\\)/g, (_, name) => style.getPropertyValue(name).trim()));
  for (const [id, {data, layout}] of Object.entries(figures)) {
    const plot = document.getElementById(id);
    const choices = [...plot.parentElement.querySelectorAll("input")];
    if (choices.length) {
      const shown = choices.findIndex(choice => choice.checked);
      data.forEach((trace, index) => { trace.visible = Math.floor(index * choices.length / data.length) === shown; });
    }
    if (innerWidth <= 500) layout.font.size = 11;
    Plotly.react(plot, data, layout, {responsive: true, displayModeBar: false});
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
document.addEventListener("change", draw);
draw();
</script>
</body>
</html>
"""
