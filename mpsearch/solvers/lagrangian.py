"""The bound that anybody can recompute from one multiplier per budget.

For multipliers m >= 0 every choice within the limits has a loss of at least
`min over all choices of loss + m . spend, minus m . limit`, which splits into one minimum per
block, and along edges into a shortest path (Everett 1963, Operations Research 11(3), 399-417).
"""

import math

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.solvers.forest import minimise_forest
from mpsearch.solvers.sharing import without_sharing

# Sums of floats that were rounded once each are off by less than this share of their size.
_ROUNDING = 4 * float(np.finfo(float).eps)


def lagrangian_bound(
    problem: Problem, multipliers: Float[ndarray, " R"]
) -> tuple[float, Int[ndarray, " D"]]:
    """Return a lower bound of every feasible loss, and a choice that attains the minimum.

    The bound is rounded downwards, so that it holds in exact arithmetic. Where edges form a
    cycle, the edges that close one count with the least they can cost; shared costs count with
    equal parts for each block that shares.

    Example:
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> bound, choice = lagrangian_bound(problem, np.array([0.5]))
        >>> round(bound, 9), choice.tolist()
        (1.0, [1, 0])
    """
    problem = without_sharing(problem)
    priced = priced_loss(problem, multipliers)
    if problem.edges is None or problem.edge_cost is None or len(problem.edges) == 0:
        choice = np.argmin(priced, axis=1)
        least = math.fsum(priced[np.arange(len(choice)), choice])
    else:
        pair = np.einsum("r,refg->efg", multipliers, problem.edge_cost.astype(float))
        least, choice = minimise_forest(priced, edges=problem.edges, pair=pair)
    room = (problem.limit - problem.offset).astype(float)
    size = np.abs(priced[np.isfinite(priced)]).max(initial=0.0) * len(priced)
    size += float(np.abs(multipliers) @ np.abs(room))
    return float(least - multipliers @ room - _ROUNDING * size), choice


def priced_loss(problem: Problem, multipliers: Float[ndarray, " R"]) -> Float[ndarray, "D F"]:
    """Return loss plus what each choice spends at the given prices; infinite where forbidden."""
    priced = problem.loss.astype(float)
    for price, cost in zip(multipliers, problem.cost, strict=True):
        if price:
            priced = priced + price * cost
    return np.where(problem.mask, priced, np.inf)
