"""The best pair of states, one of each half of the core, that fits together."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.solvers.clock import CHUNK, check
from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.join_loops import (
    Grid,
    Half,
    Pair,
    best_pair_of_many,
    best_pair_of_one,
)

# Cells per budget of the grid over the second half.
_MOST_CELLS = 1024
# A reach that covers every whole number a budget can hold.
_ANY = 1 << 52
# Sorting and scanning take about this long per state.
_SECONDS_PER_STATE = 2.5e-7


def best_halves(
    first: Half,
    second: Half,
    *,
    price: Float[ndarray, " K"],
    slack: Int[ndarray, " K"],
    window: float,
    deadline: float,
) -> tuple[int, int] | None:
    """Return the places of the pair with the least key that fits, leaving slack up to `window`.

    None where no pair fits.

    Raises:
        TimeUpError: The deadline passed before.
    """
    check(deadline, ahead=_SECONDS_PER_STATE * (len(first.key) + len(second.key)))
    weights, keys = [first.weight, second.weight], [first.key, second.key]
    if len(price) == 0:
        return int(np.argmin(keys[0])), int(np.argmin(keys[1]))
    # A budget that no pair can break is none.
    binding = weights[0].max(axis=0) + weights[1].max(axis=0) > slack
    binding[np.argmax(price)] = True
    weights = [weight[:, binding] for weight in weights]
    price, slack = price[binding], slack[binding]
    if len(price) == 1:
        orders = [np.argsort(weight[:, 0], kind="stable") for weight in weights]
        halves = [
            Half(weight=weight[order], key=key[order])
            for weight, key, order in zip(weights, keys, orders, strict=True)
        ]
        one, other = compiled(best_pair_of_one)(halves[0], halves[1], int(slack[0]))
        return None if one < 0 else (int(orders[0][one]), int(orders[1][other]))
    reach = np.full(len(price), _ANY)
    bound = price * _ANY > window
    reach[bound] = np.floor(window / price[bound]).astype(np.int64) + 1
    budgets = _narrowest_first(weights[1], reach=reach)
    grid, order = _grid(weights[1][:, budgets], keys[1], reach=reach[budgets])
    half = Half(weight=np.ascontiguousarray(weights[0][:, budgets]), key=keys[0])
    pair = Pair(key=np.full(1, np.inf), place=np.array([0, -1, -1]))
    is_done = False
    while not is_done:
        check(deadline)
        is_done = compiled(best_pair_of_many)(
            half, grid, slack[budgets], reach[budgets], pair, CHUNK
        )
    _, one, other = pair.place.tolist()
    return None if one < 0 else (one, int(order[other]))


def _narrowest_first(
    weight: Int[ndarray, "N K"], *, reach: Int[ndarray, " K"]
) -> Int[ndarray, " K"]:
    """Return budgets by how small a part of the states their reach lets through."""
    spread = (weight.max(axis=0) - weight.min(axis=0)).astype(float)
    return np.argsort(-spread / reach, kind="stable")


def _grid(
    weight: Int[ndarray, "N K"], key: Float[ndarray, " N"], *, reach: Int[ndarray, " K"]
) -> tuple[Grid, Int[ndarray, " N"]]:
    sides = [weight[:, k] for k in (1, 2) if k < weight.shape[1]]
    low = np.array([int(side.min()) for side in sides] + [0] * (2 - len(sides)))
    spread = [int(side.max()) - least + 1 for side, least in zip(sides, low, strict=False)]
    width = [max(int(reach[k + 1]), -(-spread[k] // _MOST_CELLS)) for k in range(len(sides))]
    width += [1] * (2 - len(sides))
    cells = [(side - low[k]) // width[k] for k, side in enumerate(sides)]
    rows, columns = int(cells[0].max()) + 1, int(cells[1].max()) + 1 if len(cells) > 1 else 1
    cell = cells[0] * columns + (cells[1] if len(cells) > 1 else 0)
    order = np.lexsort((weight[:, 0], cell))
    start = np.searchsorted(cell[order], np.arange(rows * columns + 1))
    grid = Grid(
        half=Half(weight=np.ascontiguousarray(weight[order]), key=key[order]),
        start=start.astype(np.int64),
        rows=rows,
        columns=columns,
        low=low.astype(np.int64),
        width=np.array(width, dtype=np.int64),
    )
    return grid, order
