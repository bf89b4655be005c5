"""``pybatch simulate`` and ``pybatch tune`` as people and scripts use them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pybatch.cli import main

RESNET = ("--profile", "resnet")
TUNE = ("tune", *RESNET, "--requests", "2000", "--no-report")
SIMULATE = ("simulate", *RESNET)


def exit_code(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


def as_json(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> Any:
    assert main([*argv, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("command", ["simulate", "tune"])
def test_help_teaches_by_examples_and_units_within_80_columns(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert exit_code(command, "--help") == 0
    text = capsys.readouterr().out
    for lesson in ("examples:", "--poisson 420", "--closed 16", "--trace traffic.csv", "--cost 1:6.1", "Needs: pip"):
        assert lesson in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        ((*SIMULATE,), "say when requests come: --poisson 420"),
        ((*SIMULATE, "--poisson", "often"), "argument --poisson: 'often' is not of the form RATE, for example 420"),
        ((*SIMULATE, "--poisson", "-1"), "argument --poisson: per_second is -1.0; it must be from"),
        ((*SIMULATE, "--gamma", "420"), "argument --gamma: '420' is not of the form RATE:CV, for example 420:4"),
        ((*SIMULATE, "--closed", "1.5"), "argument --closed: '1.5' is not of the form N[:THINK_MS]"),
        ((*SIMULATE, "--bursts", "60:24-8"), "argument --bursts: size[1] is 8; it must be from 24"),
        ((*SIMULATE, "--trace", "nowhere.csv"), "argument --trace: [Errno 2] No such file"),
        (("simulate", "--poisson", "1"), "say what a batch costs: --cost 1:6.1,32:38.8 or --profile resnet"),
        (
            ("simulate", "--poisson", "1", "--profile", "gpt"),
            "argument --profile: there is no 'gpt'; there are resnet,",
        ),
        (("simulate", "--poisson", "1", "--cost", "1=6"), "argument --cost: '1=6' is not of the form SIZE:MS,SIZE:MS"),
        (("simulate", "--poisson", "1", "--cost", "1:0"), "argument --cost: 0 ms is no time"),
        (("simulate", "--poisson", "1", "--cost", "0:1"), "argument --cost: the size of points[0] is 0"),
        ((*SIMULATE, "--poisson", "1", "--cost", "1:2"), "argument --profile: not allowed with argument --cost"),
        (
            (*SIMULATE, "--poisson", "1", "--policy", "lazy"),
            "policy lazy: there is no such policy; there are adaptive,",
        ),
        ((*SIMULATE, "--poisson", "1", "--policy", "fixed"), "policy fixed: "),
        ((*SIMULATE, "--poisson", "1", "--policy", "bentoml"), "policy bentoml: it is made for a latency goal; give"),
        (("simulate", "--suite", "--only", "tea"), "argument --only: no scenario has 'tea' in its name"),
        ((*TUNE, "--poisson", "1"), "the following arguments are required: --goal-ms"),
        ((*TUNE, "--goal-ms", "50"), "say when requests come: --poisson 420"),
        ((*TUNE, "--goal-ms", "0"), "argument --goal-ms: 0 is not between 0.001 and"),
        ((*TUNE, "app:f", "--goal-ms", "50", "--poisson", "1"), "say what a batch costs, in one way: MODULE:FUNCTION"),
        (("tune", "app:f", "--goal-ms", "50", "--poisson", "1"), "argument --sample: an item to measure"),
        ((*TUNE, "--goal-ms", "9", "--poisson", "1", "--present", "size=8"), "argument --present: 'size' is none of"),
        ((*TUNE, "--goal-ms", "9", "--poisson", "1", "--present", "max_batch_size=x"), "argument --present: 'max_b"),
        ((*TUNE, "--goal-ms", "9", "--poisson", "1", "--present", "policy=fixed"), "argument --present: "),
        (
            ("tune", *RESNET, "--goal-ms", "9", "--poisson", "1", "--report", "no/such/folder/x.html"),
            "argument --report: there is no folder ",
        ),
    ],
)
def test_wrong_usage_is_explained_in_one_line(
    argv: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*argv) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"pybatch {argv[0]}: error: {complaint}")


def test_one_scenario_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *SIMULATE, "--poisson", "412.7", "--slo-ms", "50", "--policy", "immediate", "bentoml")
    assert found["policies"].keys() == {"immediate", "bentoml"}
    assert found["policies"]["immediate"]["mean_ms"] == pytest.approx(15.0, rel=0.03)
    assert found["limits"]["optimum_mean_ms"] == pytest.approx(15.0, rel=0.01)
    assert found["limits"]["saturated_per_second"] == pytest.approx(825, rel=0.01)


def test_one_scenario_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SIMULATE, "--closed", "16", "--requests", "2000", "--workers", "2", "--timeout-ms", "100"]) == 0
    out = capsys.readouterr().out
    for row in ("latency p99", "in time", "answers", "mean batch size", "expired", "saturated_per_second"):
        assert re.search(rf"^{row}", out, re.M), row
    assert out.split()[:2] == ["adaptive", "immediate"]


def test_traffic_of_several_kinds_is_added_up(capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ("--poisson", "20", "--gamma", "20:2", "--mmpp", "30:10", "--bursts", "500:9-11:0", "--closed", "1:50")
    found = as_json(capsys, *SIMULATE, *kinds, "--policy", "immediate", "--requests", "4000")
    assert 85 < found["policies"]["immediate"]["per_second"] < 110  # 80/s open and up to 20/s of the client


def test_a_trace_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "traffic.csv"
    trace.write_text("arrival_ms\n" + "\n".join(str(10 * row) for row in range(100)))
    found = as_json(capsys, *SIMULATE, "--trace", str(trace), "--policy", "immediate")
    assert found["policies"]["immediate"]["count"] == 90
    assert found["policies"]["immediate"]["mean_ms"] == pytest.approx(6.125)
    trace.write_text("arrival_ms\n1\n")
    assert exit_code(*SIMULATE, "--trace", str(trace)) == 2
    assert "has fewer than 2 requests" in capsys.readouterr().err


def test_a_part_of_the_suite_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, "simulate", "--suite", "--only", "clients, bert", "--seeds", "2", "--seed", "7")
    assert found["seeds"] == [7, 8]
    assert [row["scenario"] for row in found["scenarios"]] == ["16 clients, bert", "48 clients, bert"]
    row = found["scenarios"][0]
    assert row["reference"] == {"name": "gather", "value": pytest.approx(1326, rel=0.001)}
    immediate = row["policies"]["immediate"]
    assert len(immediate["summaries"]) == 2
    assert immediate["mean"] == pytest.approx(752, rel=0.01)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_the_suite_as_a_table_fits_the_terminal(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERM", "xterm")
    assert main(["simulate", "--suite", "--only", "poisson", "--seeds", "1"]) == 0
    out = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
    assert max(map(len, out.splitlines())) <= int(columns)
    assert "mean latency, ms" in out
    assert ("Clockwork" in out) == (columns == "200")
    assert re.search(r"Poisson 5 % +7\.0", out)


def test_tuning_recommends_and_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.html"
    argv = ["tune", *RESNET, "--poisson", "420", "--goal-ms", "50", "--requests", "2000", "--report", str(report)]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith("This answers 99 % of the requests within 50 ms at your 420/s")
    assert "Scheduler(fn" in out
    assert f"report with plots: {report}" in out.replace("\n", " ") or str(report) in out.replace("\n", "")
    assert "<title>How to batch fn</title>" in report.read_text()


def test_tuning_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    present = ("--present", "max_batch_size=4,max_wait_ms=20")
    found = as_json(capsys, *TUNE, "--poisson", "420", "--goal-ms", "50", *present)
    assert found["goal_kept"]
    assert found["code"].startswith("Scheduler(fn")
    assert found["load"] == {"unit": "requests/s", "value": 420}
    assert 420 < found["recommended"]["largest_load"] <= found["limit"]
    assert found["present"]["setting"]["policy"] == "fixed"
    assert found["present"]["setting"]["max_wait_ms"] == 20
    assert found["cost_model"][0] == [1, pytest.approx(6.125)]
    assert {"defaults", "immediate", "no_batching", "verdict", "facts", "explanation"} <= found.keys()


def test_a_goal_that_cannot_be_kept_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, *TUNE, "--poisson", "2000", "--goal-ms", "50", code=1)
    assert not found["goal_kept"]
    assert found["recommended"]["summary"]["good"] < 0.99


def test_no_batch_is_recommended_larger_than_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    argv = (
        "tune",
        "--cost",
        "1:10.2,8:10.6",
        "--poisson",
        "300",
        "--goal-ms",
        "50",
        "--requests",
        "2000",
        "--no-report",
    )
    assert as_json(capsys, *argv)["recommended"]["setting"]["max_batch_size"] <= 8


def test_a_report_that_cannot_be_written_is_said_after_what_was_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["tune", *RESNET, "--poisson", "50", "--goal-ms", "50", "--requests", "1000", "--report"]
    assert main([*argv, "/dev/full"]) == 1
    told = capsys.readouterr()
    assert "the report cannot be written: " in told.err.splitlines()[-1]
    assert "Scheduler(fn" in told.out
    with pytest.raises(SystemExit):  # known beforehand
        main([*argv, str(tmp_path)])
    assert "is a folder" in capsys.readouterr().err


APP = "width = 3\ndef predict(xs):\n    sum(range(20_000))\n    return [x[0] for x in xs]\n"


def tune_app(folder: Path, *argv: str) -> subprocess.CompletedProcess[str]:
    (folder / "app.py").write_text(APP)
    command = [sys.executable, "-m", "pybatch.cli", "tune", *argv, "--closed", "4", "--goal-ms", "50"]
    command += ["--max-batch-size", "4", "--requests", "1000"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_a_function_of_one_s_own_is_measured_and_tuned(tmp_path: Path) -> None:
    done = tune_app(tmp_path, "app:predict", "--sample", "[0.5] * width", "--json")
    assert (done.returncode, done.stderr.splitlines()[0]) == (0, "measuring ...")
    found = json.loads(done.stdout)
    assert [size for size, _ in found["cost_model"]] == [1, 2, 4]
    assert all(0.05 < ms < 40.0 for _, ms in found["cost_model"])
    assert found["code"].startswith("Scheduler(predict")
    assert (tmp_path / "tune.html").stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("function", "sample", "complaint"),
    [
        ("app:forecast", "[1]", "cannot measure: cannot load 'app:forecast': 'app' has no 'forecast'; it has predict"),
        ("app:predict", "1", "cannot measure: the function raised TypeError for a batch of 1: 'int' object"),
    ],
)
def test_a_function_that_cannot_be_measured_is_said_why_in_one_line(
    tmp_path: Path, function: str, sample: str, complaint: str
) -> None:
    done = tune_app(tmp_path, function, "--sample", sample)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(complaint)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "package"), [("simulate", "rich"), ("tune", "plotly")])
def test_a_missing_extra_is_said_in_one_line(command: str, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from pybatch.cli import main; sys.exit(main(sys.argv[1:]))"
    argv = [command, *RESNET, "--poisson", "9", *(("--goal-ms", "50") if command == "tune" else ())]
    done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.fullmatch(rf"pybatch {command} needs .*: pip install 'batchcore\[tune\]'\n", done.stderr), done.stderr
