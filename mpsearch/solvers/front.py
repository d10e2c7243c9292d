"""Loss against budget: every supported point at once, exact points at chosen limits."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers.abstract import Feature, features_of
from mpsearch.solvers.auto import Auto
from mpsearch.solvers.certificate import certify, unreachable
from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.front_loops import lower_hulls
from mpsearch.solvers.lagrangian_core import search_core
from mpsearch.solvers.relaxation import relaxed

# What a warm search of the core may take of a point's time before `auto` gets the rest.
_SHARE_OF_CORE = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class SupportedFront:
    """The P points of one budget that are best at some price, from least to most spent.

    Step p changes `block[p]` to `format[p]`, starting from `first`.
    """

    spend: Int[ndarray, " P"]
    loss: Float[ndarray, " P"]
    price: Float[ndarray, " P"]
    first: Int[ndarray, " D"]
    block: Int[ndarray, " P-1"]
    format: Int[ndarray, " P-1"]

    def choice(self, point: int) -> Int[ndarray, " D"]:
        """Return the choice of a point."""
        choice = self.first.copy()
        for block, format_ in zip(self.block[:point], self.format[:point], strict=True):
            choice[block] = format_
        return choice


def supported_front(problem: Problem) -> SupportedFront:
    """Return all supported points of a problem of one budget, whatever its limit.

    Between two of them no price makes another choice best. `price[p]` is the loss that one
    more unit buys from point p on. Source: Sinha and Zoltners (1979), Oper. Res. 27(3).

    Raises:
        UnsupportedFeatureError: The problem has not one budget, or edges, or cuts.
    """
    if len(problem.limit) != 1 or features_of(problem):
        raise UnsupportedFeatureError(
            f"A supported front needs one budget without edges and cuts, not "
            f"{len(problem.limit)} budgets. Use `exact_front` at chosen limits."
        )
    loss = np.where(problem.mask, problem.loss, np.inf).astype(float)
    order = np.lexsort((loss, problem.cost[0]), axis=1)
    hull, size = compiled(lower_hulls)(loss, problem.cost[0].astype(np.int64), order)
    rows = np.arange(len(loss))
    first = hull[rows, 0]
    step = np.arange(hull.shape[1] - 1)[None] < size[:, None] - 1
    block, place = np.nonzero(step)
    before, after = hull[block, place], hull[block, place + 1]
    saved = loss[block, before] - loss[block, after]
    spent = problem.cost[0, block, after] - problem.cost[0, block, before]
    price = saved / spent
    steepest = np.argsort(-price, kind="stable")
    start = int(problem.offset[0] + problem.cost[0, rows, first].sum())
    return SupportedFront(
        spend=start + np.concatenate([[0], np.cumsum(spent[steepest])]),
        loss=problem.value(first) - np.concatenate([[0.0], np.cumsum(saved[steepest])]),
        price=np.append(price[steepest], 0.0),
        first=first,
        block=block[steepest],
        format=after[steepest],
    )


def exact_front(
    problem: Problem,
    limits: Sequence[Int[ndarray, " R"]],
    *,
    gap: float = 1e-6,
    time_limit_seconds: float = 60.0,
) -> list[Solution]:
    """Return the certified best choice under each of several limits.

    Prices, and whether losses lie on a lattice, are carried from one limit to the next;
    `time_limit_seconds` holds for each.
    """
    multipliers: Float[ndarray, " R"] | None = None
    solutions = []
    has_lattice = False
    for limit in limits:
        each = replace(problem, limit=np.asarray(limit))
        start = time.monotonic()
        if features_of(each) - {Feature.SEVERAL_LIMITS} or unreachable(each) is not None:
            solver = Auto(gap=gap, time_limit_seconds=time_limit_seconds)
            solutions.append(solver.solve(each))
            continue
        deadline = start + time_limit_seconds
        relaxation = relaxed(each, start=multipliers, deadline=deadline)
        multipliers = None if relaxation.is_refuted else relaxation.multipliers
        part = start + _SHARE_OF_CORE * time_limit_seconds
        core = search_core(relaxation, gap=gap, deadline=part, expects_lattice=has_lattice)
        has_lattice, proposal = has_lattice or core.has_lattice, core.proposal(each)
        seconds = time.monotonic() - start
        found = certify(each, proposal, solver="lagrangian_core", seconds=seconds, gap=gap)
        left = deadline - time.monotonic()
        if proposal.was_stopped and left > 0:
            again = Auto(gap=gap, time_limit_seconds=left).solve(each)
            found = min(found, again, key=lambda solution: solution.gap)
        solutions.append(found)
    return solutions
