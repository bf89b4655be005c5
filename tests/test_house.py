"""The rules of the house, held by reading the sources and by asking the interpreter."""

from __future__ import annotations

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE, API = ROOT / "src" / "batchcore", ROOT / "src" / "pybatch"

# Lower may not import higher, and options know no metrics.
FLOORS = {
    "options": {"policies"},
    "metrics": set(),
    "lifecycle": set(),
    "policies": set(),
    "simulation": {"options", "policies"},
    "explanation": set(),
    "recording": {"simulation"},
    "forms": {"options"},
    "batching": {"forms"},
    "fingerprints": set(),
    "scheduler": {
        *("batching", "fingerprints", "options", "metrics", "lifecycle", "policies", "explanation", "recording"),
    },
    "decorator": {"scheduler", "options"},
    "testing": {"scheduler", "options", "batching"},
    "demo": {"scheduler"},
    "commands": {"demo", "options", "simulation"},
    "cli": {"commands"},
}


def imports(path: Path) -> set[str]:
    """Return the modules that a Python file imports, with the names taken from them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def test_the_core_imports_nothing_of_pybatch() -> None:
    for path in CORE.iterdir():
        if path.suffix in {".py", ".pyx", ".pxd", ".pyi"}:
            assert not re.search(r"^\s*(from|c?import) pybatch", path.read_text(), re.M), path


def test_the_engine_knows_no_clock_thread_loop_log_or_metrics_library() -> None:
    names = ["_types", "queue", "cost", "histogram", "policy", "machine", "decision", "engine"]
    names += ["adaptive", "deadline", "lane", "grouping", "traffic", "_numeric", "random", "arrivals", "service"]
    names += ["simulator"]
    for name in names:
        for path in CORE.glob(f"{name}.p*"):
            text = path.read_text()
            used = re.findall(r"^\s*(?:from|import|cimport)\s+([\w.]+)", text, re.M)
            allowed = {"batchcore", "libc", "cpython", "cython", "array", "collections", "operator", "typing"}
            assert {module.split(".")[0] for module in used} <= allowed, path
            assert not {"batchcore._clock", "cpython.pythread"} & set(used), path
            # The lock of a machine lies beside it, for those who look at one that others drive.
            assert name == "engine" or "batchcore._lock" not in used, path


def test_pybatch_is_built_in_storeys() -> None:
    for path in API.rglob("*.py"):
        floor = path.relative_to(API).parts[0].removesuffix(".py")
        if floor == "__init__":
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("pybatch.")}
        assert used & set(FLOORS) <= FLOORS[floor] | {floor}, path


def test_the_loop_driver_does_not_know_the_thread_driver() -> None:
    assert not re.search(r"import.*workers", (CORE / "loops.pyx").read_text())


def test_no_shipped_check_is_an_assert() -> None:
    for path in (ROOT / "src").rglob("*.p*"):
        if path.suffix in {".py", ".pyx", ".pxd"}:
            assert not re.search(r"^\s*assert\b", path.read_text(), re.M), path


def test_no_test_sleeps() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        if not {"stress", "isolated"} & set(path.parts):
            assert not re.search(r"\b(time|asyncio)\.sleep\(", path.read_text()) or path == Path(__file__), path


def test_every_cdef_function_says_how_it_fails() -> None:
    definition = re.compile(r"^ *cp?def (?:inline )?([\w ]+[ *]+)\w+\(([^)]*)\)([^\n]*):$", re.M)
    sources = [*CORE.glob("*.pyx"), *CORE.glob("*.pxd")]
    classes = {name for path in sources for name in re.findall(r"^cdef class (\w+)", path.read_text(), re.M)}
    structs = {name for path in sources for name in re.findall(r"^cdef struct (\w+)", path.read_text(), re.M)}
    objects = classes - structs | {"object", "list", "tuple", "dict", "str"}
    found = 0
    for path in sources:
        for kind, _, ending in definition.findall(path.read_text()):
            if kind.strip() == "class":
                continue
            found += 1
            says = ending.strip() in {"noexcept nogil", "noexcept"} or ending.strip().startswith("except")
            assert says != (kind.strip() in objects), f"{path.name}: {kind}...{ending}"
    assert found > 50


def test_importing_pybatch_registers_and_starts_nothing() -> None:
    script = (
        "import sys, threading\n"
        "import pybatch\n"
        "assert threading.active_count() == 1\n"
        "names = {'numpy', 'torch', 'rich', 'sklearn', 'ray', 'matplotlib', 'plotly', 'prometheus_client', 'http'}\n"
        "names |= {'asyncio', 'ssl', 'subprocess'}\n"
        "assert not names & set(sys.modules), names & set(sys.modules)\n"
        "import prometheus_client as p; before = list(p.REGISTRY._collector_to_names)\n"
        "from pybatch import metrics\n"
        "metrics.register\n"
        "assert list(p.REGISTRY._collector_to_names) == before\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize("run_in", ["worker", "caller"])
def test_asyncio_is_imported_by_those_who_await(run_in: str) -> None:
    script = f"""
import sys, threading
from concurrent.futures import ThreadPoolExecutor, wait
from pybatch import Scheduler

def doubled(xs):
    if xs == [-1]:
        raise GeneratorExit
    if xs == [slow]:
        assert gate.wait(60)
    return [2 * x for x in xs]

slow, gate = 1000, threading.Event()
with Scheduler(doubled, max_queue_size=2, on_full="block", run_in="{run_in}", metrics=False) as scheduler:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(scheduler, range(100))) == list(range(0, 200, 2))
    assert list(scheduler.map(range(100))) == list(range(0, 200, 2))
    assert scheduler.submit(-1).exception() is not None
    wait([scheduler.submit(1)])
    try:
        next(scheduler.submit(slow).__await__())
    except RuntimeError as error:
        assert str(error) == "no running event loop"
    else:
        raise AssertionError
    gate.set()
    assert "asyncio" not in sys.modules

    import asyncio

    async def awaiting():
        future = await scheduler.submit_wait(7)
        assert await future == 14
        return await asyncio.gather(*[scheduler.submit(x) for x in range(2)])

    assert asyncio.run(awaiting()) == [0, 2]
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=60)


@pytest.mark.parametrize(
    "module",
    [
        "batchcore.assembly",
        "batchcore.engine",
        "batchcore.future",
        "batchcore.submitter",
        "pybatch",
        "pybatch.decorator",
        "pybatch.fingerprints",
        "pybatch.forms",
        "batchcore.current",
        "pybatch.scheduler",
        "pybatch.metrics.buckets",
        "pybatch.metrics.collector",
        "pybatch.simulation",
        "pybatch.simulation.measure",
        "pybatch.simulation.run",
        "pybatch.simulation.service",
        "pybatch.simulation.trace",
        "pybatch.simulation.tune",
        "pybatch.simulation.workloads",
        "pybatch.testing",
        "pybatch.testing.stepping",
    ],
)
def test_the_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize(
    "page", [path.name for path in sorted((ROOT / "docs").glob("*.md")) if ">>> " in path.read_text()]
)
def test_the_examples_in_pages_run(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    blocks = "".join(re.findall(r"^```python\n(>>> .*?)^```$", text, re.M | re.S))
    test = doctest.DocTestParser().get_doctest(blocks, {}, page, page, 0)
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.attempted > 0
    assert result.failed == 0
