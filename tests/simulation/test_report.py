"""The report in a real browser: it draws every plot, says whole on the console and asks whole of the network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from examples import LABELS, example

from pybatch.simulation.report import html

PLOTS = ("latency-by-load", "goodput", "latency-distribution", "batch-sizes", "queue", "cost")


@dataclass(frozen=True)
class Visit:
    """What came of opening a page: the document after its scripts ran, the console, and its requests."""

    dom: str
    console: tuple[str, ...]
    requests: frozenset[str]


def visit(page: Path, width: int = 1280) -> Visit:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs a browser: apt-get install chromium")
    folder = page.parent
    command = [
        *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={folder / 'network.json'}"),
        *(f"--window-size={width},900", "--virtual-time-budget=10000", "--dump-dom", page.as_uri()),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    log: dict[str, Any] = json.loads((folder / "network.json").read_text())
    asked = [event["params"] for event in log["events"] if "initiator" in event.get("params", {})]
    # The browser has wishes of its own, which no page initiated and which the resolver's rule leaves unfulfilled.
    requests = frozenset(params["url"] for params in asked if params["initiator"] != "not an origin")
    return Visit(done.stdout, tuple(re.findall(r"CONSOLE.*", done.stderr)), requests)


class Drawn(HTMLParser):
    """Counts, for each plot, the marks that plotly drew in it."""

    def __init__(self, dom: str) -> None:
        super().__init__()
        self.plot = ""
        self.marks: dict[str, int] = {}
        self.texts: list[str] = []
        self.feed(dom)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "div" and "plot" in (values.get("class") or "").split():
            self.plot = values["id"] or ""
            self.marks[self.plot] = 0
        if tag == "path" and values.get("d", "M0,0") != "M0,0":
            self.marks[self.plot] = self.marks.get(self.plot, 0) + 1

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def visited(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    page = tmp_path_factory.mktemp("report") / "report.html"
    page.write_text(html(example()), encoding="utf-8")
    return visit(page)


def test_every_plot_is_drawn_as_a_vector_graphic(visited: Visit) -> None:
    marks = Drawn(visited.dom).marks
    assert set(PLOTS) <= marks.keys()
    assert all(marks[plot] >= 5 for plot in PLOTS), marks


def test_every_setting_has_its_name_in_the_legend(visited: Visit) -> None:
    texts = Drawn(visited.dom).texts
    for label in (*LABELS, "offline optimum", "5.07 ms + 1.05 ms per item"):
        assert label in texts


def test_the_console_stays_silent(visited: Visit) -> None:
    assert visited.console == ()


def test_whole_is_asked_of_the_network(visited: Visit) -> None:
    assert visited.requests == frozenset()


def test_a_console_error_and_a_request_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("here"); missing()</script>')
    visited = visit(page)
    assert any("here" in line for line in visited.console)
    assert any("missing" in line for line in visited.console)
    assert visited.requests == {"http://127.0.0.1:9/x.png"}


def test_axes_say_what_they_show_and_in_which_unit(visited: Visit) -> None:
    texts = Drawn(visited.dom).texts
    for title in (
        *("offered load, requests/s", "latency, ms", "answered in time, %", "batch size, requests", "time, s"),
        *("share of the batches, %", "queued requests", "latency of one batch, ms", "requests answered by then, %"),
    ):
        assert title in texts


def test_text_is_shown_as_it_is_and_never_taken_for_markup() -> None:
    page = html(replace(example(), title="</script><script>alert(1)</script>", code="f({{title}})"))
    assert "<script>alert(1)" not in page
    assert "f({{title}})" in page


def test_figures_that_do_not_exist_leave_a_gap() -> None:
    whole = example()
    hole = replace(whole.load[0], p99_ms=(float("nan"),) * len(whole.load[0].load))
    page = html(replace(whole, load=(hole, *whole.load[1:])))
    figures = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.S)
    assert figures

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    json.loads(figures[1], parse_constant=refuse)


def test_the_page_is_one_file_that_may_load_whole() -> None:
    page = html(example())
    assert "default-src 'none'" in page
    own = page.replace(page[page.index("<script>/**") : page.index("</script>", page.index("<script>/**"))], "")
    assert not re.search(r"""(src|href)\s*=|@import|url\(""", own)
