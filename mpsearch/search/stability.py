"""Which layers might get another format, were the sensitivities measured again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.random import Generator

from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import formulate
from mpsearch.solvers import solve

_REDRAWS: Final = 40
_SECONDS_EACH: Final = 0.5
# From this share on a layer is worth a word; so many are named.
_NOTABLE: Final = 0.1
_NAMED: Final = 5


def flip_shares(
    table: SensitivityTable,
    cost: CostTable,
    *,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str],
    generator: Generator,
    redraws: int = _REDRAWS,
) -> dict[str, float]:
    """Return, by layer, in which share of redraws the optimum gives it another format.

    A redraw takes each loss from the normal distribution around it whose deviation is its
    standard error (a parametric bootstrap: Efron, 1979), and solves again. An entry without
    a standard error stays as it is. Empty where no plan keeps the budgets.

    Args:
        table: Losses with standard errors.
        cost: Spending under one base and placement.
        budgets: Resolved limits.
        fixed: Format by layer name or pattern.
        generator: Of the redraws.
        redraws: How many are solved.
    """
    first = _optimum(table, cost, budgets=budgets, fixed=fixed)
    if first is None:
        return {}
    spread = np.nan_to_num(table.stderr)
    counts = dict.fromkeys(first, 0)
    for _ in range(redraws):
        loss = table.loss + spread * generator.standard_normal(spread.shape)
        again = _optimum(replace(table, loss=loss), cost, budgets=budgets, fixed=fixed)
        for layer, name in (again or first).items():
            counts[layer] += name != first[layer]
    return {layer: count / redraws for layer, count in counts.items()}


def _optimum(
    table: SensitivityTable,
    cost: CostTable,
    *,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str],
) -> dict[str, str] | None:
    formulation = formulate(table, cost, budgets=budgets, fixed=fixed)
    choice = solve(formulation.problem, time_limit_seconds=_SECONDS_EACH).choice
    return None if choice is None else formulation.assignment(np.asarray(choice))


def flips_told(shares: Mapping[str, float], *, formats: Mapping[str, str]) -> str:
    """Say which layers the data leaves open, the least settled first; '' where none is."""
    open_ = [layer for layer, share in shares.items() if share >= _NOTABLE]
    if not open_:
        return ""
    ranked = sorted(open_, key=lambda layer: -shares[layer])
    named = ", ".join(
        f"{layer} ({formats[layer]}, {shares[layer]:.0%})" for layer in ranked[:_NAMED]
    )
    more = f" and {len(ranked) - _NAMED} more" if len(ranked) > _NAMED else ""
    return (
        f"Measured again, {len(ranked)} of {len(shares)} layers might get another format, by the "
        f"standard errors: {named}{more}. More samples settle them."
    )
