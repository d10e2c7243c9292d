"""The hot loops over all choices of a large problem."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


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
