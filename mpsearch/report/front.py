"""The front: least predicted loss for each limit of one resource, with what was measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, final, runtime_checkable

from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Budget, Plan
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import amount, plain, round_amount
from mpsearch.report.scale import Scale, scale_of
from mpsearch.report.tried import TriedPlan

_TOP: Final = 100.0


@runtime_checkable
class FrontPointLike(Protocol):
    """A point that the workflow solved for."""

    @property
    def limit(self) -> float: ...  # noqa: D102 - named as what it holds

    @property
    def loss(self) -> float: ...  # noqa: D102 - the same

    @property
    def spend(self) -> Mapping[str, float]: ...  # noqa: D102 - the same

    @property
    def base(self) -> str: ...  # noqa: D102 - the same


@final
@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of the chart in percent from the left and from the top."""

    kind: Literal["front", "candidate", "reference", "returned", "forecast"]
    left: float
    top: float
    title: str
    spend: str
    loss: str
    base: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Tick:
    """A line of the grid and its label."""

    at: float
    text: str


@final
@dataclass(frozen=True, kw_only=True)
class FrontView:
    """The chart: a staircase (SVG path in a square of 100), marks, grid and the budget."""

    resource: str
    path: str
    marks: tuple[Mark, ...]
    across: tuple[Tick, ...]
    upward: tuple[Tick, ...]
    limit: Tick | None
    is_logarithmic: bool

    @property
    def table(self) -> tuple[Mark, ...]:
        """Return the marks as rows: the front in its order, then what was measured."""
        return self.marks


def resource_of(budget: Budget) -> str:
    """Return the resource that a budget limits, by its name in the tables."""
    kind, at, workload = budget.name.partition("@")
    return f"{Resource.LATENCY_NS}{at}{workload}" if kind.startswith("latency") else kind


def front_view(
    plan: Plan, *, front: Sequence[FrontPointLike], tried: Sequence[TriedPlan]
) -> FrontView | None:
    """Return the chart of the first budget's resource, or None where there is nothing to draw."""
    budget = plan.budgets[0] if plan.budgets else None
    resource = resource_of(budget) if budget else str(Resource.WEIGHT_BYTES)
    solved = [
        (point.spend.get(resource, point.limit), point.loss, point.base)
        for point in front
        if math.isfinite(point.loss)
    ]
    measured = [each for each in tried if each.loss is not None and resource in each.amount]
    if len(solved) + len(measured) < 2:  # noqa: PLR2004 - one point is no chart
        return None
    limit = budget.limit if budget else math.nan
    spends = [*(point[0] for point in solved), *(each.amount[resource] for each in measured), limit]
    losses = [*(point[1] for point in solved), *(each.loss or 0.0 for each in measured)]
    across, upward = scale_of(spends), scale_of(losses)
    unit = unit_of(resource)
    marks = [
        *_solved_marks(solved, across=across, upward=upward, unit=unit),
        *_measured_marks(measured, plan=plan, resource=resource, across=across, upward=upward),
    ]
    if resource in plan.forecast and "loss" in plan.forecast:
        marks.append(_forecast_mark(plan, resource=resource, across=across, upward=upward))
    return FrontView(
        resource=title_of(resource),
        path=_staircase(solved, across=across, upward=upward),
        marks=tuple(marks),
        across=tuple(
            Tick(at=across.percent(v), text=round_amount(v, unit=unit)) for v in across.ticks()
        ),
        upward=tuple(
            Tick(at=_TOP - upward.percent(v), text=round_amount(v, unit="")) for v in upward.ticks()
        ),
        limit=None
        if budget is None
        else Tick(at=across.percent(limit), text=f"budget {amount(limit, unit=unit)}"),
        is_logarithmic=upward.logarithmic,
    )


def _solved_marks(
    solved: Sequence[tuple[float, float, str]], *, across: Scale, upward: Scale, unit: str
) -> list[Mark]:
    return [
        Mark(
            kind="front",
            left=across.percent(spend),
            top=_TOP - upward.percent(loss),
            title="optimum of the tables",
            spend=amount(spend, unit=unit),
            loss=plain(loss),
            base=base,
        )
        for spend, loss, base in solved
    ]


def _measured_marks(
    measured: Sequence[TriedPlan], *, plan: Plan, resource: str, across: Scale, upward: Scale
) -> list[Mark]:
    marks = []
    for each in measured:
        loss = each.loss if each.loss is not None else math.nan
        is_returned = is_same(each.plan, plan)
        kind: Literal["returned", "reference", "candidate"] = (
            "returned" if is_returned else "reference" if each.is_reference else "candidate"
        )
        marks.append(
            Mark(
                kind=kind,
                left=across.percent(each.amount[resource]),
                top=_TOP - upward.percent(loss),
                title=each.plan.origin or kind,
                spend=amount(each.amount[resource], unit=unit_of(resource)),
                loss=plain(loss),
                base=each.plan.base,
            )
        )
    # The returned plan is drawn last, on top.
    return sorted(marks, key=lambda mark: mark.kind == "returned")


def _forecast_mark(plan: Plan, *, resource: str, across: Scale, upward: Scale) -> Mark:
    spend, loss = plan.forecast[resource], plan.forecast["loss"]
    return Mark(
        kind="forecast",
        left=across.percent(spend),
        top=_TOP - upward.percent(loss),
        title="forecast of the returned plan",
        spend=amount(spend, unit=unit_of(resource)),
        loss=plain(loss),
        base=plan.base,
    )


def is_same(one: Plan, other: Plan) -> bool:
    """Return whether two plans deploy the same: base, placement and every format."""
    return (one.base, one.placement, dict(one.assignment)) == (
        other.base,
        other.placement,
        dict(other.assignment),
    )


def _staircase(solved: Sequence[tuple[float, float, str]], *, across: Scale, upward: Scale) -> str:
    """Return steps: a loss holds until the next plan is affordable."""
    points = sorted(
        (across.percent(spend), _TOP - upward.percent(loss)) for spend, loss, _ in solved
    )
    if not points:
        return ""
    steps = [f"M{points[0][0]} {points[0][1]}", *(f"H{x}V{y}" for x, y in points[1:])]
    return "".join([*steps, "H100"])
