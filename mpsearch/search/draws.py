"""How many random directions are enough: more are drawn until the plan stops changing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from mpsearch.core.tables import SensitivityTable


@final
@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A table from so many directions per sample, and whether fewer gave the same plan."""

    table: SensitivityTable
    draws: int
    is_stable: bool


def drawn_until_stable(
    measure: Callable[[int], SensitivityTable],
    *,
    plan_of: Callable[[SensitivityTable], tuple[int, ...] | None],
    first: int,
    most: int,
) -> Drawn:
    """Double the directions until twice as many give the same plan, or `most` are drawn.

    Args:
        measure: Returns the table of so many draws; those drawn before come from the cache.
        plan_of: Returns what a table chooses, None where it allows no plan.
        first: Draws to begin with.
        most: What can be paid for; fewer than `first` are then all there is.
    """
    draws = min(first, most)
    table = measure(draws)
    chosen = plan_of(table)
    while draws < most:
        draws = min(2 * draws, most)
        table, before = measure(draws), chosen
        chosen = plan_of(table)
        if chosen == before:
            return Drawn(table=table, draws=draws, is_stable=True)
    return Drawn(table=table, draws=draws, is_stable=False)
