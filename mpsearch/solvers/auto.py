"""The solver that suits the problem, and the next one where a back end fails."""

import time
from dataclasses import dataclass, replace
from typing import ClassVar, final

import numpy as np

from mpsearch.core.problem import Problem
from mpsearch.errors import SolverError
from mpsearch.solvers.abstract import AbstractSolver, Feature, features_of
from mpsearch.solvers.cbc import Cbc
from mpsearch.solvers.chain import chain_order, search_chain
from mpsearch.solvers.highs import Highs
from mpsearch.solvers.lagrangian_core import CoreResult, search_core
from mpsearch.solvers.proposal import Proposal
from mpsearch.solvers.relaxation import relaxed
from mpsearch.solvers.sharing import joined

# Cutting planes for the prices need few budgets; beyond, HiGHS' simplex method is faster.
_MOST_PRICED_BUDGETS = 12
# What the core search may take of the time before branch and cut gets the reduced problem;
# all of it where so many choices leave branch and cut without hope.
_SHARE_OF_CORE, _HOPELESS = 0.6, 200_000
# Choices that a reduced problem may have left for branch and cut to be of use.
_MOST_REDUCED = 20_000


@final
@dataclass(frozen=True, kw_only=True)
class Auto(AbstractSolver):
    """Search the core; where that ends without a proof, branch and cut on what it left open.

    Chains have a search of their own; other edges, cuts and many budgets go to branch and
    cut. A back end that crashes or hangs is replaced by the next one, and a note says so.
    """

    name: ClassVar[str] = "auto"
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SEVERAL_LIMITS, Feature.EDGES, Feature.SHARING, Feature.CUTS}
    )

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        special = features_of(problem) - {Feature.SEVERAL_LIMITS}
        now = time.monotonic()
        share = _SHARE_OF_CORE if problem.loss.size <= _HOPELESS else 1.0
        part = now + share * (deadline - now)
        if len(problem.limit) > _MOST_PRICED_BUDGETS or Feature.CUTS in special:
            return self._branch(problem, deadline=deadline)
        if special:
            return self._special(problem, part=part, deadline=deadline)
        found = search_core(relaxed(problem, deadline=part), gap=self.gap, deadline=part)
        proposal = found.proposal(problem)
        if not proposal.was_stopped:
            return proposal
        rest = _reduced(problem, found)
        if int(rest.mask.sum()) - len(rest.loss) > _MOST_REDUCED:
            return proposal
        return _better(problem, proposal, second=self._branch(rest, deadline=deadline))

    def _special(self, problem: Problem, *, part: float, deadline: float) -> Proposal:
        """Join blocks that share costs, follow chains, and leave the rest to branch and cut."""
        special = features_of(problem) - {Feature.SEVERAL_LIMITS}
        whole = joined(problem) if special == {Feature.SHARING} else None
        if whole is not None:
            return whole.proposal(self._propose(whole.problem, deadline=deadline))
        if Feature.SHARING in special or chain_order(problem) is None:
            return self._branch(problem, deadline=deadline)
        proposal = search_chain(problem, gap=self.gap, deadline=part)
        if not proposal.was_stopped:
            return proposal
        return _better(problem, proposal, second=self._branch(problem, deadline=deadline))

    def _branch(self, problem: Problem, *, deadline: float) -> Proposal:
        notes: tuple[str, ...] = ()
        for kind in (Highs, Cbc):
            left = deadline - time.monotonic()
            if notes and left <= 0:
                break
            solver = kind(gap=self.gap, time_limit_seconds=max(left, 0.1))
            try:
                proposal = solver.propose(problem, deadline=deadline)
            except SolverError as error:
                notes = (*notes, f"Solver {kind.name!r} failed: {error}")
                continue
            return replace(proposal, notes=(*notes, *proposal.notes))
        raise SolverError(
            f"Every back end failed. Expected one to answer. {' '.join(notes)} "
            "Report the problem, and use a smaller one meanwhile."
        )


def _reduced(problem: Problem, found: CoreResult) -> Problem:
    """Forbid every choice that no better answer than the one found can use."""
    relaxation = found.relaxation
    priced = relaxation.loss + np.tensordot(relaxation.price, relaxation.cost, axes=1)
    reduced = priced - priced.min(axis=1, keepdims=True)
    # A little more than the excess, so that the answer found stays within.
    return replace(problem, allowed=problem.mask & (reduced <= found.excess * (1 + 1e-9) + 1e-12))


def _better(problem: Problem, first: Proposal, *, second: Proposal) -> Proposal:
    """Return the better choice of two proposals with the better bound.

    The second one solved a problem that holds everything better than the first.
    """
    loss = np.inf if first.choice is None else problem.value(first.choice)
    if second.is_infeasible:
        return replace(first, bound=loss, is_infeasible=first.choice is None, was_stopped=False)
    fits = second.choice is not None and problem.fits(second.choice)
    is_second = fits and second.choice is not None and problem.value(second.choice) < loss
    return replace(
        first,
        choice=second.choice if is_second else first.choice,
        bound=max(first.bound, min(second.bound, loss)),
        was_stopped=second.was_stopped,
        notes=(*first.notes, *second.notes),
    )
