"""The hot loops that search a quadratic form under budgets: anneal, repair, exchange.

A choice is a column per block of X = blocks x formats columns. The form is `mixed |r|^2 +
linear . x`, with r the sum of the chosen columns' vectors; `gram` (X, X) holds their products
where that fits, else products are computed from `vectors` (X, S) as they are needed.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray


class Form(NamedTuple):
    """What is minimised; either `gram` or `vectors` is empty (0, 0)."""

    gram: Float32[ndarray, "G G"]
    vectors: Float32[ndarray, "V S"]
    linear: Float[ndarray, " X"]
    mixed: float
    cost: Int[ndarray, "X R"]
    allowed: Bool[ndarray, " X"]
    formats: int


class Walk(NamedTuple):
    """Where a search stands: `column` of each block, what is left of each budget.

    `field` is the gram times the choice, or r where there is no gram.
    """

    column: Int[ndarray, " D"]
    slack: Int[ndarray, " R"]
    field: Float[ndarray, " Y"]


def anneal(  # noqa: PLR0917 - machine code takes arguments by position
    form: Form,
    walk: Walk,
    price: Float[ndarray, " R"],
    draws: Float[ndarray, "N 3"],
    temperature: float,
    has_walls: bool,  # noqa: FBT001 - machine code takes arguments by position
) -> None:
    """Try one change per row of uniform draws, its costs priced.

    Without walls budgets may be broken on the way, and prices keep the walk near them. Source:
    Kirkpatrick, Gelatt, Vecchi (1983), Science 220(4598), 671-680.
    """
    for n in range(len(draws)):
        block = int(draws[n, 0] * len(walk.column))
        new = block * form.formats + int(draws[n, 1] * form.formats)
        old = walk.column[block]
        if new == old or not form.allowed[new]:
            continue
        if has_walls and not _fits(form, walk, old, new, 0, 0):
            continue
        change = single(form, walk, old, new)
        for k in range(len(price)):
            change += price[k] * (form.cost[new, k] - form.cost[old, k])
        if change < 0 or draws[n, 2] < np.exp(-change / max(temperature, 1e-300)):
            take(form, walk, block, new)


def repair(form: Form, walk: Walk, unit: Float[ndarray, " R"], most: int) -> int:  # noqa: PLR0917 - machine code takes arguments by position
    """Change up to `most` blocks until all budgets are kept, each at the least loss per relief.

    Relief is what is overspent in `unit`s per budget. Returns 1 where all are kept, 0 where
    more changes are needed, -1 where none helps.
    """
    for _ in range(most):
        if _overspent(walk, unit, form, 0, 0) <= 0:
            return 1
        best, holder = np.inf, -1
        for new in range(len(form.allowed)):
            old = walk.column[new // form.formats]
            if not form.allowed[new] or new == old:
                continue
            relief = _overspent(walk, unit, form, 0, 0) - _overspent(walk, unit, form, old, new)
            if relief <= 0:
                continue
            change = single(form, walk, old, new)
            # Where the loss falls as well, the greatest relief comes first.
            score = change / relief if change > 0 else change * relief
            if score < best:
                best, holder = score, new
        if holder < 0:
            return -1
        take(form, walk, holder // form.formats, holder)
    return 0


def exchange(  # noqa: PLR0917 - machine code takes arguments by position
    form: Form,
    walk: Walk,
    firsts: Int[ndarray, " A"],
    partners: Int[ndarray, " P"],
    least: float,
) -> int:
    """Take each change that lowers the form within the budgets, alone or with a best partner.

    Each of `firsts` is tried with all `partners`. Gains below `least` are rounding. Returns
    how many changes were taken.
    """
    taken = 0
    for first in firsts:
        old = walk.column[first // form.formats]
        if first == old or not form.allowed[first]:
            continue
        alone = single(form, walk, old, first)
        best, holder = -least, -1
        if alone < best and _fits(form, walk, old, first, 0, 0):
            best, holder = alone, first
        for other in partners:
            change = _pair(form, walk, first, other, alone)
            if change < best:
                best, holder = change, other
        if holder >= 0:
            take(form, walk, first // form.formats, first)
            if holder != first:
                take(form, walk, holder // form.formats, holder)
            taken += 1
    return taken


def _pair(form: Form, walk: Walk, first: int, other: int, alone: float) -> float:  # noqa: PLR0917 - machine code takes arguments by position
    """Return how the form changes with two blocks, infinite where that is no choice."""
    old, before = walk.column[first // form.formats], walk.column[other // form.formats]
    if other // form.formats == first // form.formats or other == before:
        return np.inf
    if not form.allowed[other] or not _fits(form, walk, old, first, before, other):
        return np.inf
    cross = _cross(form, old, first, before, other)
    return alone + single(form, walk, before, other) + 2 * form.mixed * cross


def single(form: Form, walk: Walk, old: int, new: int) -> float:  # noqa: PLR0917 - machine code takes arguments by position
    """Return how the form changes with one block."""
    if len(form.gram):
        square = form.gram[new, new] + form.gram[old, old] - 2 * form.gram[new, old]
        change = 2 * (walk.field[new] - walk.field[old]) + square
    else:
        change = 0.0
        for s in range(form.vectors.shape[1]):
            step = form.vectors[new, s] - form.vectors[old, s]
            change += step * (2 * walk.field[s] + step)
    return float(form.mixed * change + form.linear[new] - form.linear[old])


def take(form: Form, walk: Walk, block: int, new: int) -> None:  # noqa: PLR0917 - machine code takes arguments by position
    """Change one block in place."""
    old = walk.column[block]
    walk.column[block] = new
    for k in range(len(walk.slack)):
        walk.slack[k] -= form.cost[new, k] - form.cost[old, k]
    if len(form.gram):
        for x in range(len(walk.field)):
            walk.field[x] += form.gram[new, x] - form.gram[old, x]
    else:
        for s in range(len(walk.field)):
            walk.field[s] += form.vectors[new, s] - form.vectors[old, s]


def _cross(form: Form, old: int, new: int, other_old: int, other_new: int) -> float:  # noqa: PLR0917 - machine code takes arguments by position
    """Return the product of two changes."""
    if len(form.gram):
        cross = form.gram[new, other_new] - form.gram[new, other_old]
        return float(cross + form.gram[old, other_old] - form.gram[old, other_new])
    total = 0.0
    for s in range(form.vectors.shape[1]):
        step = form.vectors[new, s] - form.vectors[old, s]
        total += step * (form.vectors[other_new, s] - form.vectors[other_old, s])
    return total


def _fits(form: Form, walk: Walk, old: int, new: int, other_old: int, other_new: int) -> bool:  # noqa: PLR0917 - machine code takes arguments by position
    for k in range(len(walk.slack)):
        spent = form.cost[new, k] - form.cost[old, k]
        spent += form.cost[other_new, k] - form.cost[other_old, k]
        if spent > walk.slack[k]:
            return False
    return True


def _overspent(walk: Walk, unit: Float[ndarray, " R"], form: Form, old: int, new: int) -> float:  # noqa: PLR0917 - machine code takes arguments by position
    """Return what is overspent in all, after one change."""
    total = 0.0
    for k in range(len(unit)):
        left = walk.slack[k] - form.cost[new, k] + form.cost[old, k]
        if left < 0:
            total -= left / unit[k]
    return total
