"""The hot loop over blocks that finds their lower convex hulls."""

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def lower_hulls(  # noqa: PLR0917 - machine code takes arguments by position
    loss: Float[ndarray, "D F"], cost: Int[ndarray, "D F"], order: Int[ndarray, "D F"]
) -> tuple[Int[ndarray, "D F"], Int[ndarray, " D"]]:
    """Return per block the formats on its lower hull, cheapest first, and how many.

    `order` sorts each block by cost, then loss. On the hull loss falls ever more slowly.
    """
    hull = np.zeros(order.shape, dtype=np.int64)
    size = np.zeros(len(order), dtype=np.int64)
    for block in range(order.shape[0]):
        count = 0
        for place in range(order.shape[1]):
            new = order[block, place]
            if not np.isfinite(loss[block, new]):
                continue
            if count and loss[block, new] >= loss[block, hull[block, count - 1]]:
                continue
            while count > 1:
                last, before = hull[block, count - 1], hull[block, count - 2]
                near = (loss[block, before] - loss[block, last]) * (
                    cost[block, new] - cost[block, before]
                )
                far = (loss[block, before] - loss[block, new]) * (
                    cost[block, last] - cost[block, before]
                )
                if near > far:
                    break
                count -= 1
            hull[block, count] = new
            count += 1
        size[block] = count
    return hull, size
