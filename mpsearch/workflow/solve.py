"""Solve from stored tables: another budget, another plan, in milliseconds and without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from mpsearch.core.hardware import Resource, Support
from mpsearch.core.placement import LAYER_INPUTS, ground_told
from mpsearch.core.plan import Budget, Plan
from mpsearch.core.problem import EXACT_LIMIT
from mpsearch.core.solution import Solution
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import BudgetError, DataError
from mpsearch.formulation import (
    Yardsticks,
    formulate,
    infeasible_error,
    parse_budgets,
    plan_of,
    resolve_budgets,
    resource_of,
)
from mpsearch.solvers import solve


@final
@dataclass(frozen=True, kw_only=True)
class SolvedPlan:
    """The optimum of the tables as a plan with its forecast, and the solver's proof.

    It has not been built: `mpsearch verify` measures whether it holds.
    """

    plan: Plan
    solution: Solution


@final
@dataclass(frozen=True, kw_only=True)
class FrontPoint:
    """The least predicted loss with `resource` at most `limit`; spend in the resources' units."""

    limit: float
    loss: float
    spend: Mapping[str, float]
    base: str
    placement: str
    assignment: Mapping[str, str]


def yardsticks_of(costs: Sequence[CostTable]) -> Yardsticks:
    """Return what shares of a budget refer to.

    Full precision is every layer in fp32 on base fp32. The fastest plan is the one of least
    latency among all reference plans that were measured.
    """
    full: dict[str, float] = {}
    weights = 0
    for cost in costs:
        if cost.base == "fp32" and (cost.placement == LAYER_INPUTS or not full):
            spend = cost.spend(dict.fromkeys(cost.layers, "fp32"))
            full = {name: float(value) for name, value in spend.items()}
        if Resource.WEIGHT_BITS in cost.amount and "fp32" in cost.formats:
            column = cost.formats.index("fp32")
            weights = int(cost.amount[Resource.WEIGHT_BITS][:, column].sum()) // 32
    references = [
        plan.amount for cost in costs for plan in cost.measured if plan.role == "reference"
    ]
    fastest = {
        name: min(amount[name] for amount in references if name in amount)
        for name in {key for amount in references for key in amount}
        if name.startswith(Resource.LATENCY_NS)
    }
    return Yardsticks(full_precision=full, fastest=fastest, weights=weights)


def resolved(
    budgets: Mapping[str, str | float], *, costs: Sequence[CostTable]
) -> tuple[Budget, ...]:
    """Return budgets as limits, in the units that the cost tables count in.

    Raises:
        BudgetError: A budget is malformed, or the tables hold nothing of its resource.
    """
    limits = resolve_budgets(parse_budgets(budgets), yardsticks=yardsticks_of(costs))
    for budget in limits:
        missing = [cost for cost in costs if resource_of(budget) not in cost.amount]
        if missing or not costs:
            raise BudgetError(
                f"Budget {budget.name!r} needs {resource_of(budget)}, which the cost table of "
                f"runtime {missing[0].device.runtime if missing else 'none'!r} does not hold. "
                f"Expected one of {', '.join(missing[0].amount) if missing else 'none'}. "
                "Budget one of these, or measure with another runtime."
            )
    return limits


def solve_tables(
    sensitivity: SensitivityTable,
    costs: Sequence[CostTable],
    *,
    budgets: Mapping[str, str | float],
    fixed: Mapping[str, str] | None = None,
    solver: str = "auto",
) -> SolvedPlan:
    """Return the plan of least predicted loss over every base and placement measured.

    Raises:
        InfeasibleBudgetError: No plan keeps the budgets; says the smallest reachable values.
        BudgetError: A budget is malformed or was not measured.
        DataError: There is no cost table.
    """
    if not costs:
        raise DataError("No cost table is given. Expected at least one. Run `mpsearch measure`.")
    limits = resolved(budgets, costs=costs)
    return solve_within(sensitivity, costs, limits=limits, fixed=fixed, solver=solver)


def solve_within(
    sensitivity: SensitivityTable,
    costs: Sequence[CostTable],
    *,
    limits: Sequence[Budget],
    fixed: Mapping[str, str] | None = None,
    solver: str = "auto",
) -> SolvedPlan:
    """Return the plan of least predicted loss within limits that are resolved already.

    Raises:
        InfeasibleBudgetError: No plan keeps them; says the smallest reachable values.
    """
    solved = [
        (cost, formulation, solve(formulation.problem, solver=solver))
        for cost in costs
        for formulation in [formulate(sensitivity, cost, budgets=limits, fixed=fixed)]
    ]
    feasible = [item for item in solved if item[2].choice is not None]
    if not feasible:
        raise infeasible_error([solution for _, _, solution in solved], budgets=limits)
    cost, formulation, solution = min(
        feasible, key=lambda item: item[2].loss + item[1].constant_loss
    )
    return SolvedPlan(
        plan=plan_of(
            sensitivity,
            cost,
            assignment=formulation.assignment(np.asarray(solution.choice)),
            budgets=limits,
            bound=solution.bound + formulation.constant_loss,
            gap=solution.gap,
            origin=f"optimum on {ground_told(cost.base, cost.placement)}, not yet built",
        ),
        solution=solution,
    )


def frontier(
    sensitivity: SensitivityTable,
    costs: Sequence[CostTable],
    *,
    resource: str = "weight_bytes",
    points: int = 20,
    budgets: Mapping[str, str | float] | None = None,
    fixed: Mapping[str, str] | None = None,
    solver: str = "auto",
) -> tuple[FrontPoint, ...]:
    """Return the least loss at evenly spaced limits of one resource, others as budgeted.

    Points that do not lower the loss any more are left out.

    Args:
        sensitivity: Loss per layer and format.
        costs: One table per base and placement.
        resource: Name of the budget that is varied, such as `latency` or `weight_bytes`.
        points: How many limits are tried between the smallest and the largest reachable.
        budgets: Further limits that hold at every point.
        fixed: Format by layer name or pattern.
        solver: Name of the solver.
    """
    others = {name: text for name, text in (budgets or {}).items() if name != resource}
    kept = resolved(others, costs=costs) if others else ()
    template = _template(resource, costs=costs)
    low, high = _span(costs, resource=resource_of(template))
    found: list[FrontPoint] = []
    for limit in np.linspace(low, high, points):
        limits = (*kept, replace(template, limit=float(np.ceil(limit))))
        point = _front_point(sensitivity, costs, limits=limits, fixed=fixed, solver=solver)
        if point is not None and (not found or point.loss < found[-1].loss):
            found.append(point)
    return tuple(found)


def smallest_reachable(
    costs: Sequence[CostTable], *, resource: str, budgets: Mapping[str, str | float]
) -> float:
    """Return the least that any plan spends of one resource while it keeps the budgets.

    The resource must be one without edge costs, such as `weight_bytes`.

    Raises:
        InfeasibleBudgetError: No plan keeps the budgets, whatever it spends.
    """
    template = _template(resource, costs=costs)
    limits = (*resolved(budgets, costs=costs), replace(template, limit=float(EXACT_LIMIT // 2)))
    answers: list[Solution] = []
    for cost in costs:
        blank = SensitivityTable(
            layers=cost.layers,
            formats=cost.formats,
            loss=np.zeros((len(cost.layers), len(cost.formats))),
            stderr=np.zeros((len(cost.layers), len(cost.formats))),
            metric="none",
            unit="none",
        )
        problem = formulate(blank, cost, budgets=limits).problem
        spent = problem.cost[-1].astype(np.float64)
        answers.append(solve(replace(problem, loss=spent)))
    spends = [answer.spend[-1] for answer in answers if answer.spend is not None]
    if not spends:
        raise infeasible_error(answers, budgets=limits)
    return float(min(spends))


def _template(resource: str, *, costs: Sequence[CostTable]) -> Budget:
    (parsed,) = parse_budgets({resource: "100%"})
    if not all(parsed.key in cost.amount for cost in costs):
        raise BudgetError(
            f"The cost tables hold no {parsed.key}. Expected one of "
            f"{', '.join(costs[0].amount) if costs else 'none'}. Vary one of these."
        )
    return Budget(name=resource, text="", limit=0.0, unit="")


def _span(costs: Sequence[CostTable], *, resource: str) -> tuple[float, float]:
    """Return bounds of what any plan of any table spends."""
    lows, highs = [], []
    for cost in costs:
        amount = cost.amount[resource]
        allowed = np.array([[kind is not Support.NONE for kind in row] for row in cost.support])
        constant = cost.constant.get(resource, 0)
        big = np.iinfo(np.int64).max
        edge = cost.edge_amount.get(resource, np.zeros((0, 1, 1), dtype=np.int64))
        edge_low = edge.min(axis=(1, 2), initial=0).sum()
        edge_high = edge.max(axis=(1, 2), initial=0).sum()
        lows.append(constant + np.where(allowed, amount, big).min(axis=1).sum() + edge_low)
        highs.append(constant + np.where(allowed, amount, -big).max(axis=1).sum() + edge_high)
    return float(min(lows)), float(max(highs))


def _front_point(
    sensitivity: SensitivityTable,
    costs: Sequence[CostTable],
    *,
    limits: Sequence[Budget],
    fixed: Mapping[str, str] | None,
    solver: str,
) -> FrontPoint | None:
    best: FrontPoint | None = None
    for cost in costs:
        formulation = formulate(sensitivity, cost, budgets=limits, fixed=fixed)
        solution = solve(formulation.problem, solver=solver)
        if solution.choice is None:
            continue
        loss = solution.loss + formulation.constant_loss
        if best is None or loss < best.loss:
            assignment = formulation.assignment(solution.choice)
            best = FrontPoint(
                limit=limits[-1].limit,
                loss=loss,
                spend={name: float(value) for name, value in cost.spend(assignment).items()},
                base=cost.base,
                placement=cost.placement,
                assignment=assignment,
            )
    return best
