"""What tells two plans apart: layers in another format, and what that changes."""

import math
from dataclasses import dataclass
from typing import final

from mpsearch.api.pages.choices import Choice
from mpsearch.api.pages.result import Result
from mpsearch.core.plan import Plan
from mpsearch.report.layers import title_of, unit_of
from mpsearch.report.numbers import ABSENT, MINUS, amount
from mpsearch.report.proof import resources_of


@final
@dataclass(frozen=True, kw_only=True)
class Total:
    """One quantity of both plans, predicted by the tables."""

    title: str
    one: str
    other: str
    change: str
    share: str


@final
@dataclass(frozen=True, kw_only=True)
class ChangedLayer:
    """A layer whose format differs, with what the change does to its loss and bytes."""

    name: str
    one: str
    other: str
    loss: str
    bytes: str


@final
@dataclass(frozen=True, kw_only=True)
class Difference:
    """Two plans side by side."""

    one: Choice
    other: Choice
    totals: tuple[Total, ...]
    layers: tuple[ChangedLayer, ...]
    several: int


def difference(one: Choice, other: Choice, *, result: Result) -> Difference:
    """Return how the second plan differs from the first."""
    names = result.summary.graph.names
    changed = [
        name
        for name in names
        if one.plan.assignment.get(name, one.plan.base)
        != other.plan.assignment.get(name, other.plan.base)
    ]
    shown = ("loss", *resources_of(result.plan))
    return Difference(
        one=one,
        other=other,
        totals=tuple(_total(name, one=one, other=other) for name in shown),
        layers=tuple(
            _layer(name, one=one.plan, other=other.plan, result=result) for name in changed
        ),
        several=len(names),
    )


def _total(name: str, *, one: Choice, other: Choice) -> Total:
    unit = "" if name == "loss" else unit_of(name)
    first, second = (choice.forecast.get(name, math.nan) for choice in (one, other))
    change = second - first
    share = "" if not first or not math.isfinite(change) else _signed_share(change / first)
    return Total(
        title="Predicted loss" if name == "loss" else title_of(name),
        one=amount(first, unit=unit),
        other=amount(second, unit=unit),
        change=_signed(change, unit=unit),
        share=share,
    )


def _layer(name: str, *, one: Plan, other: Plan, result: Result) -> ChangedLayer:
    changes = [
        _of_layer(name, plan=other, result=result, of=of)
        - _of_layer(name, plan=one, result=result, of=of)
        for of in ("loss", "weight_bytes")
    ]
    return ChangedLayer(
        name=name,
        one=one.assignment.get(name, one.base),
        other=other.assignment.get(name, other.base),
        loss=_signed(changes[0], unit=""),
        bytes=_signed(changes[1], unit="B"),
    )


def _of_layer(name: str, *, plan: Plan, result: Result, of: str) -> float:
    """Return a layer's own loss or bytes in the format that a plan gives it."""
    format_ = plan.assignment.get(name, plan.base)
    if of == "loss":
        table = result.sensitivity
        if format_ == plan.base or name not in table.layers:
            return 0.0
        return float(table.loss[table.layers.index(name), table.formats.index(format_)])
    cost = result.cost_of(plan)
    amounts = None if cost is None else cost.amount.get(of)
    if cost is None or amounts is None or name not in cost.layers or format_ not in cost.formats:
        return math.nan
    return float(amounts[cost.layers.index(name), cost.formats.index(format_)])


def _signed(value: float, *, unit: str) -> str:
    if not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    return f"{MINUS if value < 0 else '+'}{amount(abs(value), unit=unit)}"


def _signed_share(value: float) -> str:
    return f"{MINUS if value < 0 else '+'}{abs(value) * 100:.1f} %" if value else "same"
