"""Exact minimisation of block costs plus pair costs along a forest of edges."""

from collections import deque
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


def minimise_forest(
    unary: Float[ndarray, "D F"],
    *,
    edges: Int[ndarray, "E 2"],
    pair: Float[ndarray, "E F F"],
) -> tuple[float, Int[ndarray, " D"]]:
    """Return the least sum and a choice that attains it.

    Edges are taken in the given order while they close no cycle (parallel edges add up); of
    the others only a part that splits into blocks is counted, so that the value stays a
    lower bound of the true minimum. Source: Viterbi (1967), IEEE Trans. Inf. Theory 13(2).

    Example:
        >>> unary = np.array([[0.0, 1.0], [2.0, 0.0]])
        >>> pair = np.array([[[0.0, 5.0], [5.0, 0.0]]])
        >>> value, choice = minimise_forest(unary, edges=np.array([[0, 1]]), pair=pair)
        >>> value, choice.tolist()
        (1.0, [1, 1])
    """
    unary = unary.copy()
    neighbours = _tree_edges(unary, edges=edges, pair=pair)
    order, parent = _visit(neighbours)
    best: dict[int, Int[ndarray, " F"]] = {}
    for block in reversed(order):
        above = parent[block]
        if above >= 0:
            joint = neighbours[above][block] + unary[block]
            best[block] = np.argmin(joint, axis=1)
            unary[above] = unary[above] + joint.min(axis=1)
    choice = np.zeros(len(unary), dtype=np.int64)
    value = 0.0
    for block in order:
        if parent[block] < 0:
            choice[block] = int(np.argmin(unary[block]))
            value += float(unary[block, choice[block]])
        else:
            choice[block] = best[block][choice[parent[block]]]
    return value, choice


def is_forest(edges: Int[ndarray, "E 2"], *, blocks: int) -> bool:
    """Return whether edges close no cycle, parallel edges counted once."""
    distinct = {(min(a, b), max(a, b)) for a, b in edges.tolist()}
    find = _Components(blocks)
    return all(find.join(a, b) for a, b in distinct)


@final
class _Components:
    """Which blocks hang together."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, block: int) -> int:
        while self._parent[block] != block:
            self._parent[block] = self._parent[self._parent[block]]
            block = self._parent[block]
        return block

    def join(self, first: int, second: int) -> bool:
        """Join two components; False where they are one already."""
        first, second = self.root(first), self.root(second)
        self._parent[second] = first
        return first != second


def _tree_edges(
    unary: Float[ndarray, "D F"],
    *,
    edges: Int[ndarray, "E 2"],
    pair: Float[ndarray, "E F F"],
) -> list[dict[int, Float[ndarray, "F F"]]]:
    """Return pair costs by [block][neighbour], indexed (block, neighbour); split the rest."""
    neighbours: list[dict[int, Float[ndarray, "F F"]]] = [{} for _ in unary]
    components = _Components(len(unary))
    for (first, second), costs in zip(edges.tolist(), pair, strict=True):
        if second in neighbours[first]:
            neighbours[first][second] = neighbours[first][second] + costs
            neighbours[second][first] = neighbours[second][first] + costs.T
        elif components.join(first, second):
            neighbours[first][second], neighbours[second][first] = costs, costs.T
        else:
            rows = costs.min(axis=1)
            unary[first] += rows
            unary[second] += (costs - rows[:, None]).min(axis=0)
    return neighbours


def _visit(neighbours: list[dict[int, Float[ndarray, "F F"]]]) -> tuple[list[int], list[int]]:
    order: list[int] = []
    parent = [-2] * len(neighbours)
    for root in range(len(neighbours)):
        if parent[root] >= -1:
            continue
        parent[root] = -1
        queue = deque([root])
        while queue:
            block = queue.popleft()
            order.append(block)
            for other in neighbours[block]:
                if parent[other] < -1:
                    parent[other] = block
                    queue.append(other)
    return order, parent
