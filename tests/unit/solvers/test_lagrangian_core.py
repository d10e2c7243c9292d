"""The exact solver against HiGHS, against dynamic programming, and on hard families."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.solvers import Termination, lagrangian_core, solve
from mpsearch.solvers.core import Mix, best_mix
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.relaxation import relaxed


def layered(blocks: int, *, budgets: int, seed: int, shapes: int = 3) -> Problem:
    """Return layers of a few shapes, where many sums of costs are equal."""
    generator = default_rng(seed)
    bits = np.array([2, 3, 4, 8])
    size = generator.integers(10, 500, shapes)[np.arange(blocks) % shapes]
    cost = np.stack([size[:, None] * bits] * budgets)
    cost[1:] += generator.integers(0, 200, cost[1:].shape)
    loss = size[:, None] * generator.lognormal(0, 1.5, (blocks, 1)) * 4.0**-bits
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    return Problem(loss=loss, cost=cost, limit=low + (0.35 * (high - low)).astype(np.int64))


def best_by_dynamic_programme(problem: Problem) -> float:
    """Return the least loss under one small whole-number budget, spend by spend."""
    room = int(problem.limit[0])
    best = np.full(room + 1, np.inf)
    best[0] = 0.0
    for loss, cost in zip(problem.loss, problem.cost[0], strict=True):
        after = np.full(room + 1, np.inf)
        for each, spend in zip(loss, cost.tolist(), strict=True):
            if spend <= room:
                after[spend:] = np.minimum(after[spend:], best[: room + 1 - spend] + each)
        best = after
    return float(best.min())


@pytest.mark.parametrize("seed", range(6))
def test_one_budget_equals_the_dynamic_programme(seed: int) -> None:
    problem = layered(40, budgets=1, seed=seed)
    found = solve(problem, "lagrangian_core")
    assert found.termination is Termination.OPTIMAL
    assert found.loss == pytest.approx(best_by_dynamic_programme(problem), rel=1e-6)


@pytest.mark.parametrize("budgets", [2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_several_budgets_equal_highs(budgets: int, seed: int) -> None:
    problem = layered(30, budgets=budgets, seed=seed)
    ours, theirs = solve(problem, "lagrangian_core"), solve(problem, "highs")
    assert ours.termination is Termination.OPTIMAL
    assert ours.loss == pytest.approx(theirs.loss, rel=2e-6)
    assert ours.bound <= theirs.loss * (1 + 1e-9)


@pytest.mark.parametrize("threshold", [0.02, 0.1, 0.5])
def test_a_complete_mix_leaves_nothing_cheaper_out(threshold: float) -> None:
    problem = layered(8, budgets=2, seed=11)
    relaxation = relaxed(problem)
    mix = best_mix(relaxation, threshold=threshold, window=threshold, deadline=float("inf"))
    assert mix.is_complete
    optimum = solve(problem, "exhaustive")
    assert optimum.choice is not None
    if relaxation.excess(optimum.choice) <= threshold:
        assert mix.choice is not None
        assert problem.value(mix.choice) == pytest.approx(optimum.loss)


def test_the_relaxation_explains_every_loss() -> None:
    problem = layered(6, budgets=2, seed=4)
    relaxation = relaxed(problem)
    choice = default_rng(0).integers(0, 4, 6)
    rows = np.arange(6)
    priced = relaxation.loss + np.tensordot(relaxation.price, relaxation.cost, axes=1)
    reduced = (priced - priced.min(axis=1, keepdims=True))[rows, choice].sum()
    slack = problem.limit - problem.spend(choice)
    explained = relaxation.bound + reduced + relaxation.price @ slack
    shift = problem.loss.min(axis=1).sum()
    assert shift + relaxation.unit * explained == pytest.approx(problem.value(choice))


@pytest.mark.parametrize("budgets", [1, 2, 3])
def test_the_prices_are_the_best_ones(budgets: int) -> None:
    problem = layered(20, budgets=budgets, seed=2)
    multipliers = relaxed(problem).multipliers
    best = lagrangian_bound(problem, multipliers)[0]
    generator = default_rng(1)
    for size in (1e-6, 1e-3, 1e-1, 1.0):
        for _ in range(20):
            other = multipliers * (1 + size * generator.uniform(-1, 1, budgets))
            assert lagrangian_bound(problem, np.maximum(other, 0))[0] <= best + 1e-8 * abs(best)


def test_no_mixture_within_all_limits_is_refuted_by_prices() -> None:
    # Each budget alone can be kept, both together cannot: one format costs 0 + 2, the other 2 + 0.
    problem = Problem(
        loss=np.zeros((4, 2)) + np.array([0.0, 1.0]),
        cost=np.array([[[0, 2]] * 4, [[2, 0]] * 4]),
        limit=np.array([3, 3]),
    )
    assert relaxed(problem).is_refuted
    assert solve(problem, "lagrangian_core").termination is Termination.INFEASIBLE


def test_time_is_kept_and_the_best_answer_returned() -> None:
    generator = default_rng(0)
    step = np.sort(generator.integers(1, 1001, (2, 300, 6)), axis=2)
    gain = np.cumsum(step.mean(axis=0) + 10.0, axis=1)
    cost = np.cumsum(step, axis=2)
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    problem = Problem(loss=gain[:, -1:] - gain, cost=cost, limit=(low + high) // 2)
    found = solve(problem, "lagrangian_core", time_limit_seconds=1.0, gap=0.0)
    assert found.termination is Termination.LIMIT
    assert found.choice is not None
    # How near it comes in a second depends on the machine; nothing at all would be no answer.
    assert found.gap < 1e-2
    assert found.seconds < 6.0


@pytest.mark.parametrize("gap", [1e-6, 1e-3, 0.01, 0.05, 0.2])
def test_no_claimed_bound_is_above_the_optimum_however_early_it_stops(gap: float) -> None:
    for seed in range(25):
        problem = layered(8, budgets=1 + seed % 3, seed=seed, shapes=8)
        optimum = solve(problem, "exhaustive").loss
        found = solve(problem, "lagrangian_core", gap=gap)
        assert found.bound <= optimum * (1 + 1e-9)
        assert found.termination is Termination.OPTIMAL
        assert found.gap <= gap + 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_the_threshold_that_was_proven_is_below_the_excess_of_the_optimum(seed: int) -> None:
    problem = layered(40, budgets=1, seed=seed, shapes=40)
    relaxation = relaxed(problem)
    shift = problem.loss.min(axis=1).sum()
    optimum = (best_by_dynamic_programme(problem) - float(shift)) / relaxation.unit
    optimum = float(optimum - relaxation.bound)
    best = lagrangian_core._Best(relaxation, gap=0.0)
    with pytest.MonkeyPatch.context() as patch:
        # The search goes on as if no answer had been met.
        patch.setattr(lagrangian_core._Best, "offer", lambda *_: None)
        patch.setattr(lagrangian_core, "best_mix", _until_found(optimum))
        lagrangian_core._deepen(best, threshold=1e-6, room=1 << 15, deadline=float("inf"))
    assert best.proven <= optimum * (1 + 1e-9)
    assert best.proven >= optimum / 3


def _until_found(optimum: float) -> Callable[..., Mix]:
    """Return a stand-in that is complete as long as the threshold is below the optimum."""

    def mix(*_: object, threshold: float, **__: object) -> Mix:
        return Mix(choice=None, is_complete=threshold < optimum, states=1)

    return mix
