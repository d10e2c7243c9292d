"""Costs that blocks share, against every choice."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError, UnsupportedFeatureError
from mpsearch.solvers import SOLVERS, Termination, sharing, solve, with_ties
from mpsearch.solvers.exhaustive import every_choice
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.sharing import joined, without_sharing
from mpsearch.testing.problems import random_problem


def quantisers(seed: int, *, blocks: int = 6, formats: int = 3, members: int = 2) -> Problem:
    """Return blocks whose every `members` neighbours share one quantiser of any low format."""
    generator = default_rng(seed)
    bits = np.array([8, 4, 2, 3])[:formats]
    size = generator.integers(5, 30, blocks)
    groups = -(-blocks // members)
    sharers = [[block // members, block, f] for block in range(blocks) for f in range(1, formats)]
    cost = (size[:, None] * bits)[None] + generator.integers(0, 3, (2, blocks, formats))
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    return Problem(
        loss=size[:, None] * generator.lognormal(0, 1, (blocks, 1)) * 4.0**-bits,
        cost=cost,
        limit=(low + 0.5 * (high - low)).astype(np.int64),
        sharers=np.array(sharers),
        share_cost=generator.integers(5, 40, (2, groups)),
    )


def paid(problem: Problem, choice: np.ndarray) -> np.ndarray:
    """Return what a choice spends, group by group, written apart."""
    assert problem.sharers is not None
    assert problem.share_cost is not None
    total = problem.offset + problem.cost[:, np.arange(len(choice)), choice].sum(axis=1)
    groups = {g for g, block, f in problem.sharers.tolist() if choice[block] == f}
    for group in groups:
        total = total + problem.share_cost[:, group]
    return np.asarray(total)


@pytest.mark.parametrize("seed", range(20))
def test_a_shared_cost_is_paid_once_however_many_share_it(seed: int) -> None:
    problem = random_problem(default_rng(seed), with_sharing=True)
    for choice in every_choice(problem)[:200]:
        assert (problem.spend(choice) == paid(problem, choice)).all()


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "chain_core"])
@pytest.mark.parametrize("seed", range(6))
def test_every_solver_finds_the_best_of_all_choices(seed: int, name: str) -> None:
    problem = quantisers(seed)
    fitting = [
        choice for choice in every_choice(problem) if (paid(problem, choice) <= problem.limit).all()
    ]
    found = solve(problem, name)
    if not fitting:
        assert found.termination is Termination.INFEASIBLE
        return
    assert found.termination is Termination.OPTIMAL
    assert found.loss == pytest.approx(min(map(problem.value, fitting)), rel=1e-6)


def test_sharing_changes_what_is_best() -> None:
    problem = quantisers(1)
    assert problem.share_cost is not None
    shared = solve(problem).loss
    alone = solve(without_sharing(problem)).loss
    assert alone <= shared
    whole = joined(problem)
    assert whole is not None
    # Only blocks that share hang together.
    assert [blocks.tolist() for blocks in whole.blocks] == [[0, 1], [2, 3], [4, 5]]
    free = Problem(loss=problem.loss, cost=problem.cost, limit=problem.limit)
    assert solve(free).loss < shared


@pytest.mark.parametrize("seed", range(30))
def test_joined_blocks_are_the_same_problem(seed: int) -> None:
    problem = random_problem(default_rng(seed), with_sharing=True)
    whole = joined(problem)
    assert whole is not None
    best = {}
    for choice in every_choice(whole.problem):
        meant = whole.choice(choice)
        assert (whole.problem.spend(choice) == problem.spend(meant)).all()
        assert whole.problem.value(choice) == pytest.approx(problem.value(meant))
        best[tuple(meant.tolist())] = True
    # What was dropped is undercut by something kept.
    for choice in every_choice(problem):
        assert tuple(choice.tolist()) in best or any(
            problem.value(np.array(other)) <= problem.value(choice) + 1e-12
            and (problem.spend(np.array(other)) <= problem.spend(choice)).all()
            for other in best
        )


@pytest.mark.parametrize("seed", range(20))
def test_equal_parts_bound_from_below_and_multipliers_hold(seed: int) -> None:
    problem = random_problem(default_rng(seed), with_sharing=True)
    split = without_sharing(problem)
    multipliers = default_rng(seed).random(len(problem.limit))
    bound, _ = lagrangian_bound(problem, multipliers)
    for choice in every_choice(problem):
        assert (split.spend(choice) <= problem.spend(choice)).all()
        if problem.fits(choice):
            assert bound <= problem.value(choice) + 1e-9


def test_components_with_too_many_choices_go_to_branch_and_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = quantisers(2)
    expected = solve(problem)
    monkeypatch.setattr(sharing, "_MOST_OF_ONE", 4)
    assert solve(problem, "auto").loss == pytest.approx(expected.loss, rel=1e-6)
    with pytest.raises(UnsupportedFeatureError, match="share costs"):
        solve(problem, "lagrangian_core")
    monkeypatch.setattr(sharing, "_MOST_OF_ONE", 4096)
    monkeypatch.setattr(sharing, "_MOST_IN_ALL", 4)
    assert joined(problem) is None


def test_many_layers_are_proven_as_branch_and_cut_does() -> None:
    problem = quantisers(3, blocks=60, formats=4, members=3)
    ours, theirs = solve(problem), solve(problem, "highs")
    assert ours.termination is Termination.OPTIMAL
    assert ours.loss == pytest.approx(theirs.loss, rel=2e-6)


def test_ties_share_once() -> None:
    problem = quantisers(4)
    group = np.arange(6) // 2
    tied = with_ties(problem, group)
    choice = np.array([0, 1, 2])
    assert (tied.spend(choice) == problem.spend(choice[group])).all()


@pytest.mark.parametrize("sharers", [[[0, 9, 0]], [[5, 0, 0]], [[0, 0, 9]], [[-1, 0, 0]]])
def test_sharers_that_do_not_exist_are_refused(sharers: list[list[int]]) -> None:
    with pytest.raises(ProblemError, match="sharers"):
        Problem(
            loss=np.zeros((2, 2)),
            cost=np.zeros((1, 2, 2), dtype=np.int64),
            limit=np.array([1]),
            sharers=np.array(sharers),
            share_cost=np.array([[3]]),
        )


def test_half_a_share_is_refused() -> None:
    plain = Problem(
        loss=np.zeros((1, 1)), cost=np.zeros((1, 1, 1), dtype=np.int64), limit=np.array([1])
    )
    with pytest.raises(ProblemError, match="sharers"):
        replace(plain, share_cost=np.array([[3]]))
    with pytest.raises(ProblemError, match="sharers"):
        replace(plain, sharers=np.array([[0, 0, 0]]))
