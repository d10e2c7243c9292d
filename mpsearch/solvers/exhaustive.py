"""Every choice, one by one: the reference that all other solvers are tested against."""

import math
import time
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.proposal import Proposal

# A few seconds of work.
LARGEST_COUNT = 2_000_000
_CHUNK = 1 << 15


@final
@dataclass(frozen=True, kw_only=True)
class Exhaustive(AbstractSolver):
    """Try every choice of a small problem (at most 2 million)."""

    name: ClassVar[str] = "exhaustive"
    supports: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SEVERAL_LIMITS, Feature.EDGES, Feature.SHARING, Feature.CUTS}
    )

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        count = math.prod(problem.mask.sum(axis=1).tolist())
        if count > LARGEST_COUNT:
            raise UnsupportedFeatureError(
                f"The problem has {count:.3g} choices. Expected at most {LARGEST_COUNT} for "
                "solver 'exhaustive'. Use solver='auto'."
            )
        best, least = None, math.inf
        for start in range(0, count, _CHUNK):
            if time.monotonic() > deadline:
                return Proposal(choice=best, was_stopped=True)
            choices = _choices(problem, np.arange(start, min(start + _CHUNK, count)))
            loss = problem.loss[np.arange(choices.shape[1]), choices].sum(axis=1)
            loss[~_fit(problem, choices)] = math.inf
            place = int(np.argmin(loss))
            if loss[place] < least:
                best, least = choices[place], float(loss[place])
        return Proposal(choice=best, bound=least, is_infeasible=best is None)


def every_choice(problem: Problem) -> Int[ndarray, "N D"]:
    """Return all choices that are allowed, whatever they spend."""
    return _choices(problem, np.arange(math.prod(problem.mask.sum(axis=1).tolist())))


def _choices(problem: Problem, numbers: Int[ndarray, " N"]) -> Int[ndarray, "N D"]:
    """Return the choices of the given numbers in a mixed-radix count of what is allowed."""
    radix = problem.mask.sum(axis=1)
    choices = np.zeros((len(numbers), len(radix)), dtype=np.int64)
    for block in range(len(radix) - 1, -1, -1):
        numbers, digit = np.divmod(numbers, radix[block])
        choices[:, block] = np.flatnonzero(problem.mask[block])[digit]
    return choices


def _fit(problem: Problem, choices: Int[ndarray, "N D"]) -> Bool[ndarray, " N"]:
    """Return which choices keep every limit and are not cut off."""
    blocks = np.arange(choices.shape[1])
    spend = problem.offset[:, None] + problem.cost[:, blocks, choices].sum(axis=2)
    if problem.edges is not None and problem.edge_cost is not None:
        first, second = choices[:, problem.edges[:, 0]], choices[:, problem.edges[:, 1]]
        edges = np.arange(len(problem.edges))
        spend = spend + problem.edge_cost[:, edges, first, second].sum(axis=2)
    if problem.sharers is not None and problem.share_cost is not None:
        group, block, format_ = problem.sharers.T
        used = np.zeros((problem.share_cost.shape[1], len(choices)), dtype=bool)
        np.logical_or.at(used, group, (choices[:, block] == format_).T)
        spend = spend + problem.share_cost @ used
    fit: Bool[ndarray, " N"] = (spend <= problem.limit[:, None]).all(axis=0)
    for cut in problem.cuts if problem.cuts is not None else ():
        fit &= (choices != cut).any(axis=1)
    return fit
