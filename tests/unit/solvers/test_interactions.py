"""Interacting losses against exhaustive search, and the bound against everything."""

import time
from functools import partial
from itertools import product
from unittest.mock import patch

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError, UnsupportedFeatureError
from mpsearch.solvers import Termination, interaction_search, interactions, solve_interactions
from mpsearch.testing.problems import random_problem


def instance(seed: int, *, blocks: int = 5, formats: int = 3) -> tuple[Problem, np.ndarray]:
    generator = default_rng(seed)
    cost = np.sort(generator.integers(0, 20, (2, blocks, formats)), axis=2)
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    share = generator.uniform(0.2, 0.9)
    problem = Problem(
        loss=np.zeros((blocks, formats)),
        cost=cost,
        limit=low + (share * (high - low)).astype(np.int64),
    )
    common = generator.standard_normal((12, 1, 1)) * generator.uniform(-1, 1, (1, blocks, 1))
    probes = common + 0.5 * generator.standard_normal((12, blocks, formats))
    return problem, probes * np.arange(formats, 0, -1)


def value(probes: np.ndarray, choice: np.ndarray, rho: float) -> float:
    each = probes[:, np.arange(len(choice)), choice]
    return float((1 - rho) * (each.sum(axis=1) ** 2).mean() + rho * (each**2).mean(axis=0).sum())


def optimum(problem: Problem, probes: np.ndarray, rho: float) -> float:
    blocks, formats = problem.loss.shape
    choices = (np.array(choice) for choice in product(range(formats), repeat=blocks))
    return min(value(probes, choice, rho) for choice in choices if problem.fits(choice))


@pytest.mark.parametrize("seed", range(6))
def test_small_instances_are_solved_exactly(seed: int) -> None:
    problem, probes = instance(seed)
    found = solve_interactions(problem, probes, rhos=(0.0, 0.5, 1.0), generator=default_rng(0))
    for rho, answer in zip((0.0, 0.5, 1.0), found, strict=True):
        assert answer.termination is Termination.OPTIMAL
        assert answer.loss == pytest.approx(optimum(problem, probes, rho))


@pytest.mark.parametrize("seed", range(4))
def test_annealed_answers_stay_between_bound_and_stated_gap(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(interactions, "_LARGEST_EXHAUSTIVE", 0)
    # The first call compiles, which takes longer than all that follow.
    solve_interactions(*instance(99), rhos=(0.5,), generator=default_rng(0))
    problem, probes = instance(seed)
    rhos = (0.0, 0.3, 0.9)
    answers = solve_interactions(
        problem, probes, rhos=rhos, generator=default_rng(seed), time_limit_seconds=1.5
    )
    for rho, answer in zip(rhos, answers, strict=True):
        best = optimum(problem, probes, rho)
        assert answer.choice is not None
        assert problem.fits(answer.choice)
        assert answer.loss == pytest.approx(value(probes, answer.choice, rho))
        assert answer.bound <= best * (1 + 1e-9)
        assert answer.loss * (1 - answer.gap) <= best * (1 + 1e-9)
        # The search itself finds the best of 243 choices.
        assert answer.loss == pytest.approx(best, rel=1e-6)


def test_without_cross_terms_the_answer_is_the_additive_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interactions, "_LARGEST_EXHAUSTIVE", 0)
    problem, probes = instance(3, blocks=12)
    (answer,) = solve_interactions(problem, probes, rhos=(1.0,), generator=default_rng(0))
    assert answer.gap < 0.2
    assert answer.bound > 0


@pytest.mark.parametrize("seed", range(6))
def test_without_products_of_columns_the_search_is_the_same(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(interactions, "_LARGEST_EXHAUSTIVE", 0)
    monkeypatch.setattr(interactions, "MOST_PRODUCTS", 0)
    problem, probes = instance(seed)
    solve_interactions(problem, probes, rhos=(0.5,), generator=default_rng(0))
    (answer,) = solve_interactions(problem, probes, rhos=(0.4,), generator=default_rng(seed))
    assert answer.loss == pytest.approx(optimum(problem, probes, 0.4), rel=1e-6)


def test_what_ends_by_its_rounds_is_the_same_on_a_machine_five_times_as_slow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem, probes = instance(5, blocks=40, formats=5)
    # The first call compiles.
    solve_interactions(problem, probes, rhos=(0.5,), generator=default_rng(1))
    real, found = time.monotonic, []
    for speed in (1.0, 5.0):
        monkeypatch.setattr(time, "monotonic", partial(lambda speed: speed * real(), speed))
        (answer,) = solve_interactions(
            problem,
            probes,
            rhos=(0.3,),
            generator=default_rng(0),
            time_limit_seconds=300.0,
            rounds=3,
        )
        found.append(np.asarray(answer.choice).tolist())
    assert found[0] == found[1]


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_bound_the_work(rounds: int) -> None:
    kind = interaction_search.InteractionSearch
    problem, probes = instance(5, blocks=40, formats=5)
    with patch.object(kind, "_round", autospec=True, side_effect=kind._round) as walked:
        solve_interactions(problem, probes, rhos=(0.3,), generator=default_rng(0), rounds=rounds)
    assert walked.call_count == rounds


def test_an_infeasible_problem_is_told() -> None:
    problem, probes = instance(1)
    nothing = Problem(loss=problem.loss, cost=problem.cost + 1, limit=np.array([0, 0]))
    found = solve_interactions(nothing, probes, rhos=(0.5,), generator=default_rng(0))
    assert found[0].termination is Termination.INFEASIBLE


def test_bad_probes_are_refused() -> None:
    problem, probes = instance(1)
    with pytest.raises(ProblemError, match="Probes have shape"):
        solve_interactions(problem, probes[:, :2], rhos=(0.5,), generator=default_rng(0))
    with pytest.raises(ProblemError, match="rho"):
        solve_interactions(problem, probes, rhos=(1.5,), generator=default_rng(0))
    edged = random_problem(default_rng(4), with_edges=True)
    probes = np.zeros((3, *edged.loss.shape))
    with pytest.raises(UnsupportedFeatureError, match="edges"):
        solve_interactions(edged, probes, rhos=(0.5,), generator=default_rng(0))


@pytest.mark.parametrize("rho", [0.0, 0.5, 1.0])
def test_the_slope_is_that_of_the_form_and_the_bound_below_every_choice(rho: float) -> None:
    for seed in range(8):
        problem, probes = instance(seed)
        square = (probes**2).mean(axis=0)
        task = interactions._Task(problem=problem, probes=probes, square=square, rho=rho)
        generator = default_rng(seed)
        point, step = generator.random((5, 3)), 1e-5 * generator.standard_normal((5, 3))
        rise = task.slope(point + step)[0] - task.slope(point - step)[0]
        assert rise / 2 == pytest.approx(float((task.slope(point)[1] * step).sum()), rel=1e-6)
        choice = generator.integers(0, 3, 5)
        corner = np.eye(3)[choice]
        assert task.slope(corner)[0] == pytest.approx(task.value(choice))
        # Before it is clipped to a loss that was found.
        bound = interactions._bound(task, choice, deadline=float("inf"))
        assert bound <= optimum(problem, probes, rho) * (1 + 1e-9)
