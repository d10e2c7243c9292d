"""The bound from what sums have in common, against every choice and against known lattices."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.solvers import Termination, lagrangian_core, solve
from mpsearch.solvers.exhaustive import every_choice
from mpsearch.solvers.lattice_bound import _basis, _unit, lattice_bound
from mpsearch.solvers.relaxation import relaxed


def correlated(blocks: int, *, budgets: int, seed: int, formats: int = 4) -> Problem:
    """Return steps whose gain is their mean cost plus ten (Pisinger 1995)."""
    step = np.sort(default_rng(seed).integers(1, 101, (budgets, blocks, formats)), axis=2)
    gain = np.cumsum(step.mean(axis=0) + 10.0, axis=1)
    cost = np.cumsum(step, axis=2)
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    return Problem(loss=gain[:, -1:] - gain, cost=cost, limit=low + (high - low) * 35 // 100)


def coarse(seed: int) -> Problem:
    """Return a problem whose losses are whole units and whose costs have common divisors."""
    generator = default_rng(seed)
    budgets = int(generator.integers(1, 4))
    unit = float(generator.choice([1.0, 0.3, 1e-9, 7e5]))
    divisor = generator.integers(1, 9, (budgets, 1, 1))
    cost = generator.integers(0, 12, (budgets, 6, 3)) * divisor + generator.integers(0, 3, (6, 1))
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    share = generator.uniform(0.2, 0.8, budgets)
    return Problem(
        loss=generator.integers(0, 30, (6, 3)) * unit * int(generator.integers(1, 5)),
        cost=cost,
        limit=low + (share * (high - low)).astype(np.int64),
    )


@pytest.mark.parametrize("most", [10_000, 1])
@pytest.mark.parametrize("seed", range(30))
def test_no_choice_has_an_excess_below_the_bound(
    monkeypatch: pytest.MonkeyPatch, seed: int, most: int
) -> None:
    monkeypatch.setattr("mpsearch.solvers.lattice_bound._MOST_POINTS", most)
    problem = correlated(5, budgets=1 + seed % 3, seed=seed) if seed % 2 else coarse(seed)
    relaxation = relaxed(problem)
    found = lattice_bound(relaxation)
    if found is None:
        return
    excesses = sorted(
        relaxation.excess(choice) for choice in every_choice(problem) if problem.fits(choice)
    )
    for proven in (0.0, 1e-4, 0.03, *excesses[:3]):
        least = found.least(proven)
        assert least >= proven
        above = [excess for excess in excesses if excess >= proven - 1e-13]
        assert not above or least <= above[0] + 1e-11


@pytest.mark.parametrize("budgets", [1, 2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_correlated_sums_leave_gaps_of_ten(seed: int, budgets: int) -> None:
    problem = correlated(60, budgets=budgets, seed=seed)
    relaxation = relaxed(problem)
    found = lattice_bound(relaxation)
    assert found is not None
    # Loss x budgets + spends is a constant + 10 x budgets x a whole number.
    assert found.unit * relaxation.unit == pytest.approx(1 / budgets)
    assert int(np.prod(np.diagonal(found.basis))) == 10 * budgets


@pytest.mark.parametrize("budgets", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_correlated_instances_are_proven(seed: int, budgets: int) -> None:
    problem = correlated(300, budgets=budgets, seed=seed, formats=8)
    found = solve(problem, "lagrangian_core", time_limit_seconds=10.0)
    assert found.termination is Termination.OPTIMAL
    for scale in (1e-12, 1e12):
        scaled = replace(problem, loss=problem.loss * scale)
        again = solve(scaled, "lagrangian_core", time_limit_seconds=10.0)
        assert again.termination is Termination.OPTIMAL


@pytest.mark.parametrize("gap", [0.0, 0.05])
def test_no_claimed_bound_is_above_the_optimum(gap: float) -> None:
    for seed in range(24):
        problem = correlated(5, budgets=1 + seed % 3, seed=seed) if seed % 2 else coarse(seed)
        truth = solve(problem, "exhaustive")
        relaxation = relaxed(problem)
        best = lagrangian_core._Best(relaxation, gap=gap)
        best.look_for_lattice(deadline=float("inf"))
        claimed = relaxation.unit * (relaxation.bound + best.proven)
        least = float(problem.loss.min(axis=1).sum())
        assert truth.choice is None or least + claimed <= truth.loss * (1 + 1e-9)
        found = solve(problem, "lagrangian_core", gap=gap)
        assert found.termination is truth.termination
        assert truth.choice is None or found.bound <= truth.loss * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(20))
def test_a_basis_spans_the_lattice_that_vectors_come_from(seed: int) -> None:
    generator = default_rng(seed)
    size = int(generator.integers(1, 4))
    known = np.triu(generator.integers(-5, 6, (size, size)), 1) + np.diag(
        generator.integers(2, 7, size)
    )
    vectors = generator.integers(-9, 10, (200, size)) @ known
    basis = _basis(vectors)
    assert basis is not None
    assert (np.tril(basis, -1) == 0).all()
    # Random combinations in plenty give the whole lattice: equal volume, and all inside.
    assert int(np.prod(np.diagonal(basis))) == int(np.prod(np.diagonal(known)))
    share = np.linalg.solve(basis.T.astype(float), vectors.T)
    assert np.abs(share - np.round(share)).max() < 1e-9


def test_one_odd_vector_among_thousands_is_not_missed() -> None:
    vectors = 6 * default_rng(0).integers(-1000, 1000, (5000, 1))
    vectors[4321] = 9
    basis = _basis(vectors)
    assert basis is not None
    assert basis.tolist() == [[3]]


def test_vectors_that_fill_everything_or_too_little_give_none() -> None:
    assert _basis(np.array([[2, 0], [0, 3], [1, 1]])) is None
    assert _basis(np.array([[2, 4], [1, 2]])) is None
    assert _basis(np.array([[1 << 40, 0], [0, 1 << 40]])) is None


@pytest.mark.parametrize("unit", [1.0, 1 / 3, 2.5e-12, 7e9])
def test_a_unit_is_found_in_rounded_multiples_and_nowhere_else(unit: float) -> None:
    generator = default_rng(0)
    whole = 6 * generator.integers(1, 1000, 500) + generator.integers(0, 2, 500) * 3
    values = whole * unit * (1 + 1e-16 * generator.standard_normal(500))
    assert _unit(values, least=1e-8 * float(values.sum())) == pytest.approx(3 * unit, rel=1e-12)
    rough = generator.random(500) * unit
    assert _unit(rough, least=1e-8 * float(rough.sum())) == 0.0
