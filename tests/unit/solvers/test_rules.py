"""Rules against exhaustive search with the rule checked by hand."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError
from mpsearch.solvers import solve, with_at_most, with_fixed, with_peak_memory, with_ties
from mpsearch.testing.problems import random_problem


def feasible(seed: int, *, with_edges: bool = False) -> Problem:
    problem = random_problem(default_rng(seed), with_edges=with_edges)
    return replace(problem, limit=problem.limit + 10**6)


def least(problem: Problem, keeps: object) -> float:
    """Return the least loss of the choices that `keeps` accepts."""
    assert callable(keeps)
    blocks, formats = problem.loss.shape
    losses = [
        problem.value(np.array(choice))
        for choice in product(range(formats), repeat=blocks)
        if problem.fits(np.array(choice)) and keeps(np.array(choice))
    ]
    return min(losses, default=float("inf"))


@pytest.mark.parametrize("seed", range(8))
def test_ties_choose_one_format_per_group(seed: int) -> None:
    problem = feasible(seed, with_edges=seed % 2 == 0)
    problem = replace(problem, allowed=None, loss=np.nan_to_num(problem.loss, nan=9.0))
    group = np.arange(len(problem.loss)) // 2
    tied = solve(with_ties(problem, group))
    expected = least(
        problem, lambda choice: len(set(zip(group, choice, strict=True))) == group[-1] + 1
    )
    assert tied.loss == pytest.approx(expected)
    assert tied.choice is not None
    assert tied.spend is not None
    assert (problem.spend(tied.choice[group]) == tied.spend).all()


def test_a_tie_without_a_common_format_is_refused() -> None:
    problem = replace(feasible(1), allowed=None)
    loss = np.zeros((2, 2))
    problem = Problem(
        loss=loss,
        cost=np.zeros((0, 2, 2), dtype=np.int64),
        limit=np.zeros(0, dtype=np.int64),
        allowed=np.eye(2, dtype=bool),
    )
    with pytest.raises(ProblemError, match="no common format"):
        with_ties(problem, np.array([0, 0]))
    with pytest.raises(ProblemError, match="without a gap"):
        with_ties(problem, np.array([0, 2]))


@pytest.mark.parametrize("seed", range(6))
def test_a_format_occurs_at_most_so_often(seed: int) -> None:
    problem = feasible(seed)
    for count in (0, 1, 2):
        found = solve(with_at_most(problem, count, format_=0))
        expected = least(problem, lambda choice, count=count: (choice == 0).sum() <= count)
        assert found.loss == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_peak_memory_is_kept_at_every_step(seed: int) -> None:
    generator = default_rng(seed)
    problem = feasible(seed, with_edges=True)
    blocks, formats = problem.loss.shape
    activation = generator.integers(1, 9, (blocks, formats))
    alive = generator.random((4, blocks)) < 0.6

    def keeps(choice: np.ndarray) -> bool:
        used = activation[np.arange(blocks), choice]
        return bool(((alive * used).sum(axis=1) <= 9).all())

    found = solve(with_peak_memory(problem, activation=activation, alive=alive, limit=9))
    assert found.loss == pytest.approx(least(problem, keeps))


def test_a_fixed_block_keeps_its_format() -> None:
    problem = replace(feasible(2), allowed=None, loss=np.nan_to_num(feasible(2).loss, nan=9.0))
    found = solve(with_fixed(problem, {0: 1}))
    assert found.choice is not None
    assert found.choice[0] == 1
    with pytest.raises(ProblemError, match="cannot be fixed"):
        with_fixed(problem, {0: 99})
