"""The best Lagrangian bound: one multiplier per budget, found by cutting planes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.solvers.lagrangian import lagrangian_bound
from mpsearch.solvers.sharing import without_sharing

# Value and slope (spend minus limit) of the Lagrangian bound at given multipliers.
Oracle: TypeAlias = Callable[[Float[ndarray, " R"]], tuple[float, Float[ndarray, " R"]]]

# The model and the bound then agree to far below any gap that is asked for.
_TOLERANCE = 1e-10
_ITERATIONS = 120
# Beyond this price the bound is above every loss, or the budget is no limit at all.
_GREATEST_PRICE = 1e12


def best_multipliers(problem: Problem, *, deadline: float = float("inf")) -> Float[ndarray, " R"]:
    """Return multipliers with (nearly) the greatest Lagrangian bound, in loss per unit.

    They diverge where no mixture of choices keeps all limits; the bound then exceeds every
    loss, which proves it.

    Example:
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> bound, _ = lagrangian_bound(problem, best_multipliers(problem))
        >>> round(bound, 9)
        1.0
    """
    problem = without_sharing(problem)
    loss = np.where(problem.mask, problem.loss, np.nan)
    span = float(np.nansum(np.nanmax(loss, axis=1) - np.nanmin(loss, axis=1))) or 1.0
    room = np.abs(problem.limit - problem.offset).astype(float)
    width = (problem.cost.max(axis=2) - problem.cost.min(axis=2)).sum(axis=1).astype(float)
    unit = np.maximum(np.maximum(width, room * 1e-3), 1.0)

    def oracle(scaled: Float[ndarray, " R"]) -> tuple[float, Float[ndarray, " R"]]:
        bound, choice = lagrangian_bound(problem, scaled * span / unit)
        return bound / span, (problem.spend(choice) - problem.limit) / unit

    greatest = float(np.nansum(np.nanmax(loss, axis=1))) / span
    scaled = maximise(oracle, size=len(unit), refuted_above=greatest + 1.0, deadline=deadline)
    best: Float[ndarray, " R"] = scaled * span / unit
    return best


def maximise(
    oracle: Oracle,
    *,
    size: int,
    start: Float[ndarray, " R"] | None = None,
    refuted_above: float = float("inf"),
    tolerance: float = _TOLERANCE,
    deadline: float = float("inf"),
) -> Float[ndarray, " R"]:
    """Return where a concave piecewise linear function of `size` numbers >= 0 is greatest.

    Cutting planes in a box that follows the best point and doubles while that lies on its
    side. Source: Kelley (1960), J. SIAM 8(4); Marsten, Hogan, Blankenship (1975), Oper. Res. 23(3).
    """
    best = np.zeros(size) if start is None else start
    if size == 0:
        return best
    value, slope = oracle(best)
    master = _Master.of(size)
    master.add(best, value=value, slope=slope)
    # Scaled multipliers are of order one.
    radius = 0.1 * best if start is not None else np.ones(size)
    radius = np.maximum(radius, 1e-4)
    for _ in range(_ITERATIONS):
        if value > refuted_above or time.monotonic() > deadline:
            break
        high = np.minimum(best + radius, _GREATEST_PRICE)
        point, promise = master.best(low=np.maximum(best - radius, 0.0), high=high)
        on_side = (point >= high) | ((point <= best - radius) & (point > 0))
        if promise - value <= tolerance * max(1.0, abs(value)):
            if not on_side.any() or bool((radius >= _GREATEST_PRICE).all()):
                break
            radius = np.where(on_side, radius * 4, radius)
            continue
        found, slope = oracle(point)
        master.add(point, value=found, slope=slope)
        if found > value:
            best, value = point, found
            radius = np.where(on_side, radius * 2, radius)
    return best


@final
@dataclass(frozen=True, kw_only=True)
class _Master:
    """The least concave model of the function above all slopes seen so far."""

    solver: Any
    size: int

    @staticmethod
    def of(size: int) -> "_Master":
        import highspy

        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]  # highspy is half typed
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("threads", 1)
        solver.setOptionValue("primal_feasibility_tolerance", 1e-10)
        solver.setOptionValue("dual_feasibility_tolerance", 1e-10)
        for _ in range(size):
            solver.addVar(0.0, 1.0)
        solver.addVar(-highspy.kHighsInf, highspy.kHighsInf)
        solver.changeColCost(size, -1.0)
        return _Master(solver=solver, size=size)

    def add(
        self, point: Float[ndarray, " R"], *, value: float, slope: Float[ndarray, " R"]
    ) -> None:
        import highspy

        columns = np.arange(self.size + 1, dtype=np.int32)
        weights = np.append(-slope, 1.0)
        upper = value - float(slope @ point)
        self.solver.addRow(-highspy.kHighsInf, upper, len(columns), columns, weights)

    def best(
        self, *, low: Float[ndarray, " R"], high: Float[ndarray, " R"]
    ) -> tuple[Float[ndarray, " R"], float]:
        for column in range(self.size):
            self.solver.changeColBounds(column, float(low[column]), float(high[column]))
        self.solver.run()
        values = np.array(self.solver.getSolution().col_value)
        return np.clip(values[: self.size], low, high), float(values[self.size])
