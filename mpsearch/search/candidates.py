"""Candidates: the best plans that the tables promise, before any of them is built."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, final

import numpy as np

from mpsearch.core.hardware import Resource
from mpsearch.core.placement import ground_told
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.solution import Solution
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import (
    Formulation,
    formulate,
    infeasible_error,
    plan_of,
    resource_of,
)
from mpsearch.solvers import solve

# A forecast of latency may be off by a few percent, so plans with some room are proposed too.
_ROOM_IN_LATENCY: Final = (0.0, 0.02, 0.05, 0.1)


# Plans that were verified better than the optimum of the tables, the best first, if any.
Suggest: TypeAlias = Callable[[CostTable, Sequence[Budget]], tuple[Plan, ...]]


@final
@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What plans are proposed from: tables by base and placement, and what is fixed.

    `fixed` maps layer names or patterns to formats. `suggest` is asked once, for the base
    and placement of the best proposal.
    """

    sensitivity: SensitivityTable
    costs: tuple[CostTable, ...]
    fixed: Mapping[str, str] = field(default_factory=dict)
    solver: str = "auto"
    suggest: Suggest | None = None


def propose(
    space: SearchSpace,
    *,
    budgets: Sequence[Budget],
    forbidden: Sequence[Plan] = (),
    count: int = 3,
) -> tuple[Plan, ...]:
    """Return up to `count` different plans of least predicted loss that keep the budgets.

    Each (base, placement) is one problem. For each, the optimum comes first, then optima
    with some room in latency, then the next best plans. Among the first `count` are the
    overall best, one with room, and the best of another base or placement, where there are such.

    Args:
        space: The tables.
        budgets: Resolved limits.
        forbidden: Plans that are not to be proposed, such as those that did not build or missed
            a budget.
        count: How many plans are wanted.

    Raises:
        InfeasibleBudgetError: No base and placement has a plan that keeps the budgets.
    """
    found: dict[tuple[object, ...], Plan] = {}
    failures: list[Solution] = []
    for cost in space.costs:
        problem = _Proposer(space=space, cost=cost, budgets=tuple(budgets), forbidden=forbidden)
        plans, failure = problem.plans(count=count)
        found |= {identity(plan): plan for plan in plans}
        failures += [failure] if failure is not None else []
    if not found:
        raise infeasible_error(failures, budgets=budgets)
    return _spread(sorted(found.values(), key=_predicted_loss), count=count)


def identity(plan: Plan) -> tuple[object, ...]:
    """Return what makes two plans the same executable."""
    return (plan.base, plan.placement, *plan.assignment.items())


@final
@dataclass(frozen=True, kw_only=True)
class _Proposer:
    """Proposes plans of one base and placement."""

    space: SearchSpace
    cost: CostTable
    budgets: tuple[Budget, ...]
    forbidden: Sequence[Plan]

    def plans(self, *, count: int) -> tuple[list[Plan], Solution | None]:
        """Return the plans found, and the infeasible answer where there is none at all."""
        result: list[Plan] = []
        for room in _ROOM_IN_LATENCY:
            formulation = self._formulated(room=room)
            solution = self._solved(formulation, cuts=[])
            if solution.choice is None:
                return result, None if result else solution
            result.append(self._plan(formulation, solution=solution, room=room))
        formulation = self._formulated()
        cuts = [np.asarray(formulation.choice(result[0].assignment))]
        for rank in range(2, count + 1):
            solution = self._solved(formulation, cuts=cuts)
            if solution.choice is None:
                break
            cuts.append(np.asarray(solution.choice))
            result.append(self._plan(formulation, solution=solution, rank=rank))
        return result, None

    def _formulated(self, *, room: float = 0.0) -> Formulation:
        limits = [
            replace(budget, limit=budget.limit * (1 - room))
            if resource_of(budget).startswith(Resource.LATENCY_NS)
            else budget
            for budget in self.budgets
        ]
        space = self.space
        return formulate(space.sensitivity, self.cost, budgets=limits, fixed=space.fixed)

    def _solved(self, formulation: Formulation, *, cuts: list[np.ndarray]) -> Solution:
        same = [
            np.asarray(formulation.choice(plan.assignment))
            for plan in self.forbidden
            if (plan.base, plan.placement) == (self.cost.base, self.cost.placement)
        ]
        every = [*cuts, *same]
        problem = formulation.problem
        if every:
            problem = replace(problem, cuts=np.stack(every).astype(np.int64))
        return solve(problem, solver=self.space.solver)

    def _plan(
        self, formulation: Formulation, *, solution: Solution, room: float = 0.0, rank: int = 1
    ) -> Plan:
        name = "optimum" if rank == 1 else f"number {rank}"
        suffix = f" with {room:.0%} room in latency" if room else ""
        return plan_of(
            self.space.sensitivity,
            self.cost,
            assignment=formulation.assignment(np.asarray(solution.choice)),
            budgets=self.budgets,
            bound=solution.bound + formulation.constant_loss,
            gap=solution.gap,
            origin=f"{name} on {ground_told(self.cost.base, self.cost.placement)}{suffix}",
        )


def _predicted_loss(plan: Plan) -> float:
    return plan.forecast["loss"]


def _spread(ranked: Sequence[Plan], *, count: int) -> tuple[Plan, ...]:
    """Take the best, that with room in latency, that of another base or placement, then by rank."""
    with_room = [plan for plan in ranked if "room" in plan.origin]
    first = (ranked[0].base, ranked[0].placement)
    elsewhere = [plan for plan in ranked if (plan.base, plan.placement) != first]
    chosen: dict[tuple[object, ...], Plan] = {}
    for plan in (*ranked[:1], *with_room[:1], *elsewhere[:1], *ranked):
        if len(chosen) < count:
            chosen.setdefault(identity(plan), plan)
    return tuple(sorted(chosen.values(), key=_predicted_loss))
