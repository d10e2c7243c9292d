"""Each bad input gives one clear error."""

from dataclasses import replace
from importlib import util

import numpy as np
import pytest

from mpsearch.core.problem import Problem
from mpsearch.errors import (
    MissingPackageError,
    ProblemError,
    SolverError,
    UnsupportedFeatureError,
    UsageError,
)
from mpsearch.solvers import solve
from mpsearch.solvers.certificate import certify
from mpsearch.solvers.proposal import Proposal
from mpsearch.testing.solver_laws import separated_problem


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_is_refused(bad: float) -> None:
    problem = separated_problem(0)
    loss = problem.loss.copy()
    loss[1, 2] = bad
    with pytest.raises(ProblemError, match="NaN or infinity"):
        replace(problem, loss=loss)


def test_negative_costs_are_refused() -> None:
    problem = separated_problem(0)
    with pytest.raises(ProblemError, match="whole numbers >= 0"):
        replace(problem, cost=-problem.cost)


def test_sums_beyond_what_is_exact_are_refused_not_rounded() -> None:
    problem = separated_problem(0)
    with pytest.raises(ProblemError, match=r"2\*\*53"):
        replace(problem, cost=np.full_like(problem.cost, 2**51))


def test_an_empty_choice_set_is_refused() -> None:
    problem = separated_problem(0)
    allowed = np.ones(problem.loss.shape, dtype=bool)
    allowed[3] = False
    with pytest.raises(ProblemError, match="Block 3 has no allowed format"):
        replace(problem, allowed=allowed)


def test_an_unknown_solver_is_refused() -> None:
    with pytest.raises(UsageError, match="'gurobi' is unknown"):
        solve(separated_problem(0), "gurobi")


def test_a_feature_that_the_solver_lacks_is_refused() -> None:
    problem = separated_problem(0)
    with pytest.raises(UnsupportedFeatureError, match="lacks cuts"):
        solve(replace(problem, cuts=np.zeros((1, 6), dtype=np.int64)), "lagrangian_core")
    large = Problem(
        loss=np.zeros((40, 4)),
        cost=np.ones((1, 40, 4), dtype=np.int64),
        limit=np.array([99]),
    )
    with pytest.raises(UnsupportedFeatureError, match=r"1\.21e\+24 choices"):
        solve(large, "exhaustive")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find = util.find_spec
    monkeypatch.setattr(
        "mpsearch.solvers.abstract.find_spec",
        lambda name: None if name == "pulp" else find(name),
    )
    with pytest.raises(MissingPackageError, match="pulp"):
        solve(separated_problem(0), "pulp")


def test_a_back_ends_answer_that_is_no_choice_is_a_fault() -> None:
    problem = separated_problem(0)
    proposal = Proposal(choice=np.array([9] * 6))
    with pytest.raises(SolverError, match="choices below 4"):
        certify(problem, proposal, solver="x", seconds=0.0, gap=1e-6)


def test_a_refuted_bound_and_a_refuted_infeasibility_are_dropped() -> None:
    problem = separated_problem(0)
    best = solve(problem, "exhaustive")
    lie = Proposal(choice=best.choice, bound=best.loss * 2, is_infeasible=False)
    found = certify(problem, lie, solver="x", seconds=0.0, gap=1e-6)
    assert found.termination != "optimal"
    assert found.bound <= best.loss
    lie = Proposal(choice=best.choice, is_infeasible=True)
    found = certify(problem, lie, solver="x", seconds=0.0, gap=1e-6)
    assert found.termination == "heuristic"
    assert "refuted" in found.notes[0]


def test_an_overshooting_answer_is_never_passed_on() -> None:
    problem = separated_problem(0)
    over = Proposal(choice=problem.loss.argmin(axis=1), bound=0.0)
    found = certify(problem, over, solver="x", seconds=0.0, gap=1e-6)
    assert found.choice is None
    assert found.termination == "limit"
    assert "broke a limit" in found.notes[0]
