"""Every example runs, and shows what it says it shows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example that the test is named after."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    return importlib.import_module(request.function.__name__.removeprefix("test_"))


def test_digits_stack(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    result = example.main()
    assert result.answers == 500 * example.ROUNDS * example.THREADS
    assert result.mismatches == 0
    assert result.mean_batch_size > 8
    assert result.batched_per_s > 2 * result.alone_per_s  # 20 and more where nothing else runs
    assert "80,000 of 80,000 answers equal the model's own" in capsys.readouterr().out


def test_sentences_pad(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    runs = example.main()
    alone, as_they_come, by_length, by_tokens = runs.values()
    for run in runs.values():
        np.testing.assert_allclose(run.vectors, alone.vectors, rtol=1e-10, atol=1e-10)
    assert as_they_come.padding > 0.6
    assert by_length.padding < 0.5
    assert by_tokens.padding < 0.4
    assert capsys.readouterr().out.count("sentences/s") == 4


def test_allowed_sizes(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    calls = example.main()
    assert {rows for _, rows in calls} <= set(example.SIZES)
    assert all(1 <= requests <= rows for requests, rows in calls)
    answered = sum(requests * times for (requests, _), times in calls.items())
    assert f"{answered:,} requests answered, 0 failed" in capsys.readouterr().out


def test_tenants(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    by_urgency, by_share = example.main()
    assert by_urgency.endswith("p")
    assert "pf" not in by_urgency
    contested = by_share[by_share.index("p") : by_share.rindex("p") + 1]
    assert contested.count("f") <= contested.count("p") / 3 + 1
    assert by_share.endswith("f")
    assert capsys.readouterr().out.count("has all its answers") == 2


def test_documents(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    result = example.main()
    assert result.passages == 930
    assert result.passages + 5 <= result.rows < result.passages + result.queries
    assert "100 queries and 930 passages" in capsys.readouterr().out
