"""The command line itself: help, wrong usage, missing extras, interruption."""

import signal
import subprocess
import sys

import pytest

import pybatch
from pybatch.cli import main

PYBATCH = (sys.executable, "-m", "pybatch.cli")


def exit_code(*argv: str) -> int | str | None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    return caught.value.code


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    assert "demo " in capsys.readouterr().out


def test_help_of_a_command_teaches_by_examples_defaults_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("demo", "--help") == 0
    text = capsys.readouterr().out
    for lesson in ("examples:", "pybatch demo --json", "--duration SECONDS", "--max-latency-ms MS", "(default: 64)"):
        assert lesson in text
    assert max(map(len, text.splitlines())) <= 80


def test_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    name, number = capsys.readouterr().out.split()
    assert name == "pybatch"
    assert number[0].isdigit()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--threads", "-1"], "argument --threads: -1 is not between 0 and 256"),
        (["--tasks", "many"], "argument --tasks: 'many' is not a whole number"),
        (["--threads", "0", "--tasks", "0"], "--threads and --tasks are both 0"),
        (["--duration", "0"], "argument --duration: 0 is not between 0.01 and 3600"),
        (["--duration", "nan"], "argument --duration: nan is not between"),
        (["--max-batch-size", "0"], "argument --max-batch-size: 0 is not between 1 and"),
        (["--max-batch-size", "2.5"], "argument --max-batch-size: '2.5' is not a whole number"),
        (["--max-latency-ms", "-0.5"], "argument --max-latency-ms: -0.5 is not between 0 and"),
        (["--max-latency-ms", "soon"], "argument --max-latency-ms: 'soon' is not a number"),
        (["--seed", "4294967296"], "argument --seed: 4294967296 is not between 0 and 4294967295"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(
    argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code("demo", *argv) == 2
    *usage, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"pybatch demo: error: {complaint}")
    assert not any("error" in other for other in usage)


def test_no_command_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code() == 2
    assert "required: COMMAND" in capsys.readouterr().err


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `package` look as if it were not installed, however much of it is imported already."""
    for name in {package, *sys.modules}:
        if name.partition(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "pybatch.demo", raising=False)
    monkeypatch.delattr(pybatch, "demo", raising=False)


@pytest.mark.parametrize("package", ["rich", "sklearn"])
def test_a_missing_extra_is_said_in_one_line(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(package, monkeypatch)
    assert main(["demo"]) == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == ["pybatch demo needs scikit-learn and rich: pip install 'batchcore[demo]'"]
    assert not captured.out


def test_a_broken_installation_is_not_taken_for_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without("prometheus_client", monkeypatch)
    with pytest.raises(ModuleNotFoundError, match="prometheus_client"):
        main(["demo"])


def test_the_command_line_alone_imports_no_extra() -> None:
    code = "import sys, pybatch.cli; sys.exit(any(name in sys.modules for name in ('rich', 'sklearn', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ctrl_c_while_callers_wait_ends_at_once_without_a_traceback() -> None:
    process = subprocess.Popen(
        [*PYBATCH, "demo", "--duration", "1.5"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        assert any(line.startswith("batched") for line in process.stderr)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err.splitlines()) == (130, "", ["interrupted"])
