"""Our own check of every answer, on the original whole numbers."""

from dataclasses import replace

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.errors import SolverError
from mpsearch.solvers.forest import minimise_forest
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.proposal import Proposal
from mpsearch.solvers.sharing import without_sharing

# A gap computed from rounded sums may miss the one asked for by this much.
_ROUNDING = 1e-12


def certify(
    problem: Problem, proposal: Proposal, *, solver: str, seconds: float, gap: float
) -> Solution:
    """Return what can be claimed: loss and spend recomputed, the bound recomputed, no status.

    OPTIMAL needs a choice that keeps every limit and a bound within `gap` of its loss. The
    bound is the better of the one recomputed from the multipliers and the one that the search
    has proven; a claimed bound above a feasible loss is refuted and dropped.

    Raises:
        SolverError: The choice is no choice of the problem's formats.
    """
    ideal = float(np.where(problem.mask, problem.loss, np.inf).min(axis=1).sum())
    facts = Solution(
        termination=Termination.LIMIT if proposal.was_stopped else Termination.HEURISTIC,
        solver=solver,
        seconds=seconds,
        ideal=ideal,
        multipliers=proposal.multipliers,
        bound=ideal,
        notes=proposal.notes,
    )
    if proposal.multipliers is not None:
        facts = replace(facts, bound=max(ideal, lagrangian_bound(problem, proposal.multipliers)[0]))
    choice = _feasible(problem, proposal)
    if choice is None:
        return _without_choice(problem, proposal, facts=facts)
    loss = problem.value(choice)
    spend = problem.spend(choice)
    found = replace(facts, choice=choice, loss=loss, spend=spend, slack=problem.limit - spend)
    if proposal.is_infeasible:
        return replace(found, notes=(*facts.notes, "A claim of infeasibility was refuted."))
    found = replace(found, bound=_credible(problem, proposal, found=found))
    if found.gap <= gap + _ROUNDING:
        return replace(found, termination=Termination.OPTIMAL)
    return found


def unreachable(problem: Problem) -> Proposal | None:
    """Return a claim of infeasibility where some budget alone is below all that is reachable."""
    if (smallest_reachable(problem) > problem.limit).any():
        return Proposal(is_infeasible=True)
    return None


def smallest_reachable(problem: Problem) -> Int[ndarray, " R"]:
    """Return for each budget the least that it can be spent down to, the others ignored.

    Exact without edges and where edges form a forest; with cycles, or where blocks share
    costs, a value that is not above the least. No-good cuts are ignored.
    """
    problem = without_sharing(problem)
    rows = np.zeros(len(problem.limit), dtype=np.int64)
    for budget, cost in enumerate(problem.cost):
        least = np.where(problem.mask, cost, np.inf)
        if problem.edges is None or problem.edge_cost is None:
            rows[budget] = int(least.min(axis=1).sum())
        else:
            pair = problem.edge_cost[budget].astype(float)
            rows[budget] = int(minimise_forest(least, edges=problem.edges, pair=pair)[0])
    return problem.offset + rows


def _feasible(problem: Problem, proposal: Proposal) -> Int[ndarray, " D"] | None:
    choice = proposal.choice
    if choice is None:
        return None
    blocks, formats = problem.loss.shape
    if choice.shape != (blocks,) or int(choice.min()) < 0 or int(choice.max()) >= formats:
        raise SolverError(
            f"A back end answered {choice.shape} numbers up to {choice.max(initial=0)}. "
            f"Expected {blocks} choices below {formats}. Use another solver."
        )
    return choice if problem.fits(choice) else None


def _credible(problem: Problem, proposal: Proposal, *, found: Solution) -> float:
    """Return the best bound that the found loss does not refute."""
    size = float(np.abs(np.where(problem.mask, problem.loss, 0)).max(axis=1).sum())
    claimed = proposal.bound
    if claimed > found.loss + 1e-9 * max(found.loss - found.ideal, 1e-6 * size):
        claimed = float("-inf")
    return min(max(found.bound, claimed), found.loss)


def _without_choice(problem: Problem, proposal: Proposal, *, facts: Solution) -> Solution:
    greatest = float(np.where(problem.mask, problem.loss, -np.inf).max(axis=1).sum())
    # Multipliers that push the bound above every possible loss prove that nothing fits.
    is_refuted = facts.bound > greatest + 1e-9 * max(greatest - facts.ideal, 0.0)
    if proposal.is_infeasible or (proposal.multipliers is not None and is_refuted):
        return replace(
            facts,
            termination=Termination.INFEASIBLE,
            bound=float("inf"),
            smallest=smallest_reachable(problem),
        )
    notes = facts.notes
    if proposal.choice is not None or proposal.overshot:
        notes = (*notes, "The back end's answers broke a limit and were dropped.")
    bound = max(facts.bound, proposal.bound)
    return replace(facts, termination=Termination.LIMIT, bound=bound, notes=notes)
