"""From a bound on what may be lost to the plans that are worth certifying, safest to leanest."""

from collections.abc import Mapping, Sequence
from typing import Final

from mpsearch.core.hardware import Resource
from mpsearch.core.placement import ground_told
from mpsearch.core.plan import Plan
from mpsearch.core.progress import Progress
from mpsearch.core.tables import CostTable
from mpsearch.errors import UsageError
from mpsearch.formulation import parse_budgets, plan_of, resource_of
from mpsearch.search import Certified, HoldsContests, SearchSpace, search_within_drop
from mpsearch.tasks.drop import DropBound
from mpsearch.workflow.solve import FrontPoint, frontier, resolved, yardsticks_of

# Each is built and run over the validation data until one fails.
_POINTS: Final = 16
_POINTS_PER_UNIT: Final = 100


def drop_bound(points: float, *, measure: str | None) -> DropBound:
    """Return the bound of `points`, hundredths of the measure's unit.

    Raises:
        UsageError: It is no positive number.
    """
    if not points > 0:
        raise UsageError(
            f"The largest drop is {points} points. Expected a positive number; .5 means half a "
            "percentage point of accuracy. Raise it."
        )
    return DropBound(bound=points / _POINTS_PER_UNIT, measure=measure)


def minimised_resource(name: str, *, costs: Sequence[CostTable]) -> Resource:
    """Return the resource called `name`, such as "latency" or "weight_bytes".

    Raises:
        BudgetError: There is none of this name.
        UsageError: The runtime measures none of it.
    """
    (parsed,) = parse_budgets({name: "100%"})
    resource = parsed.resource
    if not all(resource in cost.amount for cost in costs):
        raise UsageError(
            f"Runtime {costs[0].device.runtime!r} measures no {name}. Expected one of "
            f"{', '.join(costs[0].amount)}. Minimise one of these."
        )
    return resource


def certify(
    space: SearchSpace,
    *,
    bound: DropBound,
    minimise: str,
    budgets: Mapping[str, str | float],
    contest: HoldsContests,
    progress: Progress | None = None,
) -> tuple[Certified, tuple[FrontPoint, ...]]:
    """Return the leanest plan that is certified to hold the bound, and the front it is from.

    Raises:
        BoundNotHeldError: No plan is certified; says with how many samples one could be.
    """
    minimised = minimised_resource(minimise, costs=space.costs)
    front = frontier(
        space.sensitivity,
        space.costs,
        resource=minimise,
        points=_POINTS,
        budgets=budgets,
        fixed=space.fixed,
        solver=space.solver,
    )
    parsed = parse_budgets(budgets) if budgets else ()
    limits = resolved(budgets, costs=space.costs) if budgets else ()
    tables = {(cost.base, cost.placement): cost for cost in space.costs}

    def plan(key: tuple[str, str], assignment: Mapping[str, str], *, kind: str) -> Plan:
        return plan_of(
            space.sensitivity,
            tables[key],
            assignment=assignment,
            budgets=limits,
            origin=f"{kind} on {ground_told(*key)}",
        )

    references = [
        plan((cost.base, cost.placement), each.assignment, kind="reference")
        for cost in space.costs
        for each in cost.measured
        if each.role == "reference"
    ]
    points = [
        plan((point.base, point.placement), point.assignment, kind="front") for point in front
    ]
    allowed = [
        each
        for each in references
        if all(each.forecast[resource_of(limit)] <= limit.limit for limit in limits)
    ]
    certified = search_within_drop(
        [*points, *allowed],
        bound=bound,
        minimised=minimised,
        space=space,
        contest=contest,
        parsed=parsed,
        yardsticks=yardsticks_of(space.costs),
        progress=progress,
    )
    return certified, front
