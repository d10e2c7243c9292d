"""The Lagrangian relaxation of a problem without edges, solved to its best prices."""

import math
import time
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.solvers.compiled import HAS_NUMBA, compiled
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.relaxation_loops import relax

# The secant meets the best price of one budget in about ten steps; ties end it earlier.
_SECANT_STEPS = 100
_COARSE, _FINE = 1e-6, 1e-9
_SMALL_BOUND = 0.5
# Blocks that tell early that costs have no common divisor.
_FEW = 256
# A feasible choice is sought at prices this much above the best ones.
_DEARER = (1.0 + 1e-7, 1.0 + 1e-5, 1.001, 1.01, 1.1, 1.5, 3.0, 10.0, 100.0)


@final
@dataclass(frozen=True, kw_only=True)
class Relaxation:
    """A problem at its best prices, losses above each block's least and in units of `unit`.

    Every choice within the limits has a loss of `bound` + reduced costs + `price` . slack.
    `choice` has no reduced costs, `slack` is what it leaves of each budget (negative where it
    overspends), `nearest` the reduced cost of each block's next best choice. `feasible` is
    the best choice within the limits that was met on the way.
    """

    loss: Float[ndarray, "D F"]
    cost: Int[ndarray, "K D F"]
    unit: float
    price: Float[ndarray, " K"]
    bound: float
    choice: Int[ndarray, " D"]
    slack: Int[ndarray, " K"]
    nearest: Float[ndarray, " D"]
    feasible: Int[ndarray, " D"] | None
    greatest: float

    @property
    def is_refuted(self) -> bool:
        """Whether the bound is above every loss, so that nothing keeps the limits."""
        return self.bound > self.greatest * (1 + 1e-9) + 1e-12

    @property
    def multipliers(self) -> Float[ndarray, " K"]:
        """Return the prices in units of the problem's loss."""
        return self.price * self.unit

    def excess(self, choice: Int[ndarray, " D"]) -> float:
        """Return how far the loss of a choice is above the bound."""
        return math.fsum(self.loss[np.arange(len(choice)), choice]) - self.bound


def relaxed(
    problem: Problem,
    *,
    start: Float[ndarray, " K"] | None = None,
    deadline: float = float("inf"),
) -> Relaxation:
    """Return the relaxation at its best prices; `start` are multipliers of a similar problem."""
    work = _Work.of(problem)
    scaled = None if start is None else start / work.unit * work.width
    for tolerance in (_COARSE, _FINE):
        scaled = _maximised(work, start=scaled, tolerance=tolerance, deadline=deadline)
        # Where good answers lose far less than the worst, only their size keeps precision.
        scaled = scaled / work.shrink(work.evaluate(scaled)[0])
    price = scaled / work.width
    choice, nearest, value = work.relax(price)
    slack = work.slack(choice)
    work.seek_feasible(price, deadline=deadline)
    return Relaxation(
        loss=work.loss,
        cost=work.cost,
        unit=work.unit,
        price=price,
        bound=value - float(price @ work.room),
        choice=choice,
        slack=slack,
        nearest=nearest,
        feasible=work.best,
        greatest=work.greatest,
    )


def _reachable(cost: Int[ndarray, "K D F"], room: Int[ndarray, " K"]) -> Int[ndarray, " K"]:
    """Return the room that sums of costs can fill: they rise in steps of a common divisor."""
    filled = room.copy()
    for k, rows in enumerate(cost):
        rise = rows - rows[:, :1]
        few = rise[:: max(1, len(rise) // _FEW)]
        # Where a few have nothing in common, all have not.
        divisor = int(np.gcd.reduce(few, axis=None))
        if divisor != 1:
            divisor = int(np.gcd.reduce(rise, axis=None))
        if divisor > 1:
            base = int(rows[:, 0].sum())
            filled[k] = base + (int(room[k]) - base) // divisor * divisor
    return filled


def _maximised(
    work: "_Work", *, start: Float[ndarray, " K"] | None, tolerance: float, deadline: float
) -> Float[ndarray, " K"]:
    if len(work.room) == 1:
        return _secant(work, start=start, deadline=deadline)
    return maximise(
        work.evaluate,
        size=len(work.room),
        start=start,
        refuted_above=work.greatest * 1.01 + 1.0,
        tolerance=tolerance,
        deadline=deadline,
    )


@final
class _Work:
    """Arrays in the form that the loops want, and the best feasible choice seen so far."""

    def __init__(self, problem: Problem, *, loss: Float[ndarray, "D F"], unit: float) -> None:
        self.loss, self.unit = loss, unit
        self.cost = np.ascontiguousarray(problem.cost, dtype=np.int64)
        self.room = _reachable(self.cost, (problem.limit - problem.offset).astype(np.int64))
        spread = (self.cost.max(axis=2) - self.cost.min(axis=2)).sum(axis=1)
        self.width = np.maximum(spread.astype(float), 1.0)
        self.greatest = float(np.where(np.isfinite(loss), loss, 0.0).max(axis=1).sum())
        self.best: Int[ndarray, " D"] | None = None
        self._least = math.inf

    @staticmethod
    def of(problem: Problem) -> "_Work":
        loss = np.where(problem.mask, problem.loss, np.inf).astype(float)
        loss -= loss.min(axis=1, keepdims=True)
        span = float(np.where(problem.mask, loss, 0.0).max(axis=1).sum())
        unit = span if span > 0 else 1.0
        return _Work(problem, loss=loss / unit, unit=unit)

    def shrink(self, bound: float) -> float:
        """Measure losses in units of the bound, where it is small; return the new unit."""
        if not 0 < bound < _SMALL_BOUND:
            return 1.0
        self.loss = self.loss / bound
        self.unit *= bound
        self.greatest /= bound
        self._least /= bound
        return bound

    def relax(
        self, price: Float[ndarray, " K"]
    ) -> tuple[Int[ndarray, " D"], Float[ndarray, " D"], float]:
        choice = np.empty(len(self.loss), dtype=np.int64)
        nearest = np.empty(len(self.loss))
        if HAS_NUMBA:
            value = compiled(relax)(self.loss, self.cost, price, choice, nearest)
            return choice, nearest, value
        priced = self.loss + np.tensordot(price, self.cost, axes=1)
        choice = np.argmin(priced, axis=1)
        if priced.shape[1] > 1:
            two = np.partition(priced, 1, axis=1)
            return choice, two[:, 1] - two[:, 0], math.fsum(two[:, 0])
        return choice, np.full(len(priced), np.inf), math.fsum(priced[:, 0])

    def slack(self, choice: Int[ndarray, " D"]) -> Int[ndarray, " K"]:
        """Return what a choice leaves, and remember it where it is the best that fits."""
        blocks = np.arange(len(choice))
        slack: Int[ndarray, " K"] = self.room - self.cost[:, blocks, choice].sum(axis=1)
        if (slack >= 0).all():
            loss = float(self.loss[blocks, choice].sum())
            if loss < self._least:
                self._least, self.best = loss, choice
        return slack

    def evaluate(self, scaled: Float[ndarray, " K"]) -> tuple[float, Float[ndarray, " K"]]:
        price = scaled / self.width
        choice, _, value = self.relax(price)
        slack = self.slack(choice)
        return value - float(price @ self.room), -slack / self.width

    def seek_feasible(self, price: Float[ndarray, " K"], *, deadline: float) -> None:
        for factor in _DEARER:
            if self.best is not None or time.monotonic() > deadline:
                return
            self.slack(self.relax(price * factor)[0])


def _secant(
    work: _Work, *, start: Float[ndarray, " K"] | None, deadline: float
) -> Float[ndarray, " K"]:
    """Return the best price of one budget: where the lines of two choices meet.

    A choice that overspends and one that does not are kept; the price at which both have the
    same priced loss shows the choice between them, or that there is none.
    """
    low = _Line.at(np.zeros(1), work=work)
    if low.slope <= 0:
        return low.price
    high = _Line.at(np.ones(1) if start is None else np.maximum(start, 1e-12), work=work)
    while high.slope > 0:
        if high.value > work.greatest + 1.0 or time.monotonic() > deadline:
            return high.price
        low, high = high, _Line.at(high.price * 4, work=work)
    best = max(low, high, key=lambda line: line.value)
    for _ in range(_SECANT_STEPS):
        if time.monotonic() > deadline:
            break
        gain = high.value - high.slope * high.price - (low.value - low.slope * low.price)
        point = np.clip(gain / (low.slope - high.slope), low.price, high.price)
        promise = low.value + low.slope * float((point - low.price)[0])
        found = _Line.at(point, work=work)
        best = max(best, found, key=lambda line: line.value)
        is_inside = low.price[0] < point[0] < high.price[0]
        if found.value >= promise - 1e-15 * abs(promise) or not is_inside:
            break
        low, high = (found, high) if found.slope > 0 else (low, found)
    return best.price


@final
@dataclass(frozen=True, kw_only=True)
class _Line:
    """The bound at a price of one budget, and how it changes there."""

    price: Float[ndarray, " 1"]
    value: float
    slope: float

    @staticmethod
    def at(price: Float[ndarray, " 1"], *, work: _Work) -> "_Line":
        value, slope = work.evaluate(price)
        return _Line(price=price, value=value, slope=float(slope[0]))
