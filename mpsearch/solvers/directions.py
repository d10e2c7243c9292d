"""The other questions about a problem: least spend, why nothing fits, what would be needed."""

import time
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.errors import UnsupportedFeatureError, UsageError
from mpsearch.solvers.auto import Auto
from mpsearch.solvers.certificate import smallest_reachable

# A bound on the loss becomes whole numbers of this resolution, rounded so that it holds.
_LOSS_STEPS = 2.0**44
# Prices alone refute most budgets in this time, when no more is left.
_LEAST_SECONDS = 0.02


@final
@dataclass(frozen=True, kw_only=True)
class Infeasibility:
    """Why no choice keeps all R budgets.

    `smallest` is what each budget alone can be spent down to. `conflicting` are budgets that
    cannot be kept together, though any part of them can. `needed` is what each of them would
    have to become with the others as they are; -1 where the others conflict already, and for
    budgets that do not conflict.
    """

    smallest: Int[ndarray, " R"]
    conflicting: tuple[int, ...]
    needed: Int[ndarray, " R"]
    names: tuple[str, ...]

    def __str__(self) -> str:
        words = []
        for budget in self.conflicting:
            need = int(self.needed[budget])
            what = f"needs {need}" if need >= 0 else "is not the only one to give way"
            words.append(f"{self.names[budget]} {what} (alone it reaches {self.smallest[budget]})")
        return "No choice keeps these budgets together: " + "; ".join(words) + "."


def least_spend(
    problem: Problem,
    budget: int,
    *,
    loss_limit: float | None = None,
    time_limit_seconds: float = 60.0,
    gap: float = 1e-6,
) -> Solution:
    """Return the least that a budget can be spent down to under the other ones.

    `loss` of the solution is the resource spent (less the constant part), `bound` what cannot
    be undercut; `choice`, `spend` and `slack` are the problem's own.

    Raises:
        UsageError: The budget does not exist.
        UnsupportedFeatureError: Edges spend of this budget.
    """
    if not 0 <= budget < len(problem.limit):
        raise UsageError(
            f"Budget {budget} does not exist. Expected 0 to {len(problem.limit) - 1}. "
            "Choose one of the problem's budgets."
        )
    turned = _turned(problem, budget, loss_limit=loss_limit)
    solution = Auto(gap=gap, time_limit_seconds=time_limit_seconds).solve(turned)
    if solution.choice is None:
        return solution
    spend = problem.spend(solution.choice)
    slack = problem.limit - spend
    # Prices of the turned problem would be taken for prices of this one.
    return replace(solution, spend=spend, slack=slack, multipliers=None)


def explain_infeasible(
    problem: Problem, *, time_limit_seconds: float = 60.0
) -> Infeasibility | None:
    """Return which budgets conflict, and what would help; None where some choice fits.

    Budgets are dropped one by one while nothing fits without them (Chinneck and Dravnieks
    1991, ORSA J. Computing 3(2), 157-168). Two solves per budget share the time.
    """
    end = time.monotonic() + time_limit_seconds
    if _solved(problem, end=end).termination is not Termination.INFEASIBLE:
        return None
    kept = list(range(len(problem.limit)))
    for budget in range(len(problem.limit)):
        fewer = [other for other in kept if other != budget]
        found = _solved(_with_budgets(problem, fewer), end=end)
        if found.termination is Termination.INFEASIBLE:
            kept = fewer
    needed = np.full(len(problem.limit), -1, dtype=np.int64)
    for budget in kept:
        left = max(end - time.monotonic(), _LEAST_SECONDS)
        found = least_spend(problem, budget, time_limit_seconds=left)
        if found.termination is Termination.OPTIMAL and found.spend is not None:
            needed[budget] = found.spend[budget]
    names = problem.names or tuple(f"budget {place}" for place in range(len(problem.limit)))
    return Infeasibility(
        smallest=smallest_reachable(problem),
        conflicting=tuple(kept),
        needed=needed,
        names=names,
    )


def _solved(problem: Problem, *, end: float) -> Solution:
    left = max(end - time.monotonic(), _LEAST_SECONDS)
    return Auto(gap=0.5, time_limit_seconds=left).solve(problem)


def _with_budgets(problem: Problem, budgets: list[int]) -> Problem:
    """Return the problem with some of its budgets only."""
    return replace(
        problem,
        cost=problem.cost[budgets],
        limit=problem.limit[budgets],
        constant=problem.offset[budgets],
        edge_cost=None if problem.edge_cost is None else problem.edge_cost[budgets],
        share_cost=None if problem.share_cost is None else problem.share_cost[budgets],
        names=tuple(problem.names[place] for place in budgets) if problem.names else (),
    )


def _turned(problem: Problem, budget: int, *, loss_limit: float | None) -> Problem:
    """Return the problem whose loss is what a budget spends, with the loss as a budget."""
    spent = (problem.edge_cost, problem.share_cost)
    if any(each is not None and each[budget].any() for each in spent):
        raise UnsupportedFeatureError(
            f"Budget {budget} is spent along edges or shared too. Expected a budget of blocks "
            "only. Lower its limit step by step instead."
        )
    others = [place for place in range(len(problem.limit)) if place != budget]
    turned = replace(_with_budgets(problem, others), loss=problem.cost[budget].astype(float))
    if loss_limit is None:
        return turned
    least = np.where(problem.mask, problem.loss, np.inf).min(axis=1)
    above = np.where(problem.mask, problem.loss - least[:, None], 0.0)
    room = max(loss_limit - float(least.sum()), 0.0)
    step = (max(float(above.max(axis=1).sum()), room) or 1.0) / _LOSS_STEPS
    # Rounded up each, so that what keeps the whole numbers keeps the loss as well.
    row = np.ceil(above / step).astype(np.int64)[None]
    limit = int(np.floor(room / step)) if loss_limit >= least.sum() else -1
    edge_cost = turned.edge_cost
    if edge_cost is not None:
        nothing = np.zeros((1, *edge_cost.shape[1:]), dtype=np.int64)
        edge_cost = np.concatenate([edge_cost, nothing])
    share_cost = turned.share_cost
    if share_cost is not None:
        nothing = np.zeros((1, share_cost.shape[1]), dtype=np.int64)
        share_cost = np.concatenate([share_cost, nothing])
    return replace(
        turned,
        cost=np.concatenate([turned.cost, row]),
        limit=np.append(turned.limit, limit),
        constant=np.append(turned.offset, 0),
        edge_cost=edge_cost,
        share_cost=share_cost,
        names=(*turned.names, "loss") if turned.names else (),
    )
