"""A row of the zoo is measured once, and kept where it succeeded."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.models import zoo as bar

_GOOD, _BAD = "cifar10_resnet20", "cifar10_resnet32"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the models that were searched, in order; one of them always fails."""
    found: list[str] = []

    def searched(name: str, *, small: bool) -> tuple[dict[str, Any], str]:
        found.append(f"{name}{' small' if small else ''}")
        if name == _BAD:
            return {}, "ended with 1"
        row = {"plan": {"loss": 1.0}, "one_format": {"loss": 2.0}, "missed": [], "broken": []}
        return row, ""

    monkeypatch.setattr(bar, "_searched", searched)
    monkeypatch.setattr(bar, "_models", lambda: [_GOOD, _BAD])
    return found


def test_a_row_that_is_there_is_not_measured_again(asked: list[str], tmp_path: Path) -> None:
    first = list(bar.zoo(small=False, kept=tmp_path))
    again = list(bar.zoo(small=False, kept=tmp_path))
    assert asked == [_GOOD, _BAD, _BAD]  # a failure is no row
    assert [each.value for each in first] == [each.value for each in again]
    assert again[0].extra["was_kept"]
    assert "was_kept" not in first[0].extra


def test_rows_are_measured_again_when_told_so_or_elsewhere(
    asked: list[str], tmp_path: Path
) -> None:
    list(bar.zoo(small=False, kept=tmp_path / "a"))
    list(bar.zoo(small=False, kept=tmp_path / "a", is_fresh=True))
    list(bar.zoo(small=False, kept=tmp_path / "b"))
    assert asked.count(_GOOD) == 3


def test_the_small_form_keeps_nothing(asked: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        list(bar.zoo(small=True, kept=tmp_path))
    assert asked.count(f"{_GOOD} small") == 2
    assert not list(tmp_path.iterdir())
