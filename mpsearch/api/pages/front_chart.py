"""The front as a chart to click and a table to walk: predicted optima beside measured plans."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from mpsearch.api.pages.choices import RETURNED, Choice, present_limit, varied
from mpsearch.api.pages.result import Result
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import amount, plain, round_amount
from mpsearch.report.scale import Scale, scale_of

MEANINGS: Final = {
    "returned": "returned, measured",
    "candidate": "candidate, measured",
    "reference": "reference, measured",
    "front": "optimum, predicted",
}


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """A plan in the chart, in percent of its axes from the left and from below."""

    pick: str
    kind: str
    title: str
    base: str
    left: float
    up: float
    spend: str
    loss: str

    @property
    def meaning(self) -> str:
        """Return how its numbers came about."""
        return MEANINGS[self.kind]


@final
@dataclass(frozen=True, kw_only=True)
class FrontChart:
    """Points with their axes; `limit` is where the budget is."""

    resource: str
    unit: str
    points: tuple[Point, ...]
    across: Scale
    upward: Scale
    limit: tuple[float, str] | None

    @property
    def legend(self) -> dict[str, str]:
        """Return what each kind of mark that is shown means."""
        shown = {point.kind for point in self.points}
        return {kind: meaning for kind, meaning in MEANINGS.items() if kind in shown}

    @property
    def drawing(self) -> dict[str, Any]:
        """Return what the script draws."""
        return {
            "points": [
                {
                    "pick": point.pick,
                    "kind": point.kind,
                    "place": (point.left, point.up),
                    "text": f"{point.title}\n{point.spend}, loss {point.loss}\n{point.meaning}",
                }
                for point in self.points
            ],
            "across": _ticks(self.across, unit=self.unit),
            "upward": _ticks(self.upward, unit=""),
            "titles": (self.resource, "Loss (log scale)" if self.upward.logarithmic else "Loss"),
            "limit": self.limit,
        }


def front_chart(result: Result, *, choices: Mapping[str, Choice]) -> FrontChart | None:
    """Return the chart over what the front varies, None where there is nothing to draw."""
    resource = varied(result)
    shown = [
        (choice, kind, spend, loss)
        for choice in choices.values()
        for kind, spend, loss in _marks(choice, resource=resource)
        if math.isfinite(spend) and math.isfinite(loss)
    ]
    if len(shown) < 2:  # noqa: PLR2004 - one point is no chart
        return None
    limit = present_limit(result)
    across = scale_of([*(mark[2] for mark in shown), math.nan if limit is None else limit])
    upward = scale_of(mark[3] for mark in shown)
    unit = unit_of(resource)
    return FrontChart(
        resource=title_of(resource),
        unit=unit,
        points=tuple(
            Point(
                pick=choice.pick,
                kind=kind,
                title=choice.title,
                base=choice.plan.base,
                left=across.percent(spend),
                up=upward.percent(loss),
                spend=amount(spend, unit=unit),
                loss=plain(loss),
            )
            for choice, kind, spend, loss in shown
        ),
        across=across,
        upward=upward,
        limit=None
        if limit is None
        else (across.percent(limit), f"budget {amount(limit, unit=unit)}"),
    )


def place_of(chart: FrontChart | None, choice: Choice, *, resource: str) -> dict[str, Any]:
    """Return where a chosen plan stands in the chart, by its forecast."""
    forecast = choice.forecast
    if chart is None or not {resource, "loss"} <= set(forecast):
        return {"pick": choice.pick, "place": None}
    place = chart.across.percent(forecast[resource]), chart.upward.percent(forecast["loss"])
    return {"pick": choice.pick, "place": place}


def _marks(choice: Choice, *, resource: str) -> Sequence[tuple[str, float, float]]:
    """Return (kind, spend, loss) of a plan: measured where it was, otherwise predicted."""
    measured = choice.measured
    if choice.pick.startswith("front"):
        forecast = choice.forecast
        return [("front", forecast.get(resource, math.nan), forecast.get("loss", math.nan))]
    if measured is None or measured.loss is None:
        return []
    kind = (
        "returned"
        if choice.pick == RETURNED
        else "reference"
        if measured.is_reference
        else "candidate"
    )
    return [(kind, measured.amount.get(resource, math.nan), measured.loss)]


def _ticks(scale: Scale, *, unit: str) -> list[tuple[float, str]]:
    return [(scale.percent(tick), round_amount(tick, unit=unit)) for tick in scale.ticks()]
