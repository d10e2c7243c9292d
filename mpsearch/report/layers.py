"""The layers: format, sensitivity and cost of each, as rows and as lanes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Resource
from mpsearch.core.plan import Plan
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.report.numbers import TIMES, amount, plain, share
from mpsearch.report.scale import Scale, scale_of

_UNITS: Final = {
    str(Resource.WEIGHT_BYTES): "B",
    str(Resource.LATENCY_NS): "ns",
    str(Resource.BOPS): "BOPs",
    str(Resource.WEIGHT_BITS): "bits",
}
_ALWAYS: Final = (str(Resource.WEIGHT_BYTES), str(Resource.LATENCY_NS))
_TITLES: Final = {
    str(Resource.WEIGHT_BYTES): "Weight bytes",
    str(Resource.LATENCY_NS): "Latency",
    str(Resource.BOPS): "Bit operations",
    str(Resource.WEIGHT_BITS): "Weight bits",
}


@final
@dataclass(frozen=True, kw_only=True)
class Dot:
    """One format's loss in a layer, at `left` percent of the common axis."""

    format: str
    left: float
    text: str
    chosen: bool


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar from `left`, `width` wide, in percent; `text` is its number."""

    left: float
    width: float
    text: str
    negative: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class LayerRow:
    """All that is shown of a layer; `height` is that of its loss among all, in percent."""

    number: int
    name: str
    short: str
    kind: str
    format: str
    loss: str
    height: float
    stderr: str
    dots: tuple[Dot, ...]
    costs: Mapping[str, Bar]

    @property
    def summary(self) -> str:
        """Return the tooltip."""
        costs = "".join(
            f"\n{_TITLES.get(name, name)}: {bar.text}" for name, bar in self.costs.items()
        )
        return f"{self.number}. {self.name}\n{self.kind}\n{self.format}\nLoss: {self.loss}{costs}"


@final
@dataclass(frozen=True, kw_only=True)
class LayerView:
    """Rows with their common loss axis, which formats hold how much, and the costs shown."""

    rows: tuple[LayerRow, ...]
    loss_scale: Scale
    unit: str
    resources: Mapping[str, str]
    counts: Mapping[str, int]
    parameters: Mapping[str, float]


def layer_view(
    plan: Plan,
    *,
    sensitivity: SensitivityTable | None,
    cost: CostTable | None,
    graph: LayerGraph | None,
) -> LayerView:
    """Return the layers in order of execution with their shares of loss and cost."""
    names = graph.names if graph is not None else tuple(plan.assignment)
    losses = _losses(names, plan=plan, sensitivity=sensitivity)
    scale = _loss_scale(sensitivity)
    costs = _costs(names, plan=plan, cost=cost)
    kinds = _kinds(names, graph=graph)
    tallest = max((loss for loss, _ in losses if loss > 0), default=1.0)
    rows = tuple(
        LayerRow(
            number=place + 1,
            name=name,
            short=_short(name),
            kind=kinds[place],
            format=plan.assignment.get(name, plan.base),
            loss=plain(losses[place][0]),
            height=_height(losses[place][0], tallest=tallest),
            stderr=plain(losses[place][1]),
            dots=_dots(name, plan=plan, sensitivity=sensitivity, scale=scale),
            costs={resource: bars[place] for resource, bars in costs.items()},
        )
        for place, name in enumerate(names)
    )
    return LayerView(
        rows=rows,
        loss_scale=scale,
        unit="" if sensitivity is None else sensitivity.unit,
        resources={
            name: title_of(name) + (" against base" if any(bar.negative for bar in bars) else "")
            for name, bars in costs.items()
        },
        counts=Counter(row.format for row in rows),
        parameters=_parameter_shares(rows, graph=graph),
    )


def unit_of(resource: str) -> str:
    """Return the unit that a resource is counted in."""
    return _UNITS.get(resource, "")


def title_of(resource: str) -> str:
    """Return what a resource is called."""
    return _TITLES.get(resource, resource.replace("_", " ").capitalize())


def _losses(
    names: Sequence[str], *, plan: Plan, sensitivity: SensitivityTable | None
) -> list[tuple[float, float]]:
    """Return the loss and standard error of each layer's chosen format; the base loses nothing."""
    if sensitivity is None:
        return [(math.nan, math.nan)] * len(names)
    found = []
    for name in names:
        chosen = plan.assignment.get(name, plan.base)
        if chosen == plan.base or name not in sensitivity.layers:
            found.append((0.0, 0.0))
            continue
        row = sensitivity.layers.index(name)
        column = sensitivity.formats.index(chosen)
        found.append((float(sensitivity.loss[row, column]), float(sensitivity.stderr[row, column])))
    return found


def _height(loss: float, *, tallest: float) -> float:
    """Return the height of a bar in percent; what is missing or negative has none."""
    return round(100 * loss / tallest, 2) if loss > 0 else 0.0


def _loss_scale(sensitivity: SensitivityTable | None) -> Scale:
    values = [] if sensitivity is None else [float(value) for value in sensitivity.loss.ravel()]
    return scale_of(value for value in values if value > 0)


def _dots(
    name: str, *, plan: Plan, sensitivity: SensitivityTable | None, scale: Scale
) -> tuple[Dot, ...]:
    if sensitivity is None or name not in sensitivity.layers:
        return ()
    row = sensitivity.layers.index(name)
    chosen = plan.assignment.get(name, plan.base)
    dots = [
        Dot(
            format=format_,
            left=scale.percent(float(loss)),
            text=f"{format_}: {plain(float(loss))}",
            chosen=format_ == chosen,
        )
        for format_, loss in zip(sensitivity.formats, sensitivity.loss[row], strict=True)
        if math.isfinite(loss) and format_ != plan.base
    ]
    # The chosen one is drawn last, on top of its neighbours.
    return tuple(sorted(dots, key=lambda dot: dot.chosen))


def _costs(
    names: Sequence[str], *, plan: Plan, cost: CostTable | None
) -> dict[str, tuple[Bar, ...]]:
    if cost is None:
        return {}
    # Bits and operations tell little beyond bytes, unless they are what is limited.
    wanted = {*_ALWAYS, *(budget.name for budget in plan.budgets)}
    found = {}
    for resource, entries in cost.amount.items():
        if str(resource) not in wanted:
            continue
        spent = [
            float(entries[cost.layers.index(name), cost.formats.index(plan.assignment[name])])
            if name in cost.layers and plan.assignment.get(name) in cost.formats
            else 0.0
            for name in names
        ]
        total = float(plan.forecast.get(resource, sum(spent)))
        found[str(resource)] = _bars(spent, total=total, unit=unit_of(str(resource)))
    return found


def _bars(values: Sequence[float], *, total: float, unit: str) -> tuple[Bar, ...]:
    """Return bars of a common scale; with negative ones they start from the axis of zero."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    return tuple(
        Bar(
            left=round(100 * (min(value, 0.0) - low) / span, 3),
            width=round(100 * abs(value) / span, 3),
            text=f"{amount(value, unit=unit)} ({share(value / total)})" if value and total else "0",
            negative=value < 0,
        )
        for value in values
    )


def _kinds(names: Sequence[str], *, graph: LayerGraph | None) -> list[str]:
    if graph is None:
        return [""] * len(names)
    return [
        f"{layer.op} {f' {TIMES} '.join(map(str, layer.weight_shape))}" for layer in graph.layers
    ]


def _parameter_shares(rows: Sequence[LayerRow], *, graph: LayerGraph | None) -> dict[str, float]:
    """Return which share of the layers' numbers each format holds."""
    if graph is None:
        return {}
    total = sum(layer.parameters for layer in graph.layers) or 1
    shares: Counter[str] = Counter()
    for row, layer in zip(rows, graph.layers, strict=True):
        shares[row.format] += layer.parameters
    return {name: count / total for name, count in shares.items()}


def _short(name: str) -> str:
    """Return the end of a long name, which tells layers apart."""
    longest = 44
    return name if len(name) <= longest else "…" + name[1 - longest :]
