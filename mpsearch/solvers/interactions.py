"""Losses that interact: the squared output error of a plan, with all cross terms, from probes.

Probes u (S, D, F) are linear in the layers: a plan's number is the sum of its blocks', so
`(1 - rho) mean_s (sum_d u)^2 + rho sum_d mean_s u^2` is its squared output error, shrunk
towards independent layers by `rho`. The form is positive semidefinite of rank S.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.problem import Problem
from mpsearch.core.solution import Solution, Termination
from mpsearch.errors import ProblemError, UnsupportedFeatureError
from mpsearch.solvers.abstract import Feature, features_of
from mpsearch.solvers.auto import Auto
from mpsearch.solvers.exhaustive import every_choice
from mpsearch.solvers.interaction_search import (
    MOST_PRODUCTS,
    MOST_ROUNDS,
    InteractionSearch,
)
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.relaxation import relaxed

# A small problem is enumerated, its proof is exact.
_LARGEST_EXHAUSTIVE = 20_000
# Parts of the time: the additive problem, products of columns, the bound; when all must be over.
_SHARE_OF_ADDITIVE, _SHARE_OF_PRODUCTS, _SHARE_OF_BOUND, _LATEST = 0.4, 0.6, 0.1, 0.95
_GAP_OF_START = 1e-3
# One core multiplies about so much in single precision.
_OPERATIONS_PER_SECOND = 4e10
# Rows of products between two looks at the clock: about a tenth of a second.
_ROWS = 512
_BOUND_STEPS = 30
_ROUNDING = 1e-9


def solve_interactions(
    problem: Problem,
    probes: Float[ndarray, "S D F"],
    *,
    rhos: Sequence[float],
    generator: Generator,
    gap: float = 1e-6,
    time_limit_seconds: float = 5.0,
    rounds: int = MOST_ROUNDS,
) -> list[Solution]:
    """Return one answer per rho, from the additive optimum on; `problem.loss` is not used.

    `loss` is the form's value, recomputed in double precision; `bound` is below that of every
    choice within the limits. Small problems are enumerated and proven, others are annealed, in
    `rounds` at most: where they end before the time does, equal calls have equal answers.

    Raises:
        ProblemError: Probes do not fit the problem, or are not finite; a rho outside [0, 1].
        UnsupportedFeatureError: The problem has edges or cuts.
    """
    _check(problem, probes, rhos=rhos)
    start = time.monotonic()
    square = np.einsum("sdf,sdf->df", probes, probes, dtype=float) / len(probes)
    additive = replace(problem, loss=np.where(problem.mask, square, np.nan))
    # A start needs no proof, but there has to be one.
    limit = _SHARE_OF_ADDITIVE * time_limit_seconds
    first = Auto(gap=_GAP_OF_START, time_limit_seconds=limit).solve(additive)
    if first.choice is None and first.termination is Termination.LIMIT:
        # The first call of a process may spend its time loading machine code.
        first = Auto(gap=_GAP_OF_START, time_limit_seconds=limit).solve(additive)
    if first.choice is None:
        return [first for _ in rhos]
    if math.prod(problem.mask.sum(axis=1).tolist()) <= _LARGEST_EXHAUSTIVE:
        return [_enumerated(problem, probes, rho=rho, gap=gap) for rho in rhos]
    vectors = probes.reshape(len(probes), -1).T.astype(np.float32) / np.sqrt(len(probes))
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    end_of_products = start + _SHARE_OF_PRODUCTS * time_limit_seconds
    gram = _products(vectors, deadline=end_of_products)
    answers = []
    for place, rho in enumerate(rhos):
        # What is left is shared by the answers to come.
        left = start + time_limit_seconds - time.monotonic()
        task = _Task(problem=problem, probes=probes, square=square, rho=rho)
        seconds = max(left, 0.1) / (len(rhos) - place)
        search = InteractionSearch(
            problem,
            vectors=vectors,
            gram=gram,
            linear=rho * square.ravel(),
            mixed=1 - rho,
            value=task.value,
            rounds=rounds,
        )
        answers.append(
            _answer(task, search, first=first, seconds=seconds, generator=generator, gap=gap)
        )
    return answers


@final
@dataclass(frozen=True, kw_only=True)
class _Task:
    """A quadratic form over a problem's choices."""

    problem: Problem
    probes: Float[ndarray, "S D F"]
    square: Float[ndarray, "D F"]
    rho: float

    def value(self, choice: Int[ndarray, " D"]) -> float:
        rows = np.arange(len(choice))
        total = self.probes[:, rows, choice].sum(axis=1, dtype=float)
        alone = math.fsum(self.square[rows, choice])
        return float((1 - self.rho) * (total @ total) / len(total) + self.rho * alone)

    def slope(self, point: Float[ndarray, "D F"]) -> tuple[float, Float[ndarray, "D F"]]:
        """Return the form's value and slope at a mixture of choices."""
        samples = len(self.probes)
        flat = self.probes.reshape(samples, -1)
        total = flat @ point.ravel()
        slope = (2 * (1 - self.rho) / samples) * (total @ flat).reshape(point.shape)
        value = (1 - self.rho) * float(total @ total) / samples
        linear = self.rho * self.square
        return value + float((linear * point).sum()), slope + linear


def _check(problem: Problem, probes: Float[ndarray, "S D F"], *, rhos: Sequence[float]) -> None:
    if probes.shape[1:] != problem.loss.shape or not np.isfinite(probes).all():
        raise ProblemError(
            f"Probes have shape {probes.shape}, or are not finite. Expected finite numbers of "
            f"shape (samples, {', '.join(map(str, problem.loss.shape))}). Measure them again."
        )
    if not all(0 <= rho <= 1 for rho in rhos):
        raise ProblemError(f"rho is one of {list(rhos)}. Expected 0 to 1. Choose such shares.")
    if features_of(problem) - {Feature.SEVERAL_LIMITS}:
        raise UnsupportedFeatureError(
            "Interactions are solved under budgets only, not with edges or cuts. "
            "Expected a problem without. Drop them, and check the answer afterwards."
        )


def _enumerated(
    problem: Problem, probes: Float[ndarray, "S D F"], *, rho: float, gap: float
) -> Solution:
    start = time.monotonic()
    square = np.einsum("sdf,sdf->df", probes, probes, dtype=float) / len(probes)
    task = _Task(problem=problem, probes=probes, square=square, rho=rho)
    fitting = [choice for choice in every_choice(problem) if problem.fits(choice)]
    best = min(fitting, key=task.value)
    return _solution(task, best, bound=task.value(best), seconds=time.monotonic() - start, gap=gap)


def _answer(
    task: _Task,
    search: InteractionSearch,
    *,
    first: Solution,
    seconds: float,
    generator: Generator,
    gap: float,
) -> Solution:
    start = time.monotonic()
    assert first.choice is not None
    price = np.zeros(len(task.problem.limit)) if first.multipliers is None else first.multipliers
    end = start + (1 - _SHARE_OF_BOUND) * seconds
    search.run(first.choice, price=price, deadline=end, generator=generator)
    best = first.choice if search.best is None else search.best
    bound = _bound(task, best, deadline=start + _LATEST * seconds)
    return _solution(task, best, bound=bound, seconds=time.monotonic() - start, gap=gap)


def _products(
    vectors: Float32[ndarray, "X S"], *, deadline: float
) -> Float32[ndarray, "X X"] | None:
    """Return all products of columns, None where they fit neither memory nor the time."""
    columns, samples = vectors.shape
    seconds = 2.0 * columns * columns * samples / _OPERATIONS_PER_SECOND
    if columns > MOST_PRODUCTS or time.monotonic() + seconds > deadline:
        return None
    gram = np.empty((columns, columns), dtype=np.float32)
    for start in range(0, columns, _ROWS):
        if time.monotonic() > deadline:
            return None
        rows = slice(start, start + _ROWS)
        np.matmul(vectors[rows], vectors.T, out=gram[rows])
    return gram


def _bound(task: _Task, best: Int[ndarray, " D"], *, deadline: float) -> float:
    """Return a lower bound over all choices within the limits.

    A convex form lies above its tangent at any mixture of choices, and the tangent is an
    additive loss, whose Lagrangian bound holds. The mixture moves towards each tangent's
    minimiser. Source: Frank and Wolfe (1956), Naval Research Logistics 3(1-2), 95-110.
    """
    point = np.zeros(task.square.shape)
    point[np.arange(len(best)), best] = 1.0
    # The form is a sum of squares; at rho = 1 its tangent is the form itself.
    bound = 0.0
    for step in range(_BOUND_STEPS):
        value, slope = task.slope(point)
        tangent = replace(task.problem, loss=slope)
        relaxation = relaxed(tangent, deadline=deadline)
        least, choice = lagrangian_bound(tangent, relaxation.multipliers)
        offset = value - float((slope * point).sum())
        bound = max(bound, offset + least - _ROUNDING * abs(value))
        if time.monotonic() > deadline:
            break
        corner = np.zeros(point.shape)
        chosen = relaxation.feasible if relaxation.feasible is not None else choice
        corner[np.arange(len(chosen)), chosen] = 1.0
        point += 2.0 / (step + 3.0) * (corner - point)
    return bound


def _solution(
    task: _Task, choice: Int[ndarray, " D"], *, bound: float, seconds: float, gap: float
) -> Solution:
    problem = task.problem
    spend = problem.spend(choice)
    loss = task.value(choice)
    found = Solution(
        termination=Termination.HEURISTIC,
        solver="interactions",
        seconds=seconds,
        choice=choice,
        loss=loss,
        bound=min(bound, loss),
        ideal=0.0,
        spend=spend,
        slack=problem.limit - spend,
    )
    return replace(found, termination=Termination.OPTIMAL) if found.gap <= gap else found
