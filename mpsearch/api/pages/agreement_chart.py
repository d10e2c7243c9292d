"""Predicted against measured: every plan that was built, in loss and in what is budgeted."""

import math
from dataclasses import dataclass
from typing import Any, final

from mpsearch.api.pages.choices import Choice
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import MINUS, amount, round_amount
from mpsearch.report.scale import scale_of


@final
@dataclass(frozen=True, kw_only=True)
class Pair:
    """What was predicted of a plan, and what was measured."""

    pick: str
    title: str
    predicted: str
    measured: str
    difference: str


@final
@dataclass(frozen=True, kw_only=True)
class Agreement:
    """One quantity of all plans, as rows and as points about the diagonal."""

    name: str
    title: str
    rows: tuple[Pair, ...]
    drawing: dict[str, Any]


def agreements(choices: tuple[Choice, ...]) -> tuple[Agreement, ...]:
    """Return the loss and each resource that was measured and not only counted."""
    found = [_agreement(name, choices=choices) for name in ("loss", "latency_ns")]
    return tuple(each for each in found if each is not None)


def _agreement(name: str, *, choices: tuple[Choice, ...]) -> Agreement | None:
    pairs = [
        (choice, choice.forecast.get(name, math.nan), _measured(choice, name)) for choice in choices
    ]
    pairs = [pair for pair in pairs if math.isfinite(pair[1]) and math.isfinite(pair[2])]
    if not pairs:
        return None
    unit = "" if name == "loss" else unit_of(name)
    scale = scale_of(value for pair in pairs for value in pair[1:])
    rows = tuple(
        Pair(
            pick=choice.pick,
            title=choice.title,
            predicted=amount(predicted, unit=unit),
            measured=amount(measured, unit=unit),
            difference=_difference(measured, predicted),
        )
        for choice, predicted, measured in pairs
    )
    drawing = {
        "points": [
            {
                "pick": row.pick,
                "place": (scale.percent(predicted), scale.percent(measured)),
                "text": f"{row.title}\npredicted {row.predicted}\nmeasured {row.measured}",
            }
            for row, (_, predicted, measured) in zip(rows, pairs, strict=True)
        ],
        "ticks": [
            (scale.percent(value), round_amount(value, unit=unit)) for value in scale.ticks()
        ],
    }
    title = "Loss" if name == "loss" else title_of(name)
    return Agreement(name=name, title=title, rows=rows, drawing=drawing)


def _measured(choice: Choice, name: str) -> float:
    if choice.measured is None:
        return math.nan
    if name == "loss":
        return math.nan if choice.measured.loss is None else choice.measured.loss
    return choice.measured.amount.get(name, math.nan)


def _difference(measured: float, predicted: float) -> str:
    if measured == predicted:
        return "exact"
    if not predicted:
        return ""
    change = measured / predicted - 1
    return f"{MINUS if change < 0 else '+'}{abs(change) * 100:.1f} %"
