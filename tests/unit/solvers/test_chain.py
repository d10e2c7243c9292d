"""Chains against exhaustive search and branch and cut."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers import Termination, solve
from mpsearch.solvers.chain import chain_order


def random_chain(seed: int, *, blocks: int | None = None, budgets: int | None = None) -> Problem:
    """Return a problem whose edges form chains, in any order and direction of blocks."""
    generator = default_rng(seed)
    count = int(generator.integers(1, 7)) if blocks is None else blocks
    formats = int(generator.integers(1, 4)) if blocks is None else 4
    rows = int(generator.integers(0, 4)) if budgets is None else budgets
    order = generator.permutation(count)
    pairs = [
        (first, second) if generator.random() < 0.5 else (second, first)
        for first, second in pairwise(order)
        if generator.random() < 0.9
    ]
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    cost = generator.integers(0, int(generator.choice([3, 100])), (rows, count, formats))
    many = int(generator.choice([2, 20]))
    edge_cost = generator.integers(0, many, (rows, len(edges), formats, formats))
    low = cost.min(axis=2).sum(axis=1) + edge_cost.min(axis=(2, 3)).sum(axis=1)
    high = cost.max(axis=2).sum(axis=1) + edge_cost.max(axis=(2, 3)).sum(axis=1)
    share = generator.uniform(-0.05, 1.0, rows) if blocks is None else np.full(rows, 0.4)
    return Problem(
        loss=generator.lognormal(0, 1.5, (count, formats)),
        cost=cost,
        limit=(low + share * (high - low)).astype(np.int64),
        edges=edges,
        edge_cost=edge_cost,
    )


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_chains_equal_exhaustive_search(seed: int) -> None:
    problem = random_chain(seed)
    ours, truth = solve(problem, "chain_core"), solve(problem, "exhaustive")
    assert ours.termination is truth.termination
    assert ours.loss == pytest.approx(truth.loss, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_where_many_paths_spend_the_same_the_cheapest_is_kept(seed: int) -> None:
    generator = default_rng(seed)
    edges = np.array(list(pairwise(range(7))))
    problem = Problem(
        loss=generator.lognormal(0, 1.5, (7, 3)),
        cost=generator.integers(0, 3, (1, 7, 3)),
        limit=np.array([6]),
        edges=edges,
        edge_cost=generator.integers(0, 2, (1, 6, 3, 3)),
    )
    ours, truth = solve(problem, "chain_core"), solve(problem, "exhaustive")
    assert ours.termination is truth.termination
    assert ours.loss == pytest.approx(truth.loss, rel=1e-6)


@pytest.mark.parametrize("budgets", [1, 2])
def test_longer_chains_equal_branch_and_cut(budgets: int) -> None:
    problem = random_chain(budgets, blocks=25, budgets=budgets)
    ours, theirs = solve(problem, "chain_core"), solve(problem, "highs")
    assert ours.termination is Termination.OPTIMAL
    assert ours.loss == pytest.approx(theirs.loss, rel=2e-6)
    assert solve(problem, "auto").loss == pytest.approx(theirs.loss, rel=2e-6)


def test_an_order_joins_neighbours_and_cycles_and_branches_have_none() -> None:
    problem = random_chain(5, blocks=12, budgets=1)
    order = chain_order(problem)
    assert order is not None
    place = np.argsort(order)
    assert problem.edges is not None
    assert (np.abs(np.diff(place[problem.edges], axis=1)) == 1).all()
    for edges in ([[0, 1], [1, 2], [2, 0]], [[0, 1], [0, 2], [0, 3]]):
        other = Problem(
            loss=np.zeros((4, 2)),
            cost=np.zeros((1, 4, 2), dtype=np.int64),
            limit=np.array([9]),
            edges=np.array(edges),
            edge_cost=np.ones((1, 3, 2, 2), dtype=np.int64),
        )
        assert chain_order(other) is None
        assert solve(other).termination is Termination.OPTIMAL
        with pytest.raises(UnsupportedFeatureError, match="branches or cycles"):
            solve(other, "chain_core")


@pytest.mark.parametrize("gap", [1e-3, 0.02, 0.2])
def test_no_claimed_bound_is_above_the_optimum_however_early_it_stops(gap: float) -> None:
    for seed in range(30):
        problem = random_chain(seed, blocks=7, budgets=1 + seed % 2)
        optimum = solve(problem, "exhaustive").loss
        found = solve(problem, "chain_core", gap=gap)
        assert found.bound <= optimum * (1 + 1e-9)
        assert found.gap <= gap + 1e-12
