"""The hot loops over all choices or blocks of a large problem."""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

# A move has to bring the square of the slack this much nearer to zero.
_NEARER = 0.999


def relax(  # noqa: PLR0917 - machine code takes arguments by position
    loss: Float[ndarray, "D F"],
    cost: Int[ndarray, "K D F"],
    price: Float[ndarray, " K"],
    choice: Int[ndarray, " D"],
    nearest: Float[ndarray, " D"],
) -> float:
    """Fill in each block's best choice at the prices, and how far the second best is.

    Returns the summed priced loss.
    """
    total = 0.0
    for block in range(loss.shape[0]):
        best, second, holder = np.inf, np.inf, 0
        for format_ in range(loss.shape[1]):
            value = loss[block, format_]
            for k in range(cost.shape[0]):
                value += price[k] * cost[k, block, format_]
            if value < best:
                second, best, holder = best, value, format_
            elif value < second:
                second = value
        choice[block] = holder
        nearest[block] = second - best
        total += best
    return total


def settle(  # noqa: PLR0917 - machine code takes arguments by position
    more: Int[ndarray, "N K"],
    weight: Float[ndarray, " K"],
    slack: Int[ndarray, " K"],
    taken: Bool[ndarray, " N"],
) -> None:
    """Take moves one by one that bring the slack nearer to zero, squares by `weight`.

    `more` is what a move spends; `slack` and `taken` are changed.
    """
    is_nearer = True
    while is_nearer:
        is_nearer = False
        for move in range(more.shape[0]):
            if taken[move]:
                continue
            before, after = 0.0, 0.0
            for k in range(more.shape[1]):
                before += weight[k] * float(slack[k]) ** 2
                after += weight[k] * float(slack[k] - more[move, k]) ** 2
            if after < _NEARER * before:
                taken[move] = is_nearer = True
                for k in range(more.shape[1]):
                    slack[k] -= more[move, k]
