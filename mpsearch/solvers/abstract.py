"""What every solver is: check the problem, propose an answer, certify it."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.util import find_spec
from typing import ClassVar, final

import numpy as np

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution
from mpsearch.errors import MissingPackageError, UnsupportedFeatureError, UsageError
from mpsearch.solvers.certificate import certify, unreachable
from mpsearch.solvers.proposal import Proposal

# Certifying an answer takes about this long per cost, but no more than this share of the limit.
_SECONDS_OF_CERTIFICATE, _LARGEST_SHARE = 4e-8, 0.5
# One lowered limit cures a rounding; a back end that still overshoots after these is left.
_ATTEMPTS = 6


class Feature(StrEnum):
    """What a problem may need beyond one limit, and a solver may be able to do."""

    SEVERAL_LIMITS = "several_limits"
    EDGES = "edges"
    SHARING = "shared_costs"
    CUTS = "cuts"


@dataclass(frozen=True, kw_only=True)
class AbstractSolver(ABC):
    """Find the least loss within the limits of a Problem.

    `gap` is the proven relative gap below which an answer is OPTIMAL, measured as in
    `Solution.gap`; `time_limit_seconds` is the time after which the best answer is returned.
    """

    name: ClassVar[str]
    supports: ClassVar[frozenset[Feature]]
    requires: ClassVar[tuple[str, ...]] = ()

    gap: float = 1e-6
    time_limit_seconds: float = 60.0

    @final
    def solve(self, problem: Problem) -> Solution:
        """Return a certified answer; nothing that a back end claims is passed on unchecked.

        Raises:
            UnsupportedFeatureError: The problem needs a feature that this solver lacks.
            MissingPackageError: A package that this solver calls is not installed.
            SolverError: The back end crashed.
        """
        start = time.monotonic()
        self._check(problem)
        proposal = unreachable(problem)
        if proposal is None:
            kept = _SECONDS_OF_CERTIFICATE * problem.cost.size
            kept = min(kept, _LARGEST_SHARE * self.time_limit_seconds)
            deadline = start + self.time_limit_seconds - kept
            proposal = self._within_limits(problem, deadline=deadline)
        return certify(
            problem,
            proposal,
            solver=self.name,
            gap=self.gap,
            seconds=time.monotonic() - start,
        )

    @abstractmethod
    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        """Return the back end's answer to a checked problem, by `time.monotonic() = deadline`."""

    def _check(self, problem: Problem) -> None:
        if not (0 <= self.gap < 1) or not self.time_limit_seconds > 0:
            raise UsageError(
                f"gap {self.gap} or time_limit_seconds {self.time_limit_seconds} is out of range. "
                "Expected 0 <= gap < 1 and a time limit above 0. Pass such numbers."
            )
        lacking = features_of(problem) - self.supports
        if lacking:
            raise UnsupportedFeatureError(
                f"Solver {self.name!r} lacks {', '.join(sorted(lacking))}, which the problem "
                "needs. Expected a solver that supports it. Use solver='auto'."
            )
        absent = [package for package in self.requires if find_spec(package) is None]
        if absent:
            raise MissingPackageError(
                f"Solver {self.name!r} needs {', '.join(absent)}, which is not installed. "
                "Expected the packages that mpsearch depends on. Run: pip install mpsearch[fast]."
            )

    def _within_limits(self, problem: Problem, *, deadline: float) -> Proposal:
        """Ask again under lower limits while the answer overshoots; the first bound holds."""
        first = self._propose(problem, deadline=deadline)
        answer, limit = first, problem.limit
        for _ in range(_ATTEMPTS):
            if answer.choice is None:
                break
            over = problem.spend(answer.choice) - problem.limit
            if (over <= 0).all():
                break
            # Twice the overshoot, so that a few attempts outgrow any rounding.
            limit = limit - 2 * np.maximum(over, 0)
            lowered = replace(problem, limit=limit)
            if unreachable(lowered) is not None or time.monotonic() > deadline:
                return replace(first, choice=None, overshot=True)
            answer = self._propose(lowered, deadline=deadline)
        if answer is first:
            return first
        return replace(first, choice=answer.choice, overshot=True)


def features_of(problem: Problem) -> frozenset[Feature]:
    """Return what a problem needs of its solver.

    Example:
        >>> problem = Problem(
        ...     loss=np.zeros((1, 1)),
        ...     cost=np.zeros((2, 1, 1), dtype=int),
        ...     limit=np.array([1, 1]),
        ... )
        >>> [str(feature) for feature in features_of(problem)]
        ['several_limits']
    """
    needed = {
        Feature.SEVERAL_LIMITS: len(problem.limit) > 1,
        Feature.EDGES: problem.edges is not None and len(problem.edges) > 0,
        Feature.SHARING: problem.sharers is not None and len(problem.sharers) > 0,
        Feature.CUTS: problem.cuts is not None and len(problem.cuts) > 0,
    }
    return frozenset(feature for feature, is_needed in needed.items() if is_needed)
