"""The solver that suits the problem, and the next one where a back end fails."""

import time
from dataclasses import dataclass, replace
from typing import ClassVar, final

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.cbc import Cbc
from mpsearch.solvers.highs import Highs
from mpsearch.solvers.proposal import Proposal


@final
@dataclass(frozen=True, kw_only=True)
class Auto(AbstractSolver):
    """Pick by size and structure; say so where a back end failed and another took over."""

    name: ClassVar[str] = "auto"
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SEVERAL_LIMITS, Feature.EDGES, Feature.CUTS}
    )

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        notes: tuple[str, ...] = ()
        for kind in (Highs, Cbc):
            left = max(0.1, deadline - time.monotonic())
            solver = kind(gap=self.gap, time_limit_seconds=left)
            try:
                proposal = solver._propose(problem, deadline=deadline)  # noqa: SLF001 - a solver too
            except SolverError as error:
                notes = (*notes, f"Solver {kind.name!r} failed: {error}")
                continue
            return replace(proposal, notes=(*notes, *proposal.notes))
        raise SolverError(
            f"Every back end failed. Expected one to answer. {' '.join(notes)} "
            "Report the problem, and use a smaller one meanwhile."
        )
