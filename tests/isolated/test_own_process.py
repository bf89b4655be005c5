"""Scripts that have to end by themselves, each in a process of its own: exit, fork, interruption, memory.

A script prints what it has to say and ends with ``done``; standard error stays empty.  Its file says in its docstring
what it shows.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT_S = 60.0
PROMPT_S = 15.0
"""Longest that a process may go on after it was told to end: an interpreter's start and end on a busy machine."""

HERE = Path(__file__).parent

COMPLETE = sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith(("test_", "interrupted_")))
INTERRUPTED = sorted(path.stem for path in HERE.glob("interrupted_*.py"))

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")


def command(script: str) -> list[str]:
    return [sys.executable, "-X", "faulthandler", str(HERE / f"{script}.py")]


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=needs_fork if name.startswith("fork") else ()) for name in COMPLETE]
)
def test_a_script_ends_by_itself_and_says_nothing_unexpected(script: str) -> None:
    ended = subprocess.run(command(script), capture_output=True, text=True, timeout=LIMIT_S, check=False)
    told = f"{script} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    assert ended.returncode == 0, told
    assert ended.stderr == "", told
    assert ended.stdout.endswith("done\n"), told
    assert ended.stdout.count("done\n") == 1, told


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_kept_though_a_batch_never_ends(code: int) -> None:
    began = time.monotonic()
    ended = subprocess.run(
        [*command("exit_while_fn_never_returns"), str(code)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "done\n", "")
    assert time.monotonic() - began < PROMPT_S


@pytest.mark.skipif(os.name == "nt", reason="a process group cannot be sent SIGINT alone there")
@pytest.mark.parametrize("script", INTERRUPTED)
def test_ctrl_c_ends_a_script_promptly(script: str) -> None:
    with subprocess.Popen(command(script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            time.sleep(0.2)  # it says so just before it begins to wait
            process.send_signal(signal.SIGINT)
            began = time.monotonic()
            told, errors = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert time.monotonic() - began < PROMPT_S
    assert process.returncode == -signal.SIGINT, (told, errors)
    assert errors.endswith("KeyboardInterrupt\n"), errors
    assert not re.search("Fatal|Exception in|Exception ignored|never retrieved|destroyed", errors), errors
