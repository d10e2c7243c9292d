"""An assignment becomes a plan, with the forecast that the tables make of it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from mpsearch.core.formats import format_named
from mpsearch.core.graph import is_product_name, second_input
from mpsearch.core.hardware import Resource
from mpsearch.core.placement import LAYER_INPUTS, addend_quantizers
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.tables import CostTable, SensitivityTable

# The summed loss neglects how errors of different layers interact: where that was measured,
# sums were 4 to 12 % off (docs/decisions/0007). Twice the worst is accepted.
LOSS_MODEL_ERROR: Final = 0.25
# 95 % of a normal distribution lie within this many standard deviations.
Z_95: Final = 1.959964
TAIL_LATENCY: Final = "latency_p99_ns"


def predicted_loss(
    sensitivity: SensitivityTable,
    *,
    assignment: Mapping[str, str],
    base: str,
    placement: str = LAYER_INPUTS,
) -> float:
    """Return the summed loss of an assignment, those of its base and placement included.

    A layer in the base adds nothing; shared weights add once per layer.
    """
    rows = {name: place for place, name in enumerate(sensitivity.layers)}
    columns = {name: place for place, name in enumerate(sensitivity.formats)}
    return sensitivity.constant_loss(base=base, placement=placement) + sum(
        float(sensitivity.loss[rows[layer], columns[name]])
        for layer, name in assignment.items()
        if name != base
    )


def plan_of(
    sensitivity: SensitivityTable,
    cost: CostTable,
    *,
    assignment: Mapping[str, str],
    budgets: Sequence[Budget],
    origin: str,
    bound: float | None = None,
    gap: float | None = None,
) -> Plan:
    """Return the plan of an assignment under the base, placement and settings of `cost`."""
    loss = predicted_loss(
        sensitivity, assignment=assignment, base=cost.base, placement=cost.placement
    )
    spend = {name: float(value) for name, value in cost.spend(assignment).items()}
    return Plan(
        assignment=assignment,
        base=cost.base,
        placement=cost.placement,
        runtime=cost.device.runtime,
        settings=cost.settings,
        workloads=cost.workloads,
        quantizers={
            layer: sensitivity.quantizers[layer]
            for layer, name in _inputs(assignment)
            if _needs_quantizer(name)
        }
        | addend_quantizers(
            sensitivity.quantizers, assignment=assignment, additions=cost.additions or {}
        ),
        budgets=tuple(budgets),
        forecast={"loss": loss, **spend, **_tails(cost, spend=spend)},
        tolerance=_tolerance(cost, loss=loss, spend=spend),
        bound=bound,
        gap=gap,
        origin=origin,
        model=sensitivity.provenance.model,
        provenance=cost.provenance,
    )


def _tolerance(cost: CostTable, *, loss: float, spend: Mapping[str, float]) -> dict[str, float]:
    """Return what the forecast may be off by: nothing where amounts are counted."""
    accepted = dict.fromkeys(spend, 0.0) | {"loss": LOSS_MODEL_ERROR * loss}
    for resource, calibration in cost.calibration.items():
        spread = math.hypot(calibration.relative_error, calibration.repeatability)
        accepted[resource] = Z_95 * spread * spend[resource]
    return accepted


def _tails(cost: CostTable, *, spend: Mapping[str, float]) -> dict[str, float]:
    """Return the 99th percentiles of latency: as far above the median as of measured plans."""
    found: dict[str, float] = {}
    for name in spend:
        if not name.startswith(Resource.LATENCY_NS):
            continue
        tail = name.replace(Resource.LATENCY_NS, TAIL_LATENCY, 1)
        ratios = [
            plan.amount[tail] / plan.amount[name] for plan in cost.measured if tail in plan.amount
        ]
        if ratios:
            found[tail] = spend[name] * median(ratios)
    return found


def _inputs(assignment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the key of each input's quantiser and its format: two of a product."""
    for layer, name in assignment.items():
        yield layer, name
        if is_product_name(layer):
            yield second_input(layer), name


def _needs_quantizer(name: str) -> bool:
    return format_named(name).is_static
