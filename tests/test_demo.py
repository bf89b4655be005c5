"""``pybatch demo`` does what it says: real answers, all checked, much faster together, readable anywhere."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from batchcore.records import Histogram
from pybatch import Scheduler, demo
from pybatch.cli import main


@pytest.fixture(scope="module")
def report() -> Any:
    """What ``--json`` says of one short run with the default callers."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        assert main(["demo", "--duration", "0.5", "--json"]) == 0
    assert [line.partition(",")[0] for line in err.getvalue().splitlines()[1:]] == ["one at a time", "batched"]
    return json.loads(out.getvalue())


def test_every_answer_is_the_model_s_own(report: Any) -> None:
    assert report["mismatches"] == 0
    assert report["checked"] == report["one_at_a_time"]["answers"] + report["batched"]["answers"]


def test_batched_is_several_times_faster(report: Any) -> None:
    # The demo is to show 10 and more; a busy test machine is forgiven the rest.
    assert report["gain"] >= 3
    assert report["gain"] == report["batched"]["throughput_per_s"] / report["one_at_a_time"]["throughput_per_s"]


def test_the_model_reads_digits_it_has_never_seen(report: Any) -> None:
    assert report["trained_images"] + report["unseen_images"] == 1797
    assert report["one_at_a_time"]["accuracy"] > 0.9
    assert report["batched"]["accuracy"] > 0.9


def test_the_histograms_add_up(report: Any) -> None:
    sizes = report["batch_size"]
    assert sizes["sum"] == report["batched"]["answers"]
    assert sum(sizes["counts"]) == report["batches"]
    assert report["mean_batch_size"] == sizes["sum"] / report["batches"]
    for phase in ("one_at_a_time", "batched"):
        assert sum(report[phase]["latency_ns"]["counts"]) == report[phase]["answers"]
        assert 0 < report[phase]["p50_ms"] <= report[phase]["p99_ms"]


def test_options_versions_and_machine_are_on_record(report: Any) -> None:
    assert report["options"] == {
        "threads": 8,
        "tasks": 120,
        "duration_s": 0.5,
        "max_batch_size": 64,
        "max_latency_ms": None,
        "seed": 0,
    }
    assert report["versions"].keys() == {"python", "batchcore", "numpy", "scikit-learn"}
    assert report["cpus"] >= 1


def test_the_metrics_are_valid_prometheus_text_and_count_every_answer(report: Any) -> None:
    families = text_string_to_metric_families(report["prometheus_text"])
    values = [sample.value for family in families for sample in family.samples]
    assert report["batched"]["answers"] in values


def test_a_wrong_answer_is_found_and_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lying_scheduler(fn: Callable[[list[Any]], list[int]], **options: Any) -> Any:
        return Scheduler(lambda images: [9 - digit for digit in fn(images)], **options)

    monkeypatch.setattr(demo, "Scheduler", lying_scheduler)
    assert main(["demo", "--duration", "0.05"]) == 1
    assert re.search(r"^WRONG: [\d,]+ answers differ$", capsys.readouterr().out, re.MULTILINE)


def test_the_options_reach_the_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def noting_scheduler(fn: Callable[[list[Any]], list[int]], **options: Any) -> Any:
        seen.update(options)
        return Scheduler(fn, **options)

    monkeypatch.setattr(demo, "Scheduler", noting_scheduler)
    argv = ["--duration", "0.05", "--max-batch-size", "3", "--max-latency-ms", "7.5", "--json"]
    assert main(["demo", *argv]) == 0
    assert (seen["max_batch_size"], seen["max_latency_ms"]) == (3, 7.5)


@pytest.mark.parametrize(("threads", "tasks"), [(1, 0), (0, 1)])
def test_one_kind_of_caller_is_enough(threads: int, tasks: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--duration", "0.05", "--json", f"--threads={threads}", f"--tasks={tasks}"]) == 0
    batched = json.loads(capsys.readouterr().out)["batched"]
    assert batched["callers"] == 1
    assert batched["answers"] >= 1


def test_piped_into_an_ascii_file_it_is_plain_text() -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    done = subprocess.run(
        [sys.executable, "-m", "pybatch.cli", "demo", "--duration", "0.2"],
        capture_output=True,
        check=True,
        env=environment | {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"},
    )
    text = done.stdout.decode("ascii")
    assert "\x1b" not in text + done.stderr.decode("ascii")
    report, _, metrics = text.partition("\nmetrics in Prometheus text:\n\n")
    assert max(map(len, report.splitlines())) <= 80
    for line in ("throughput", "latency p50", "latency p99", "mean batch size", "accuracy", "every answer checked"):
        assert f"\n{line}" in report
    assert len(re.findall(r"<= \S+ +-{39,40} ", report)) == 2  # the longest bar of either picture
    assert metrics.startswith("# HELP")
    assert metrics.endswith("\n")
    assert done.stderr.decode().splitlines()[1:] == ["one at a time, 0.2 s ...", "batched, 0.2 s ..."]


def test_a_terminal_sees_progress_that_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(demo, "Console", lambda **options: Console(file=screen, force_terminal=True, width=80))
    assert main(["demo", "--duration", "0.05"]) == 0
    progress, _, _ = screen.getvalue().partition("MLPClassifier")
    assert "batched" in progress
    assert "\x1b[2K" in progress[progress.rindex("batched") :]  # the line is erased again


def test_a_picture_goes_from_the_first_to_the_last_interval_in_use() -> None:
    screen = io.StringIO()
    console = Console(file=screen, width=80)
    console.print(demo.picture("size", "batches", Histogram((1, 2, 4, 8), (0, 10, 0, 1_000, 5), 0)))
    title, *rows = (line.split() for line in screen.getvalue().splitlines())
    assert title == ["size", "batches"]
    assert [(row[1], row[-1]) for row in rows] == [("2", "10"), ("4", "0"), ("8", "1,000"), ("8", "5")]
    assert rows[-1][0] == ">"
    assert len(rows[2][2]) == 40


def test_a_seed_gives_each_caller_the_same_images_again() -> None:
    first, again = ([caller.order for caller in demo.make_callers(3, range(20), seed=5)] for _ in range(2))
    assert first == again
    assert first[0] != first[1]
    assert sorted(first[2]) == list(range(20))
