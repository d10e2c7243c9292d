"""Branch and cut by HiGHS, called directly."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.dual import best_multipliers
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.linear_model import LinearModel, linear_model
from mpsearch.solvers.outside import asked, is_large
from mpsearch.solvers.proposal import Proposal, Report, unreported

# What HiGHS calls feasible, in a model whose limits are 1: its strictest setting is 1e-10.
_FEASIBILITY = 1e-9
# A bound that HiGHS claims may be off by its own tolerance on the objective, about 1000.
_BOUND_ROUNDING = 1e-6


@final
@dataclass(frozen=True, kw_only=True)
class Highs(AbstractSolver):
    """Solve by branch and cut; proves optimality up to `gap`.

    Source: Huangfu and Hall (2018), Mathematical Programming Computation 10(1), 119-142.
    """

    name: ClassVar[str] = "highs"
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SEVERAL_LIMITS, Feature.EDGES, Feature.SHARING, Feature.CUTS}
    )
    requires: ClassVar[tuple[str, ...]] = ("highspy",)

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        return self.propose(problem, deadline=deadline)

    def propose(self, problem: Problem, *, deadline: float) -> Proposal:
        """Return an uncertified answer, of a child process where the problem is large."""
        if is_large(problem):
            return asked(self.name, problem, gap=self.gap, deadline=deadline)
        return self.branch(problem, deadline=deadline)

    def branch(self, problem: Problem, *, deadline: float, report: Report = unreported) -> Proposal:
        """Return the answer of this process; a time limit is soft here.

        The multipliers, and each better choice that is found, are reported at once.
        """
        multipliers = best_multipliers(problem, deadline=deadline)
        report(Proposal(multipliers=multipliers, was_stopped=True))
        expected, _ = lagrangian_bound(problem, multipliers)
        model = linear_model(problem, expected_loss=expected)
        solver = loaded(model)
        # The objective starts at zero, so HiGHS' relative gap is ours; half of it is kept back
        # for rounding.
        solver.setOptionValue("mip_rel_gap", self.gap / 2)
        solver.setOptionValue("time_limit", max(0.01, deadline - time.monotonic()))

        def improved(event: Any) -> None:  # noqa: ANN401 - highspy ships no types
            choice = model.choice_of(np.array(event.data_out.mip_solution))
            report(Proposal(choice=choice, multipliers=multipliers, was_stopped=True))

        if report is not unreported:
            solver.cbMipImprovingSolution.subscribe(improved)
        solver.run()
        return _read(solver, model=model, multipliers=multipliers)


def loaded(model: LinearModel) -> Any:  # noqa: ANN401 - highspy ships no types
    """Return a silent HiGHS, on one thread, that holds the model."""
    import highspy

    programme = highspy.HighsLp()
    rows, columns = model.matrix.shape
    programme.num_col_, programme.num_row_ = columns, rows
    programme.col_cost_ = model.objective
    programme.col_lower_ = np.zeros(columns)
    programme.col_upper_ = model.ceiling
    programme.row_lower_, programme.row_upper_ = model.lower, model.upper
    programme.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
    programme.a_matrix_.start_ = model.matrix.indptr
    programme.a_matrix_.index_ = model.matrix.indices
    programme.a_matrix_.value_ = model.matrix.data
    kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
    programme.integrality_ = [kinds[int(whole)] for whole in model.is_whole]
    solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # highspy is half typed
    options = {
        "output_flag": False,
        "threads": 1,
        "random_seed": 0,
        "mip_abs_gap": 0.0,
        "mip_feasibility_tolerance": _FEASIBILITY,
        "primal_feasibility_tolerance": _FEASIBILITY,
    }
    for option, value in options.items():
        solver.setOptionValue(option, value)
    if solver.passModel(programme) == highspy.HighsStatus.kError:
        raise SolverError(
            f"HiGHS refused a model of {rows} rows and {columns} columns. Expected it to be "
            "read. Use solver='pulp', and report the problem."
        )
    return solver


def _read(
    solver: Any,  # noqa: ANN401 - highspy ships no types
    *,
    model: LinearModel,
    multipliers: Float[ndarray, " R"] | None,
) -> Proposal:
    import highspy

    status = solver.getModelStatus()
    information = solver.getInfo()
    if status in {
        highspy.HighsModelStatus.kInfeasible,
        highspy.HighsModelStatus.kUnboundedOrInfeasible,
    }:
        return Proposal(multipliers=multipliers, is_infeasible=True)
    values = np.array(solver.getSolution().col_value)
    has_choice = information.primal_solution_status == highspy.kSolutionStatusFeasible
    bound = information.mip_dual_bound
    if status == highspy.HighsModelStatus.kModelEmpty or len(values) == 0:
        has_choice = False
    return Proposal(
        choice=model.choice_of(values) if has_choice else None,
        bound=model.loss_of(bound - _BOUND_ROUNDING),
        multipliers=multipliers,
        was_stopped=status == highspy.HighsModelStatus.kTimeLimit,
    )
