"""Local search of a quadratic form under budgets: anneal at prices, repair, exchange."""

import time
from collections.abc import Callable
from typing import final

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy import ndarray
from numpy.random import Generator

from mpsearch.core.problem import Problem
from mpsearch.solvers.compiled import HAS_NUMBA, compiled
from mpsearch.solvers.interaction_loops import Form, Walk, anneal, exchange, repair

# Up to here all products of columns are kept: 256 MB.
MOST_PRODUCTS = 8192
# A stage of annealing, and a piece of an exchange pass, take some milliseconds.
_TRIES = 1 << 14 if HAS_NUMBA else 1 << 9
_FIRSTS, _PARTNERS, _REPAIRS = 64 if HAS_NUMBA else 4, 64, 4
# A round anneals for this long at most, or so many tries per column, whichever ends first.
_ROUND_SECONDS, _SHARE_OF_ANNEALING, _MOST_TRIES = 4.0, 0.75, 3000
MOST_ROUNDS, _VAIN_ROUNDS = 16, 4
# Temperatures in units of what a block is worth on average.
_HOT, _COLD = 0.3, 3e-4
# Prices follow what is overspent, by so much per stage and share of the span.
_PRICE_STEP = 3.0
_LEAST_PRICE = 1e-3
_ROUNDING = 1e-7


@final
class InteractionSearch:
    """Find choices with a small `mixed |sum of columns|^2 + linear . x` within all budgets."""

    def __init__(
        self,
        problem: Problem,
        *,
        vectors: Float32[ndarray, "X S"],
        gram: Float32[ndarray, "X X"] | None,
        linear: Float[ndarray, " X"],
        mixed: float,
        value: Callable[[Int[ndarray, " D"]], float],
        rounds: int = MOST_ROUNDS,
    ) -> None:
        self._problem = problem
        self._rounds = rounds
        self._value = value
        formats = problem.loss.shape[1]
        none = np.zeros((0, 0), dtype=np.float32)
        cost = problem.cost.reshape(len(problem.limit), -1).T
        self._form = Form(
            gram=none if gram is None else gram,
            vectors=vectors if gram is None else none,
            linear=linear,
            mixed=mixed,
            cost=np.ascontiguousarray(cost, dtype=np.int64),
            allowed=problem.mask.ravel(),
            formats=formats,
        )
        spread = (problem.cost.max(axis=2) - problem.cost.min(axis=2)).sum(axis=1)
        self._width = np.maximum(spread.astype(float), 1.0)
        self.best: Int[ndarray, " D"] | None = None
        self.least = np.inf

    def run(
        self,
        first: Int[ndarray, " D"],
        *,
        price: Float[ndarray, " R"],
        deadline: float,
        generator: Generator,
    ) -> None:
        """Search from a choice within the budgets, at prices near the best ones.

        Ends at the deadline, or after some rounds in vain.
        """
        self._offer(first)
        # A budget that was free so far may bind yet.
        price = np.maximum(price, _LEAST_PRICE * self.least / self._width)
        vain = 0
        for number in range(self._rounds):
            left = deadline - time.monotonic()
            if left <= 0 or vain == _VAIN_ROUNDS:
                return
            length = left / min(np.ceil(left / _ROUND_SECONDS), self._rounds - number)
            before = self.least
            end = time.monotonic() + length
            if number % 2:
                # Prices cannot lead to choices that are best at no price; walls can.
                self._round(0.0 * price, has_walls=True, deadline=end, generator=generator)
            else:
                price = self._round(price, has_walls=False, deadline=end, generator=generator)
            vain = 0 if self.least < before else vain + 1

    def _round(
        self,
        price: Float[ndarray, " R"],
        *,
        has_walls: bool,
        deadline: float,
        generator: Generator,
    ) -> Float[ndarray, " R"]:
        """Anneal from the best choice on, then mend and exchange; return the last prices."""
        assert self.best is not None
        walk = self._walk(self.best)
        start = time.monotonic()
        length = _SHARE_OF_ANNEALING * max(deadline - start, 1e-9)
        unit = self.least / len(self.best)
        share, tries = 0.0, 0
        stage = min(_TRIES, 16 * len(self._form.allowed))
        while share < 1.0:
            temperature = unit * _HOT * (_COLD / _HOT) ** share
            draws = generator.random((stage, 3))
            compiled(anneal)(self._form, walk, price, draws, temperature, has_walls)
            over = -walk.slack / self._width
            price = price * np.exp(np.clip(_PRICE_STEP * over, -0.1, 0.1))
            if (walk.slack >= 0).all() and self._estimate(walk) < self.least:
                self._offer(walk.column % self._form.formats)
            tries += stage
            taken = (time.monotonic() - start) / length
            share = max(taken, tries / (_MOST_TRIES * len(self._form.allowed)))
        done = 0
        while done == 0 and time.monotonic() < deadline:
            done = compiled(repair)(self._form, walk, self._width, _REPAIRS)
        if done > 0:
            self._offer(walk.column % self._form.formats)
            self._exchange(walk, deadline=deadline, generator=generator)
        return price

    def _exchange(self, walk: Walk, *, deadline: float, generator: Generator) -> None:
        """Exchange until nothing helps any more, or the time is up."""
        columns = len(self._form.allowed)
        least = _ROUNDING * abs(self.least)
        taken = 1
        while taken:
            taken = 0
            order = generator.permutation(columns)
            for place in range(0, columns, _FIRSTS):
                if time.monotonic() > deadline:
                    break
                partners = np.arange(columns)
                if not (len(self._form.gram) and HAS_NUMBA):
                    partners = generator.integers(0, columns, _PARTNERS)
                firsts = order[place : place + _FIRSTS]
                taken += compiled(exchange)(self._form, walk, firsts, partners, least)
            self._offer(walk.column % self._form.formats)
            if time.monotonic() > deadline:
                return

    def _walk(self, choice: Int[ndarray, " D"]) -> Walk:
        column = np.arange(len(choice)) * self._form.formats + choice
        if len(self._form.gram):
            field = self._form.gram[column].sum(axis=0, dtype=float)
        else:
            field = self._form.vectors[column].sum(axis=0, dtype=float)
        slack = (self._problem.limit - self._problem.spend(choice)).astype(np.int64)
        return Walk(column=column, slack=slack, field=field)

    def _estimate(self, walk: Walk) -> float:
        """Return the form's value to the precision of products, quicker than exactly."""
        field = walk.field[walk.column] if len(self._form.gram) else walk.field**2
        return float(self._form.mixed * field.sum() + self._form.linear[walk.column].sum())

    def _offer(self, choice: Int[ndarray, " D"]) -> None:
        if not self._problem.fits(choice):
            return
        value = self._value(choice)
        if value < self.least:
            self.best, self.least = choice.copy(), value
