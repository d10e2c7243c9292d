"""Laws of every solver. Inherit `SolverLaws`, give it `solver`, and let pytest collect it."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.errors import UnsupportedFeatureError, UsageError
from mpsearch.solvers.abstract import AbstractSolver, Feature, features_of
from mpsearch.solvers.exhaustive import Exhaustive
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.testing.problems import problems

# Relative to the span of the losses: the gap that solvers are asked to prove by default.
GAP = 1e-6
EXAMPLES = 25
LATENESS_SECONDS = 2.0
_LAW = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors, HealthCheck.function_scoped_fixture],
)


class SolverLaws:
    """What a caller may rely on, whichever solver answers."""

    solver: AbstractSolver
    # Whether it is expected to prove every small problem, not only to tell the truth.
    proves_small: bool = True

    def answer(self, problem: Problem) -> Solution:
        """Return the solver's answer, or skip the case where it declares that it cannot."""
        if features_of(problem) - self.solver.supports:
            with pytest.raises(UnsupportedFeatureError):
                self.solver.solve(problem)
            return Exhaustive().solve(problem)
        try:
            return self.solver.solve(problem)
        except UnsupportedFeatureError:
            # Some edges only: a solver may decline a graph that it cannot search.
            assert Feature.EDGES in features_of(problem)
            return Exhaustive().solve(problem)

    @_LAW
    @given(problem=problems())
    def test_every_claim_holds_against_exhaustive_search(self, problem: Problem) -> None:
        found, truth = self.answer(problem), Exhaustive().solve(problem)
        optimum = truth.loss
        size = max(optimum - truth.ideal, 1e-9) if truth.choice is not None else 1.0
        if truth.choice is None:
            assert found.choice is None
        else:
            assert found.termination is not Termination.INFEASIBLE
            assert found.bound <= optimum + 1e-9 * size
        if found.choice is not None:
            self.check_choice(problem, found)
            assert found.loss >= optimum - 1e-9 * size
        if found.termination is Termination.OPTIMAL:
            assert found.loss <= optimum + 2 * GAP * size
        if self.proves_small:
            expected = Termination.INFEASIBLE if truth.choice is None else Termination.OPTIMAL
            assert found.termination is expected

    def check_choice(self, problem: Problem, found: Solution) -> None:
        """Check a choice against the original numbers, to the last unit."""
        assert found.choice is not None
        assert found.spend is not None
        assert found.slack is not None
        assert problem.fits(found.choice)
        assert (found.spend == problem.spend(found.choice)).all()
        assert (found.slack == problem.limit - found.spend).all()
        assert (found.slack >= 0).all()
        assert found.loss == problem.value(found.choice)

    @_LAW
    @given(problem=problems(with_cuts=False))
    def test_the_smallest_reachable_values_are_reached(self, problem: Problem) -> None:
        found = self.answer(problem)
        if found.termination is not Termination.INFEASIBLE:
            return
        assert found.smallest is not None
        for budget, smallest in enumerate(found.smallest):
            alone = replace(
                problem,
                cost=problem.cost[[budget]],
                limit=np.array([int(smallest)]),
                constant=problem.offset[[budget]],
                edge_cost=None if problem.edge_cost is None else problem.edge_cost[[budget]],
                share_cost=None if problem.share_cost is None else problem.share_cost[[budget]],
            )
            below = replace(alone, limit=alone.limit - 1)
            assert Exhaustive().solve(below).termination is Termination.INFEASIBLE
            if problem.edges is None and problem.sharers is None:
                assert Exhaustive().solve(alone).termination is Termination.OPTIMAL

    @_LAW
    @given(problem=problems())
    def test_the_bound_can_be_recomputed_from_the_multipliers(self, problem: Problem) -> None:
        found, truth = self.answer(problem), Exhaustive().solve(problem)
        if found.multipliers is None or truth.choice is None:
            return
        assert (found.multipliers >= 0).all()
        bound, _ = lagrangian_bound(problem, found.multipliers)
        assert bound <= found.bound + 1e-9 * max(abs(bound), 1.0)
        assert bound <= truth.loss

    @settings(parent=_LAW, max_examples=4)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_scale_changes_nothing(self, seed: int) -> None:
        problem = separated_problem(seed)
        plain = self.solver.solve(problem)
        assert plain.choice is not None
        if self.proves_small:
            assert plain.termination is Termination.OPTIMAL
        for scale in (1e-12, 1e-5, 1e12):
            scaled = self.solver.solve(replace(problem, loss=problem.loss * scale))
            assert scaled.choice is not None
            assert (scaled.choice == plain.choice).all()
            assert scaled.termination is plain.termination
        for factor in (7, 10**9):
            larger = replace(problem, cost=problem.cost * factor, limit=problem.limit * factor)
            scaled = self.solver.solve(larger)
            assert scaled.choice is not None
            assert (scaled.choice == plain.choice).all()

    def test_zero_budgets_leave_what_costs_nothing(self) -> None:
        problem = Problem(
            loss=np.array([[0.0, 2.0, 1.0], [0.0, 5.0, 7.0]]),
            cost=np.array([[[3, 0, 0], [1, 0, 0]]]),
            limit=np.array([0]),
        )
        found = self.solver.solve(problem)
        assert found.choice is not None
        assert found.choice.tolist() == [2, 1]
        assert found.loss == problem.value(np.array([2, 1]))

    def test_no_budget_leaves_the_least_loss_of_each_block(self) -> None:
        free = Problem(
            loss=np.array([[3.0, 1.0], [0.5, 2.0]]),
            cost=np.zeros((0, 2, 2), dtype=np.int64),
            limit=np.zeros(0, dtype=np.int64),
        )
        found = self.solver.solve(free)
        assert found.choice is not None
        assert found.choice.tolist() == [1, 0]
        assert found.gap == 0.0

    def test_the_best_is_cut_off_and_the_second_best_found(self) -> None:
        problem = separated_problem(3)
        first = self.solver.solve(problem)
        assert first.choice is not None
        second = self.answer(replace(problem, cuts=first.choice[None]))
        truth = Exhaustive().solve(replace(problem, cuts=first.choice[None]))
        assert second.loss == pytest.approx(truth.loss, rel=1e-9)
        assert second.loss > first.loss

    @pytest.mark.parametrize("setting", [{"gap": -1.0}, {"gap": 1.0}, {"time_limit_seconds": 0.0}])
    def test_a_setting_out_of_range_is_refused(self, setting: dict[str, float]) -> None:
        with pytest.raises(UsageError, match="out of range"):
            replace(self.solver, **setting).solve(separated_problem(1))

    def test_time_that_is_up_leaves_a_certified_answer(self) -> None:
        problem = separated_problem(5, blocks=10)
        self.solver.solve(separated_problem(2))  # what is compiled once is no part of a limit
        for limit in (1e-9, 0.2):
            found = replace(self.solver, time_limit_seconds=limit, gap=0.0).solve(problem)
            # A quiet machine overruns by hundredths; the rest is for one that is busy.
            assert found.seconds < limit + LATENESS_SECONDS
            assert found.bound <= found.loss
            if found.choice is not None:
                self.check_choice(problem, found)

    def test_nothing_is_printed(self, capfd: pytest.CaptureFixture[str]) -> None:
        self.solver.solve(separated_problem(2))
        assert capfd.readouterr().out == ""


def separated_problem(seed: int, *, blocks: int = 6) -> Problem:
    """Return a feasible problem of 4 formats and 2 budgets with one best answer."""
    generator = default_rng(seed)
    bits = np.array([2, 3, 4, 8])
    parameters = generator.integers(10, 1000, blocks)
    latency = generator.integers(50, 200, blocks)[:, None] * (2 + bits) + generator.integers(
        0, 99, (blocks, 4)
    )
    cost = np.stack([parameters[:, None] * bits, latency])
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    loss = parameters[:, None] * generator.lognormal(0, 1.5, (blocks, 1)) * 4.0**-bits
    limit = (low + 0.4 * (high - low)).astype(np.int64)
    return Problem(loss=loss, cost=cost, limit=limit)
