"""Which layers might get another format, were the sensitivities measured again."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.plan import Budget
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import Formulation, formulate
from mpsearch.solvers import stability

_DRAWS: Final = 40
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
    draws: int = _DRAWS,
) -> dict[str, float]:
    """Return, by layer, in which share of draws the optimum gives it another format.

    Losses are drawn anew within their standard errors (`solvers.stability`); an entry
    without one stays as it is. Empty where no plan keeps the budgets, or there are none.

    Args:
        table: Losses with standard errors.
        cost: Spending under one base and placement.
        budgets: Resolved limits.
        fixed: Format by layer name or pattern.
        generator: Of the draws.
        draws: How many are solved.
    """
    if not budgets:
        return {}
    formulation = formulate(table, cost, budgets=budgets, fixed=fixed)
    errors = _block_errors(table, formulation=formulation, base=cost.base)
    found = stability(formulation.problem, errors, draws=draws, generator=generator)
    if found is None:
        return {}
    return {
        layer: float(share)
        for block, share in zip(formulation.blocks, found.share, strict=True)
        for layer in block
    }


def _block_errors(
    table: SensitivityTable, *, formulation: Formulation, base: str
) -> Float64[ndarray, "D F"]:
    """Return standard errors by block and format; those of a block's layers are independent."""
    rows = {name: place for place, name in enumerate(table.layers)}
    squares = np.zeros((len(formulation.blocks), len(formulation.formats)))
    for column, name in enumerate(formulation.formats):
        if name == base or name not in table.formats:
            continue
        known = np.square(np.nan_to_num(table.stderr[:, table.formats.index(name)]))
        for place, block in enumerate(formulation.blocks):
            squares[place, column] = known[[rows[layer] for layer in block]].sum()
    return np.sqrt(squares)


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
