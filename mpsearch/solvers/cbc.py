"""Branch and cut by CBC, through PuLP."""

import re
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import numpy as np

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.dual import best_multipliers
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.linear_model import LinearModel, linear_model
from mpsearch.solvers.outside import asked, is_large
from mpsearch.solvers.proposal import Proposal, Report, unreported

# CBC keeps only answers better by `increment` (1e-5 by default), in an objective of about 1000.
_OPTIONS = ("increment 1e-9", "primalTolerance 1e-9", "integerTolerance 1e-9")
_BOUND_ROUNDING = 1e-6
_STOPPED_BOUND = re.compile(r"Lower bound:\s+([-+.\deE]+)")


@final
@dataclass(frozen=True, kw_only=True)
class Cbc(AbstractSolver):
    """Solve by PuLP with CBC, as most programs do; scaled, and certified by us.

    Source: Forrest and Lougee-Heimer (2005), INFORMS Tutorials in Operations Research.
    """

    name: ClassVar[str] = "pulp"
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SEVERAL_LIMITS, Feature.EDGES, Feature.SHARING, Feature.CUTS}
    )
    requires: ClassVar[tuple[str, ...]] = ("pulp",)

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        return self.propose(problem, deadline=deadline)

    def propose(self, problem: Problem, *, deadline: float) -> Proposal:
        """Return an uncertified answer, of a child process where the problem is large."""
        if is_large(problem):
            return asked(self.name, problem, gap=self.gap, deadline=deadline)
        return self.branch(problem, deadline=deadline)

    def branch(self, problem: Problem, *, deadline: float, report: Report = unreported) -> Proposal:
        """Return the answer of this process; a time limit is soft here.

        The multipliers are reported at once.
        """
        with warnings.catch_warnings():
            # PuLP 3 announces the names of PuLP 4; the dependency stays below 4.
            warnings.simplefilter("ignore", DeprecationWarning)
            return self._call(problem, deadline=deadline, report=report)

    def _call(self, problem: Problem, *, deadline: float, report: Report) -> Proposal:
        import pulp

        multipliers = best_multipliers(problem, deadline=deadline)
        report(Proposal(multipliers=multipliers, was_stopped=True))
        expected, _ = lagrangian_bound(problem, multipliers)
        model = linear_model(problem, expected_loss=expected)
        programme, columns = _programme(model)
        with tempfile.TemporaryDirectory(prefix="mpsearch-cbc-") as folder:
            log = Path(folder) / "cbc.log"
            command = pulp.PULP_CBC_CMD(
                msg=False,
                threads=1,
                timeLimit=max(0.1, deadline - time.monotonic()),
                gapRel=self.gap / 2,
                gapAbs=0,
                logPath=str(log),
                options=list(_OPTIONS),
            )
            command.tmpDir = folder
            try:
                programme.solve(command)
            except pulp.PulpSolverError as error:
                raise SolverError(
                    f"CBC failed: {error}. Expected an answer. Use solver='highs'."
                ) from error
            text = log.read_text(errors="replace") if log.exists() else ""
        values = np.array([column.value() or 0.0 for column in columns])
        has_choice = programme.sol_status in {
            pulp.LpSolutionOptimal,
            pulp.LpSolutionIntegerFeasible,
        }
        # PuLP says "Optimal" after a time limit too; CBC's own log knows better.
        was_stopped = "Stopped on" in text
        if not has_choice and not was_stopped and "infeasible" in text.lower():
            return Proposal(multipliers=multipliers, is_infeasible=True)
        return Proposal(
            choice=model.choice_of(values) if has_choice else None,
            bound=_bound(model, text=text, objective=float(model.objective @ values)),
            multipliers=multipliers,
            was_stopped=was_stopped or not has_choice,
        )


def _programme(model: LinearModel) -> tuple[Any, list[Any]]:
    import pulp

    programme = pulp.LpProblem("mpsearch", pulp.LpMinimize)
    columns = [
        pulp.LpVariable(f"x{place}", 0, float(ceiling), "Integer" if whole else "Continuous")
        for place, (ceiling, whole) in enumerate(zip(model.ceiling, model.is_whole, strict=True))
    ]
    weights = zip(columns, model.objective.tolist(), strict=True)
    programme.setObjective(pulp.LpAffineExpression(list(weights)))
    matrix = model.matrix
    for row, (lower, upper) in enumerate(zip(model.lower, model.upper, strict=True)):
        span = slice(matrix.indptr[row], matrix.indptr[row + 1])
        terms = zip(matrix.indices[span].tolist(), matrix.data[span].tolist(), strict=True)
        sum_ = pulp.LpAffineExpression([(columns[column], weight) for column, weight in terms])
        sense = pulp.LpConstraintEQ if lower == upper else pulp.LpConstraintLE
        programme.addConstraint(pulp.LpConstraint(sum_, sense, rhs=float(upper)))
    return programme, columns


def _bound(model: LinearModel, *, text: str, objective: float) -> float:
    """Return what CBC has proven: its objective where it finished, else its logged bound."""
    found = _STOPPED_BOUND.search(text)
    if found is not None:
        objective = float(found[1])
    elif "Result - Optimal solution found" not in text:
        return float("-inf")
    return model.loss_of(objective - _BOUND_ROUNDING)
