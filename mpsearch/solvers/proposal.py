"""What a back end answers, before our own check of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias, final

from jaxtyping import Float, Int
from numpy import ndarray


@final
@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A claim about a Problem of D blocks and R budgets.

    `bound` is what a search has proven beyond the multipliers; `is_infeasible` claims that no
    choice keeps the limits; `was_stopped` says that time ran out. `overshot` marks an answer
    that was found under limits lowered by us, after the first one broke a limit.
    """

    choice: Int[ndarray, " D"] | None = None
    bound: float = float("-inf")
    multipliers: Float[ndarray, " R"] | None = None
    is_infeasible: bool = False
    was_stopped: bool = False
    overshot: bool = False
    notes: tuple[str, ...] = field(default=())


# Takes what a back end has so far, while it goes on.
Report: TypeAlias = Callable[[Proposal], None]


def unreported(proposal: Proposal) -> None:
    """Take no notice of a proposal."""
    del proposal
