"""Choose one format per block: least loss within every limit, with a proof.

Needs neither torch nor the rest of mpsearch. `SOLVERS` is in order of preference.
"""

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.errors import UsageError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.auto import Auto
from mpsearch.solvers.cbc import Cbc
from mpsearch.solvers.chain import ChainCore
from mpsearch.solvers.directions import Infeasibility, explain_infeasible, least_spend
from mpsearch.solvers.exhaustive import Exhaustive
from mpsearch.solvers.front import SupportedFront, exact_front, supported_front
from mpsearch.solvers.highs import Highs
from mpsearch.solvers.interactions import solve_interactions
from mpsearch.solvers.lagrangian_core import LagrangianCore
from mpsearch.solvers.noise import Stability, stability
from mpsearch.solvers.rules import with_at_most, with_fixed, with_peak_memory, with_ties

__all__ = [
    "SOLVERS",
    "AbstractSolver",
    "Feature",
    "Infeasibility",
    "Problem",
    "Solution",
    "Stability",
    "SupportedFront",
    "Termination",
    "exact_front",
    "explain_infeasible",
    "least_spend",
    "solve",
    "solve_interactions",
    "stability",
    "supported_front",
    "with_at_most",
    "with_fixed",
    "with_peak_memory",
    "with_ties",
]

SOLVERS: dict[str, type[AbstractSolver]] = {
    kind.name: kind for kind in (Auto, LagrangianCore, ChainCore, Highs, Cbc, Exhaustive)
}


def solve(
    problem: Problem,
    solver: str = "auto",
    *,
    time_limit_seconds: float = 60.0,
    gap: float = 1e-6,
) -> Solution:
    """Return the certified answer of the named solver.

    Args:
        problem: Losses, whole-number costs and limits.
        solver: A name in `SOLVERS`.
        time_limit_seconds: When to stop with the best answer so far.
        gap: The relative gap (see `Solution.gap`) within which an answer is OPTIMAL.

    Raises:
        UsageError: The solver is unknown, or a setting out of range.
        UnsupportedFeatureError: The solver lacks what the problem needs.
        MissingPackageError: A package that the solver calls is not installed.
        SolverError: Every back end crashed.

    Example:
        >>> import numpy as np
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> solution = solve(problem)
        >>> str(solution.termination), solution.choice.tolist(), solution.loss
        ('optimal', [1, 0], 1.0)
    """
    if solver not in SOLVERS:
        raise UsageError(
            f"Solver {solver!r} is unknown. Expected one of {', '.join(SOLVERS)}. "
            "Choose one of them, or 'auto'."
        )
    return SOLVERS[solver](gap=gap, time_limit_seconds=time_limit_seconds).solve(problem)
