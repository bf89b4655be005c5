"""What is installed, and what a person without a compiler is told."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_it_installs_code_stubs_and_marks_and_nothing_else() -> None:
    installed = [Path(file) for file in files("batchcore") or []]
    packages = [path for path in installed if path.parts[0] in {"batchcore", "pybatch"} and path.suffix != ".pyc"]
    assert {path.suffix or path.name for path in packages} <= {".py", ".pyi", ".so", ".pyd", ".typed"}
    assert {path.parts[0] for path in packages if path.name == "py.typed"} == {"batchcore", "pybatch"}
    others = {path.parts[0] for path in installed} - {"batchcore", "pybatch", ".."}
    assert all(name.endswith(".dist-info") for name in others), others


@pytest.mark.skipif(os.name == "nt", reason="setuptools finds MSVC by itself, whatever CC says")
@pytest.mark.parametrize("compiler", ["/nowhere/gcc", "cc -include no_such_header.h"])
def test_without_a_compiler_or_headers_the_build_says_what_to_install(compiler: str, tmp_path: Path) -> None:
    build = (sys.executable, "setup.py", "build_ext", f"--build-temp={tmp_path}", f"--build-lib={tmp_path}")
    ended = subprocess.run(
        build, cwd=ROOT, env=os.environ | {"CC": compiler}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    told = ended.stderr[-800:]  # the end, where it is seen
    for lesson in ("apt-get install gcc python3-dev", "xcode-select --install", "Build Tools for", "pip install"):
        assert lesson in told
    assert "Traceback" not in ended.stderr
    assert "Cythonizing" not in ended.stdout  # at once, not after the minutes that this takes
