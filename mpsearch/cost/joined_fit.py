"""Whole plans that were timed after a profile join its fit: the table learns where it was off."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.hardware import Resource
from mpsearch.core.tables import Calibration, CostTable, MeasuredPlan
from mpsearch.cost.sampling import choice_of

# As in the first fit: what is different about a layer, of the mean time of a layer, and what a
# whole plan is off by.
_LAYER_PRIOR: Final = 0.30
_PLAN_NOISE: Final = 0.015
_RANDOM: Final = "random"  # plans that the first fit was tested on


def with_measurements(table: CostTable, measured: Sequence[MeasuredPlan]) -> CostTable:
    """Return the table with its latency entries corrected by plans that were timed.

    Each entry of a layer and format gets a correction d, presumed normal around zero, and
    whole plans, those of the profile included, say what the corrections of their entries sum to:
    the conditional mean of d given `measured - forecast` is added. With one presumed deviation
    for all entries its kernel is the number of layers in which two plans have the same format.
    So a plan is forecast nearly as it was measured, plans like it follow in proportion,
    and the profile's own plans hold the rest in place. The error that forecasts are promised
    within then includes that of the new plans, as the table forecast them before.
    Source: Rasmussen & Williams (2006), Gaussian Processes, equations 2.11 and 2.12.

    Args:
        table: A profile, or one that plans have joined already.
        measured: Plans under the table's base and placement, on a machine as fast as it was
            while profiling; latencies by the names of the table's resources.
    """
    latencies = [name for name in table.amount if name.startswith(Resource.LATENCY_NS)]
    amount, calibration = dict(table.amount), dict(table.calibration)
    for name in latencies:
        new = [plan for plan in measured if name in plan.amount]
        if not new:
            continue
        known = [plan for plan in table.measured if name in plan.amount]
        amount[name] = amount[name] + _corrections(table, [*known, *new], resource=name)
        if name in calibration:
            calibration[name] = _with_errors(table, new, resource=name)
    return replace(
        table,
        amount=amount,
        calibration=calibration,
        measured=(*table.measured, *measured),
    )


def _corrections(
    table: CostTable, plans: Sequence[MeasuredPlan], *, resource: str
) -> Int[ndarray, "L F"]:
    """Return what is added to each entry, in whole nanoseconds."""
    choice = np.stack(
        [choice_of(p.assignment, layers=table.layers, formats=table.formats) for p in plans]
    )
    times = np.array([plan.amount[resource] for plan in plans], dtype=np.float64)
    missed = times - np.array([table.spend(plan.assignment)[resource] for plan in plans])
    deviation = _LAYER_PRIOR * float(np.median(times)) / len(table.layers)
    alike = (choice[:, None, :] == choice[None, :, :]).sum(axis=2)
    noise = np.hypot(_PLAN_NOISE * times, _stderr(plans, resource=resource))
    weight = np.linalg.solve(deviation**2 * alike + np.diag(noise**2), missed)
    has = choice[:, :, None] == np.arange(len(table.formats))
    corrections = deviation**2 * np.einsum("n,nlf->lf", weight, has)
    whole: Int[ndarray, "L F"] = np.rint(corrections).astype(np.int64)
    return whole


def _stderr(plans: Sequence[MeasuredPlan], *, resource: str) -> Float[ndarray, " N"]:
    name = resource.replace(Resource.LATENCY_NS, "latency_stderr_ns", 1)
    return np.array([plan.amount.get(name, 0.0) for plan in plans], dtype=np.float64)


def _with_errors(table: CostTable, new: Sequence[MeasuredPlan], *, resource: str) -> Calibration:
    """Return the calibration with the error over new plans too, before they joined."""
    before = table.calibration[resource]
    count = sum(plan.role == _RANDOM for plan in table.measured) or 1
    errors = [table.spend(plan.assignment)[resource] / plan.amount[resource] - 1 for plan in new]
    squares = count * before.relative_error**2 + float(np.sum(np.square(errors)))
    return replace(before, relative_error=float(np.sqrt(squares / (count + len(errors)))))
