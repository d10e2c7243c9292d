"""Walk downhill over choices within the limits, for a loss that has no formula per block."""

from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, final

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

from mpsearch.core.problem import Problem

# Losses of several choices at once; scoring them together is what makes it cheap.
Predict: TypeAlias = Callable[[Sequence[Int[ndarray, " D"]]], Float64[ndarray, " N"]]

# Pairs of changes are ranked by the sum of both; so many of the best are scored together.
_PAIRS_SCORED: Final = 64
# A step must gain more than rounding.
_GAIN: Final = 1e-9


@final
class Descent:
    """Steps of one or two blocks to the best neighbour, until none is better.

    `scored` maps every choice within the limits that was looked at to its loss.
    """

    def __init__(
        self, problem: Problem, predict: Predict, *, near: Bool[ndarray, "D F"] | None = None
    ) -> None:
        self._problem = problem
        self._predict = predict
        self._allowed = problem.mask if near is None else problem.mask & near
        self.scored: dict[tuple[int, ...], float] = {}
        self.evaluations = 0

    def walk(self, start: Int[ndarray, " D"], *, evaluations: int) -> Int[ndarray, " D"]:
        """Return the best choice reached from `start` with about so many scored choices."""
        here, value = start, self._scores([start])[0]
        limit = self.evaluations + evaluations
        while self.evaluations < limit:
            found, least = self._best_neighbour(here, value=value)
            if found is None or not least < value * (1 - _GAIN):
                break
            here, value = found, least
        return here

    def best(self, count: int) -> list[Int[ndarray, " D"]]:
        """Return the best choices that were scored, the best first."""
        ranked = sorted(self.scored.items(), key=lambda item: (item[1], item[0]))
        return [np.array(choice, dtype=np.int64) for choice, _ in ranked[:count]]

    def _best_neighbour(
        self, here: Int[ndarray, " D"], *, value: float
    ) -> tuple[Int[ndarray, " D"] | None, float]:
        blocks, formats = np.nonzero(self._allowed)
        moved = formats != here[blocks]
        blocks, formats = blocks[moved], formats[moved]
        if not len(blocks):
            return None, value
        singles = [_changed(here, [(block, to)]) for block, to in zip(blocks, formats, strict=True)]
        gains = self._scores(singles) - value
        pairs = self._promising_pairs(here, blocks=blocks, formats=formats, gains=gains)
        losses = self._scores(pairs)
        every = [*singles, *pairs]
        all_losses = np.concatenate([gains + value, losses])
        fits = [place for place, each in enumerate(every) if self._problem.fits(each)]
        if not fits:
            return None, value
        best = min(fits, key=lambda place: all_losses[place])
        return every[best], float(all_losses[best])

    def _promising_pairs(
        self,
        here: Int[ndarray, " D"],
        *,
        blocks: Int[ndarray, " M"],
        formats: Int[ndarray, " M"],
        gains: Float64[ndarray, " M"],
    ) -> list[Int[ndarray, " D"]]:
        """Return the pairs of changes that promise most, within limits where blocks add up."""
        cost = self._problem.cost
        slack = self._problem.limit - self._problem.spend(here)
        more = cost[:, blocks, formats] - cost[:, blocks, here[blocks]]
        first, second = np.triu_indices(len(blocks), k=1)
        fits = (more[:, first] + more[:, second] <= slack[:, None]).all(axis=0)
        fits &= blocks[first] != blocks[second]
        first, second = first[fits], second[fits]
        order = np.argsort(gains[first] + gains[second], kind="stable")[:_PAIRS_SCORED]
        return [
            _changed(here, [(blocks[a], formats[a]), (blocks[b], formats[b])])
            for a, b in zip(first[order], second[order], strict=True)
        ]

    def _scores(self, choices: Sequence[Int[ndarray, " D"]]) -> Float64[ndarray, " N"]:
        if not choices:
            return np.zeros(0)
        losses = self._predict(choices)
        self.evaluations += len(choices)
        for choice, loss in zip(choices, losses, strict=True):
            if self._problem.fits(choice):
                self.scored[tuple(choice.tolist())] = float(loss)
        return losses


def _changed(
    here: Int[ndarray, " D"], moves: Sequence[tuple[np.integer, np.integer]]
) -> Int[ndarray, " D"]:
    changed = here.copy()
    for block, to in moves:
        changed[block] = to
    return changed
