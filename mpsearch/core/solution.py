"""What a solver answers, after our own check of it."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import final

from jaxtyping import Float, Int
from numpy import ndarray


class Termination(StrEnum):
    """Why a solver stopped. An infeasible problem is an outcome, not a fault."""

    OPTIMAL = "optimal"  # proven within the gap asked for
    INFEASIBLE = "infeasible"  # proven: no choice keeps the limits
    LIMIT = "limit"  # stopped by time; the best answer so far, if any
    HEURISTIC = "heuristic"  # an answer without a proof


@final
@dataclass(frozen=True, kw_only=True)
class Solution:
    """A certified answer to a Problem of D blocks and R budgets.

    `loss` and `spend` are recomputed from the original numbers. `bound` is below every
    feasible loss; `ideal` is the loss without limits. `smallest` (R,) is the smallest
    reachable value of each budget alone, given where the problem is infeasible.
    `multipliers` (R,) are loss per unit of each budget, from which anybody can recompute a
    lower bound.
    """

    termination: Termination
    solver: str
    seconds: float
    choice: Int[ndarray, " D"] | None = None
    loss: float = float("inf")
    bound: float = float("-inf")
    ideal: float = 0.0
    spend: Int[ndarray, " R"] | None = None
    slack: Int[ndarray, " R"] | None = None
    multipliers: Float[ndarray, " R"] | None = None
    smallest: Int[ndarray, " R"] | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def gap(self) -> float:
        """Return (loss - bound) / (loss - ideal): unchanged by scale and shift of the loss."""
        if self.choice is None:
            return float("inf")
        excess = self.loss - self.bound
        if excess <= 0:
            return 0.0
        span = self.loss - self.ideal
        return excess / span if span > 0 else 0.0

    @property
    def shadow_prices(self) -> Float[ndarray, " R"] | None:
        """Return about how much less the loss would be with one more unit of each budget."""
        return self.multipliers
