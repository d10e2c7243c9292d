"""A walk never leaves the limits, never gets worse, and finds what two changes can reach."""

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
import pytest
from jaxtyping import Float64, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.search.descent import Descent


def problem_of(seed: int, *, blocks: int, formats: int = 3, share: float = 0.5) -> Problem:
    """Return a random problem whose loss is not used."""
    random = np.random.default_rng(seed)
    cost = np.sort(random.integers(1, 50, (1, blocks, formats)), axis=2)[:, :, ::-1].copy()
    low, high = cost.min(axis=2).sum(), cost.max(axis=2).sum()
    limit = np.array([int(low + share * (high - low))])
    return Problem(loss=np.zeros((blocks, formats)), cost=cost, limit=limit)


class _Form:
    """A loss with interactions: the squared length of a sum of vectors."""

    def __init__(self, seed: int, *, problem: Problem) -> None:
        random = np.random.default_rng(100 + seed)
        scale = np.arange(problem.loss.shape[1])[None, :, None]
        self.vectors = random.normal(size=(*problem.loss.shape, 4)) * scale

    def __call__(self, choices: Sequence[Int[ndarray, " D"]]) -> Float64[ndarray, " N"]:
        rows = np.arange(len(self.vectors))
        return np.array([float((self.vectors[rows, c].sum(axis=0) ** 2).sum()) for c in choices])


def cheapest(problem: Problem) -> Int[ndarray, " D"]:
    """Return the choice of least cost."""
    return np.array(problem.cost[0].argmin(axis=1))


def exhaustive(problem: Problem, form: _Form) -> float:
    """Return the least loss within the limits."""
    blocks, formats = problem.loss.shape
    every = [np.array(c) for c in product(range(formats), repeat=blocks)]
    return min(float(form([c])[0]) for c in every if problem.fits(c))


@pytest.mark.parametrize("seed", range(8))
def test_two_blocks_are_solved_whatever_the_loss(seed: int) -> None:
    problem = problem_of(seed, blocks=2)
    form = _Form(seed, problem=problem)
    descent = Descent(problem, form)
    end = descent.walk(cheapest(problem), evaluations=500)
    assert form([end])[0] == pytest.approx(exhaustive(problem, form))


@pytest.mark.parametrize("seed", range(8))
def test_a_walk_stays_within_limits_and_only_gains(seed: int) -> None:
    problem = problem_of(seed, blocks=7)
    form = _Form(seed, problem=problem)
    descent = Descent(problem, form)
    start = cheapest(problem)
    end = descent.walk(start, evaluations=3000)
    assert problem.fits(end)
    assert form([end])[0] <= form([start])[0]
    assert all(problem.fits(np.array(choice)) for choice in descent.scored)
    best = descent.best(3)
    losses = form(best).tolist()
    assert losses == sorted(losses)
    assert losses[0] <= form([end])[0]


def test_walks_end_near_the_optimum() -> None:
    """Not at it always: a walk of two changes has local ends."""
    ratios = []
    for seed in range(12):
        problem = problem_of(seed, blocks=5)
        form = _Form(seed, problem=problem)
        end = Descent(problem, form).walk(cheapest(problem), evaluations=2000)
        ratios.append(form([end])[0] / exhaustive(problem, form))
    assert np.median(ratios) < 1.05


def test_only_near_choices_are_walked_through() -> None:
    problem = problem_of(0, blocks=5)
    near = np.zeros((5, 3), dtype=bool)
    start = cheapest(problem)
    near[np.arange(5), start] = True
    near[2] = True
    descent = Descent(problem, _Form(0, problem=problem), near=near)
    descent.walk(start, evaluations=500)
    assert all((np.array(choice) == start)[[0, 1, 3, 4]].all() for choice in descent.scored)


@pytest.mark.parametrize("share", [0.15, 0.9])
def test_a_step_looks_at_the_pairs_of_two_blocks_that_fit_and_promise_most(share: float) -> None:
    """A second method: all pairs one by one, ranked by the sum of what each change gains."""
    problem = problem_of(2, blocks=8, share=share)
    form = _Form(2, problem=problem)
    calls: list[list[tuple[int, ...]]] = []

    def noted(choices: Sequence[Int[ndarray, " D"]]) -> Float64[ndarray, " N"]:
        calls.append([tuple(choice.tolist()) for choice in choices])
        return form(choices)

    start = cheapest(problem)
    start[0] = 0  # dear, so that one change can pay for another
    Descent(problem, noted).walk(start, evaluations=1)
    _, singles, pairs = calls
    loss = {single: float(form([np.array(single)])[0]) for single in singles}
    promise = {
        tuple(np.where(np.array(one) != start, one, other).tolist()): loss[one] + loss[other]
        for one, other in combinations(singles, 2)
        if not ((np.array(one) != start) & (np.array(other) != start)).any()
    }
    fitting = sorted((p for p in promise if problem.fits(np.array(p))), key=promise.__getitem__)
    assert any(not problem.fits(np.array(single)) for single in singles) or share > 0.5
    assert len(fitting) > 64 or share < 0.5
    assert set(pairs) == set(fitting[:64])
    assert len(pairs) == len(set(pairs))


def test_evaluations_are_bounded() -> None:
    problem = problem_of(1, blocks=12)
    descent = Descent(problem, _Form(1, problem=problem))
    descent.walk(cheapest(problem), evaluations=10)
    one_step = 12 * 2 + 64 + 1
    assert descent.evaluations <= one_step
