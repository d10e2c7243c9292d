"""How many random directions are enough: more are drawn until the plan stops changing."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

from mpsearch.core.tables import SensitivityTable


@final
@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A table, and from how many directions per sample it is."""

    table: SensitivityTable
    draws: int


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
            break
    return Drawn(table=table, draws=draws)
