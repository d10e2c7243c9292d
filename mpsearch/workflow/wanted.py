"""What a search is asked for: least loss within budgets, or least spent within a bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

from mpsearch.core.progress import Progress
from mpsearch.formulation import parse_budgets
from mpsearch.search import HoldsContests, Judged, SearchSpace, search_rounds
from mpsearch.tasks.drop import DropBound
from mpsearch.workflow.solve import FrontPoint, frontier, resolved, yardsticks_of
from mpsearch.workflow.within_drop import certify, drop_bound

_FRONT_POINTS: Final = 16


@final
@dataclass(frozen=True, kw_only=True)
class Found:
    """What was tried, the winner first, the front, and the bound that decided if one did."""

    tried: tuple[Judged, ...]
    front: tuple[FrontPoint, ...]
    bound: DropBound | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Least loss within budgets, or least of a resource within a bound on what is lost."""

    budgets: Mapping[str, str | float]
    bound: DropBound | None
    minimise: str

    @staticmethod
    def of(
        budgets: Mapping[str, str | float] | None,
        *,
        max_drop: float | None,
        drop_of: str | None,
        minimise: str,
    ) -> "Wanted":
        """Return what the arguments of `mpsearch.search` ask for.

        Raises:
            UsageError: A budget cannot be read, or the drop is no positive number.
        """
        bound = None if max_drop is None else drop_bound(max_drop, measure=drop_of)
        return Wanted(budgets=budgets or {}, bound=bound, minimise=minimise)

    def __post_init__(self) -> None:
        if self.bound is None or self.budgets:
            parse_budgets(self.budgets)

    def chosen(
        self, space: SearchSpace, *, contest: HoldsContests, progress: Progress | None
    ) -> Found:
        """Propose and measure plans, and return them with the winner first.

        Raises:
            InfeasibleBudgetError: No plan keeps the budgets.
            BoundNotHeldError: No plan is certified to hold the bound.
        """
        if self.bound is not None:
            certified, front = certify(
                space,
                bound=self.bound,
                minimise=self.minimise,
                budgets=self.budgets,
                contest=contest,
                progress=progress,
            )
            return Found(tried=certified.judged, front=front, bound=self.bound)
        resolved(self.budgets, costs=space.costs)
        tried = search_rounds(
            space,
            contest=contest,
            parsed=parse_budgets(self.budgets),
            yardsticks=yardsticks_of(space.costs),
            progress=progress,
        )
        return Found(tried=tried, front=_front(space, budgets=self.budgets))


def _front(space: SearchSpace, *, budgets: Mapping[str, str | float]) -> tuple[FrontPoint, ...]:
    """Return the front of the first budget's resource, the other budgets kept."""
    varied, *others = budgets
    return frontier(
        space.sensitivity,
        space.costs,
        resource=varied,
        points=_FRONT_POINTS,
        budgets={name: budgets[name] for name in others},
        fixed=space.fixed,
        solver=space.solver,
    )
