"""Measuring a user's function: the sizes, the median, when to stop, and what to say when it is no batch function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pybatch.simulation.measure import CannotMeasure, Measurement, load, measure, sample


class Model:
    """Advances a clock of its own by what a batch costs; the first calls of each size take longer."""

    def __init__(self, cost_ms: Callable[[int], float], warm_up: float = 1.0) -> None:
        self.now_ns = 0
        self.cost_ms, self.warm_up = cost_ms, warm_up
        self.sizes: list[int] = []

    def __call__(self, items: list[Any]) -> list[Any]:
        factor = self.warm_up if self.sizes.count(len(items)) < 2 else 1.0
        self.sizes.append(len(items))
        self.now_ns += int(self.cost_ms(len(items)) * factor * 1e6)
        return items

    def clock_ns(self) -> int:
        return self.now_ns

    def measure(self, **options: Any) -> Any:
        return measure(self, int, clock_ns=self.clock_ns, **options)


def test_the_cost_model_is_the_median_of_each_size_after_warm_up() -> None:
    measured = Model(lambda size: 2 + size / 4, warm_up=30).measure(max_batch_size=24)
    assert measured.cost_model == [(1, 2.25), (2, 2.5), (4, 3.0), (8, 4.0), (16, 6.0), (24, 8.0)]
    assert measured.stopped is None


def test_one_slow_run_in_many_moves_only_the_spread() -> None:
    model = Model(lambda size: 50 if len(model.sizes) == 5 else 1)
    (row,) = model.measure(max_batch_size=1).measurements
    assert (row.median_ms, row.low_ms, row.high_ms) == (1, 1, 1)


def test_a_fast_function_runs_a_hundred_times_and_a_slow_one_three_times() -> None:
    assert [row.runs for row in Model(lambda size: 1e-3).measure(max_batch_size=2).measurements] == [100, 100]
    assert [row.runs for row in Model(lambda size: 1000).measure(max_batch_size=2).measurements] == [3, 3]


def test_no_size_above_the_first_that_takes_too_long_is_tried() -> None:
    model = Model(lambda size: 100 * size)
    measured = model.measure(max_batch_size=64, slowest_ms=350)
    assert [size for size, _ in measured.cost_model] == [1, 2, 4]
    assert max(model.sizes) == 4
    assert measured.stopped == "a batch of 4 takes 400 ms, more than 350 ms: no larger one was tried"


def test_a_slow_first_call_alone_does_not_stop_it() -> None:
    measured = Model(lambda size: 10, warm_up=1000).measure(max_batch_size=4, slowest_ms=5000)
    assert measured.cost_model == [(1, 10), (2, 10), (4, 10)]
    assert measured.stopped is None


def test_progress_is_told_each_size_as_soon_as_it_is_measured() -> None:
    told: list[Measurement] = []
    measured = Model(lambda size: 1).measure(max_batch_size=4, progress=told.append)
    assert tuple(told) == measured.measurements


def test_an_async_function_is_measured_without_the_cost_of_its_task() -> None:
    model = Model(lambda size: size)

    async def predict(items: list[Any]) -> list[Any]:
        return model(items)

    assert measure(predict, int, max_batch_size=2, clock_ns=model.clock_ns).cost_model == [(1, 1), (2, 2)]


def test_items_are_made_afresh_so_that_a_function_may_write_into_them() -> None:
    def greedy(items: list[list[int]]) -> list[int]:
        return [item.pop() for item in items]

    assert len(measure(greedy, sample("[1]"), max_batch_size=2, seconds_per_size=0).measurements) == 2


@pytest.mark.parametrize(
    ("fn", "lesson"),
    [
        (lambda items: items[:1], r"returned 1 results for a batch of 2.*one result for each"),
        (sum, r"must return a sequence.*batch of 1 it returned int"),
        (lambda items: "ab"[: len(items)], r"must return a sequence.*returned str"),
        (
            lambda items: 1 / 0,
            r"raised ZeroDivisionError for a batch of 1: division by zero; it gets a list of 1 item ",
        ),
        (lambda items: [ValueError("no")] * len(items), r"returned ValueError\('no'\) as a result"),
    ],
)
def test_what_is_no_batch_function_is_told_what_it_must_be(fn: Callable[[list[Any]], Any], lesson: str) -> None:
    with pytest.raises(CannotMeasure, match=lesson):
        measure(fn, int, max_batch_size=2, seconds_per_size=0)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a module of a name of its own."""
    (tmp_path / "app_to_measure.py").write_text(
        "class Model:\n    def predict(self, items):\n        return items\n"
        "model = Model()\nwidth = 3\ndef predict(items):\n    return items\n"
    )
    (tmp_path / "app_that_exits.py").write_text("raise SystemExit('needs a GPU')\n")
    (tmp_path / "app_that_lacks.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


@pytest.mark.usefixtures("app")
def test_a_function_or_a_method_is_loaded_from_the_current_folder() -> None:
    assert load("app_to_measure:predict")([1]) == [1]
    assert load("app_to_measure:model.predict")([2]) == [2]


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("name", "lesson"),
    [
        ("predict", "not of the form module:function; write, for example, app:predict"),
        ("nowhere_to_be_found:predict", "there is no module 'nowhere_to_be_found' here; run this in the folder"),
        ("app_to_measure:forecast", "'app_to_measure' has no 'forecast'; it has Model, predict"),
        ("app_to_measure:model.forecast", "has no 'forecast'"),
        ("app_that_exits:predict", "raised SystemExit: needs a GPU"),
        ("app_that_lacks:predict", "raised ModuleNotFoundError: No module named 'no_such_library'"),
    ],
)
def test_what_cannot_be_loaded_says_why(name: str, lesson: str) -> None:
    with pytest.raises(CannotMeasure, match=lesson):
        load(name)


@pytest.mark.usefixtures("app")
def test_a_sample_is_json_or_a_function_or_an_expression() -> None:
    load("app_to_measure:predict")
    assert sample('"hello"')() == "hello"
    assert sample("app_to_measure:width")() == 3
    assert sample("app_to_measure:Model")().predict([1]) == [1]
    assert sample("[0.5] * width", "app_to_measure")() == [0.5, 0.5, 0.5]
    assert sample("(1, 2)")() == (1, 2)


def test_a_sample_that_is_none_of_these_says_how_to_write_text() -> None:
    with pytest.raises(CannotMeasure, match=r"neither JSON nor module:function.*NameError.*'\"hello\"'"):
        sample("hello")
