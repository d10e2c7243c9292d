"""The other questions, against exhaustive search."""

from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError, UsageError
from mpsearch.solvers import Termination, explain_infeasible, least_spend, solve
from mpsearch.testing.problems import random_problem
from mpsearch.testing.solver_laws import separated_problem


def everything(problem: Problem) -> list[np.ndarray]:
    blocks, formats = problem.loss.shape
    return [np.array(choice) for choice in product(range(formats), repeat=blocks)]


@pytest.mark.parametrize("seed", range(5))
def test_the_least_spend_under_a_loss_is_the_least_of_all(seed: int) -> None:
    problem = separated_problem(seed)
    best = solve(problem)
    bound = best.loss * 1.5
    found = least_spend(problem, 1, loss_limit=bound)
    spends = [
        int(problem.spend(choice)[1])
        for choice in everything(problem)
        if problem.value(choice) <= bound and problem.spend(choice)[0] <= problem.limit[0]
    ]
    assert found.termination is Termination.OPTIMAL
    assert found.spend is not None
    assert found.choice is not None
    assert found.spend[1] == min(spends)
    assert problem.value(found.choice) <= bound


def test_both_directions_meet() -> None:
    problem = separated_problem(7)
    best = solve(problem)
    assert best.spend is not None
    found = least_spend(problem, 0, loss_limit=best.loss * (1 + 1e-9))
    assert found.spend is not None
    assert found.spend[0] <= best.spend[0]


def test_a_loss_below_the_least_is_infeasible() -> None:
    problem = separated_problem(1)
    ideal = float(problem.loss.min(axis=1).sum())
    assert least_spend(problem, 0, loss_limit=ideal * 0.5).termination is Termination.INFEASIBLE


def test_a_budget_that_edges_spend_or_none_at_all_is_refused() -> None:
    problem = random_problem(default_rng(4), with_edges=True)
    with pytest.raises(UsageError, match="does not exist"):
        least_spend(problem, 17)
    with pytest.raises(UnsupportedFeatureError, match="edges"):
        least_spend(problem, 0)


def test_conflicting_budgets_are_named_with_what_they_need() -> None:
    # Format 0 costs bytes, format 1 costs time; the third budget is innocent.
    cost = np.array([[[0, 2]] * 4, [[2, 0]] * 4, [[1, 1]] * 4])
    problem = Problem(
        loss=np.zeros((4, 2)),
        cost=cost,
        limit=np.array([3, 3, 4]),
        names=("bytes", "latency", "energy"),
    )
    assert explain_infeasible(problem) is not None
    found = explain_infeasible(problem)
    assert found is not None
    assert found.conflicting == (0, 1)
    assert found.smallest.tolist() == [0, 0, 4]
    # Two blocks in each format: one budget holds 2 of at most 3, the other needs 3 blocks, 6.
    assert found.needed.tolist() == [6, 6, -1]
    assert "bytes needs 6" in str(found)


def test_a_feasible_problem_has_nothing_to_explain() -> None:
    assert explain_infeasible(separated_problem(1)) is None
