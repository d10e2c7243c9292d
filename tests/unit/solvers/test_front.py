"""Fronts against solves one by one."""

from dataclasses import replace

import numpy as np
import pytest

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers import Termination, exact_front, solve, supported_front
from mpsearch.testing.solver_laws import separated_problem


def one_budget(seed: int) -> Problem:
    problem = separated_problem(seed)
    return replace(problem, cost=problem.cost[:1], limit=problem.limit[:1])


@pytest.mark.parametrize("seed", range(4))
def test_supported_points_are_optimal_and_true(seed: int) -> None:
    problem = one_budget(seed)
    front = supported_front(problem)
    assert (np.diff(front.spend) > 0).all()
    assert (np.diff(front.loss) < 0).all()
    assert (np.diff(front.price) <= 0).all()
    for point in range(len(front.spend)):
        choice = front.choice(point)
        assert problem.spend(choice)[0] == front.spend[point]
        assert problem.value(choice) == pytest.approx(front.loss[point])
        best = solve(replace(problem, limit=front.spend[[point]]), "exhaustive")
        assert best.loss == pytest.approx(front.loss[point])


def test_the_front_spans_from_least_cost_to_least_loss() -> None:
    problem = one_budget(9)
    front = supported_front(problem)
    assert front.spend[0] == problem.cost[0].min(axis=1).sum()
    assert front.loss[-1] == pytest.approx(problem.loss.min(axis=1).sum())


@pytest.mark.parametrize("budgets", [1, 2])
def test_exact_points_equal_single_solves(budgets: int) -> None:
    problem = separated_problem(3)
    problem = replace(problem, cost=problem.cost[:budgets], limit=problem.limit[:budgets])
    low, high = problem.cost.min(axis=2).sum(axis=1), problem.cost.max(axis=2).sum(axis=1)
    limits = [low + ((high - low) * share).astype(np.int64) for share in (-0.1, 0.2, 0.5, 0.9, 1.0)]
    points = exact_front(problem, limits)
    assert points[0].termination is Termination.INFEASIBLE
    for limit, point in zip(limits[1:], points[1:], strict=True):
        alone = solve(replace(problem, limit=limit), "exhaustive")
        assert point.termination is Termination.OPTIMAL
        assert point.loss == pytest.approx(alone.loss)


def test_supported_points_need_one_budget() -> None:
    with pytest.raises(UnsupportedFeatureError, match="one budget"):
        supported_front(separated_problem(1))
