"""From lean to safe: how far budgets are searched for a bound, and on which data."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import torch
from torch import nn

from benchmarks.cost.leanest import FASTEST, Leanest, Request, Step
from benchmarks.cost.rivals import unpadded
from benchmarks.cost.subjects import Subject
from mpsearch.errors import InfeasibleBudgetError

_NO_RESULT: Final[Any] = None  # nothing looks at it
_DROPS = {"100%": 0.3, "105%": None, "115%": 0.1, "130%": 0.01, "160%": 0.0}


def _leanest(monkeypatch: pytest.MonkeyPatch, searched: list[str]) -> Leanest:
    def step(_: Leanest, budgets: Mapping[str, str], *, ranges: str) -> Any:  # noqa: ANN401 - stands for a search
        assert ranges == "mse"
        share = budgets["latency"].split()[0]
        searched.append(share)
        drop = _DROPS[share]
        if drop is None:
            raise InfeasibleBudgetError("nothing fits", smallest={})
        return Step(budgets=budgets, ranges=ranges, result=_NO_RESULT, drop=drop, stderr=0.004)

    monkeypatch.setattr(Leanest, "_step", step)
    subject = Subject(
        name="nothing",
        model=nn.Identity(),
        task="classification",
        calibration=[],
        judging=[],
        parts={"validation": [], "test": []},
        score=lambda _forward, _pieces: 0.0,
        shape=(1,),
    )
    return Leanest(request=Request(subject=subject), folder=Path("unused"), effort=1.0)


def test_the_search_stops_at_the_first_budgets_that_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    found = _leanest(monkeypatch, searched).within(0.11)
    assert found.drop == 0.1
    assert searched == ["100%", "105%", "115%"]  # what no plan keeps is passed over


def test_a_drop_must_hold_with_a_standard_error_to_spare(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _leanest(monkeypatch, []).within(0.103).drop == 0.01
    assert _leanest(monkeypatch, []).within(0.105).drop == 0.1


def test_a_looser_bound_takes_an_earlier_step_and_searches_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched: list[str] = []
    leanest = _leanest(monkeypatch, searched)
    assert leanest.within(0.11).drop == 0.1
    assert leanest.within(0.5).drop == 0.3
    assert leanest.within(0.02).drop == 0.01
    assert searched == ["100%", "105%", "115%", "130%"]


def test_where_nothing_holds_the_safest_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[str] = []
    assert _leanest(monkeypatch, searched).within(-1.0).drop == 0.0
    assert len(searched) == len(FASTEST)


def test_rivals_calibrate_on_samples_without_their_padding() -> None:
    batch = {
        "input_ids": torch.tensor([[5, 6, 0, 0], [7, 8, 9, 1]]),
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]]),
        "labels": torch.tensor([0, 1]),
    }
    rows = list(unpadded(batch))
    assert [row["input_ids"].tolist() for row in rows] == [[[5, 6]], [[7, 8, 9, 1]]]
    assert all(set(row) == {"input_ids", "attention_mask"} for row in rows)
