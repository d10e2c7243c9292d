"""The hot loop of annealing a quadratic form under budgets."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray


class Form(NamedTuple):
    """Minimise `mixed x'Gx + linear . x` over one format per block, X = blocks x formats."""

    gram: Float32[ndarray, "X X"]
    linear: Float[ndarray, " X"]
    mixed: float
    cost: Int[ndarray, "X R"]
    allowed: Bool[ndarray, " X"]
    formats: int


class Walk(NamedTuple):
    """Where the search stands: choice, `field` = G x, and what is left of each budget."""

    choice: Int[ndarray, " D"]
    field: Float[ndarray, " X"]
    slack: Int[ndarray, " R"]


def anneal(  # noqa: PLR0917 - machine code takes arguments by position
    form: Form, walk: Walk, draws: Float[ndarray, "N 5"], temperature: float
) -> float:
    """Try one or two changes per row of uniform draws; return the change of the objective.

    A change that breaks a budget is tried together with a random second one. Source:
    Kirkpatrick, Gelatt, Vecchi (1983), Science 220(4598), 671-680.
    """
    total = 0.0
    blocks = len(walk.choice)
    for n in range(len(draws)):
        first = int(draws[n, 0] * blocks)
        new = first * form.formats + int(draws[n, 1] * form.formats)
        old = first * form.formats + walk.choice[first]
        if new == old or not form.allowed[new]:
            continue
        change = _change(form, walk, old, new)
        second, other_new, other_old = -1, 0, 0
        if not _fits(form, walk, old, new, 0, 0):
            second = int(draws[n, 2] * blocks)
            other_new = second * form.formats + int(draws[n, 3] * form.formats)
            other_old = second * form.formats + walk.choice[second]
            if second == first or other_new == other_old or not form.allowed[other_new]:
                continue
            if not _fits(form, walk, old, new, other_old, other_new):
                continue
            cross = form.gram[new, other_new] - form.gram[new, other_old]
            cross += form.gram[old, other_old] - form.gram[old, other_new]
            change += _change(form, walk, other_old, other_new) + 2 * form.mixed * cross
        if change < 0 or draws[n, 4] < np.exp(-change / max(temperature, 1e-300)):
            _take(form, walk, first, old, new)
            if second >= 0:
                _take(form, walk, second, other_old, other_new)
            total += change
    return total


def _change(form: Form, walk: Walk, old: int, new: int) -> float:  # noqa: PLR0917 - machine code takes arguments by position
    square = form.gram[new, new] + form.gram[old, old] - 2 * form.gram[new, old]
    change = 2 * (walk.field[new] - walk.field[old]) + square
    return float(form.mixed * change + form.linear[new] - form.linear[old])


def _fits(form: Form, walk: Walk, old: int, new: int, other_old: int, other_new: int) -> bool:  # noqa: PLR0917 - machine code takes arguments by position
    fits = True
    for k in range(len(walk.slack)):
        spent = form.cost[new, k] - form.cost[old, k]
        spent += form.cost[other_new, k] - form.cost[other_old, k]
        fits = fits and spent <= walk.slack[k]
    return fits


def _take(form: Form, walk: Walk, block: int, old: int, new: int) -> None:  # noqa: PLR0917 - machine code takes arguments by position
    walk.choice[block] = new - block * form.formats
    for k in range(len(walk.slack)):
        walk.slack[k] -= form.cost[new, k] - form.cost[old, k]
    for x in range(len(walk.field)):
        walk.field[x] += form.gram[new, x] - form.gram[old, x]
