"""Why no plan keeps the budgets, in the user's words and units."""

from collections.abc import Sequence

import numpy as np

from mpsearch.core.plan import Budget
from mpsearch.core.solution import Solution
from mpsearch.errors import InfeasibleBudgetError


def infeasible_error(
    solutions: Sequence[Solution], *, budgets: Sequence[Budget]
) -> InfeasibleBudgetError:
    """Say which budgets cannot be kept and the smallest value that each can reach.

    Args:
        solutions: The infeasible answers, one per base and placement that was tried.
        budgets: The limits that they were asked for, in the order of the problem.
    """
    smallest: dict[str, float] = {}
    for solution in solutions:
        assert solution.smallest is not None
        for budget, value in zip(budgets, solution.smallest, strict=True):
            smallest[budget.name] = min(smallest.get(budget.name, np.inf), float(value))
    wanted = " and ".join(
        f"{budget.name} <= {budget.limit:,.0f} {budget.unit} "
        f"(smallest reachable alone: {smallest[budget.name]:,.0f})"
        for budget in budgets
    )
    blocked = [budget.name for budget in budgets if smallest[budget.name] > budget.limit]
    reason = (
        f"Out of reach whatever else is given up: {', '.join(blocked)}."
        if blocked
        else "Each can be kept alone, but not all together."
    )
    return InfeasibleBudgetError(
        f"No plan keeps {wanted}. {reason} Expected budgets that some plan can keep. "
        "Raise one, or allow smaller formats.",
        smallest=smallest,
    )
