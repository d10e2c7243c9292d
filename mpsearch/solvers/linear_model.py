"""A Problem as a mixed-integer linear programme, scaled so that tolerances mean little.

One column in [0, 1] per allowed choice, per pair of allowed choices along an edge that costs
anything, and per group of blocks that share a cost. Back ends test feasibility to about 1e-6
absolute and call objectives equal that differ by less, so each block's least loss and least
cost are taken out, the loss that is expected to remain becomes 1000, and every limit becomes 1.
"""

from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import sparse

from mpsearch.core.problem import Problem

# Absolute tolerances of back ends (1e-9 to 1e-6) are then far below a relative gap of 1e-6.
EXPECTED_OBJECTIVE = 1000.0


@final
@dataclass(frozen=True, kw_only=True)
class LinearModel:
    """Minimise `objective . x` with `lower <= matrix x <= upper`, x in [0, `ceiling`].

    The first columns are choices, (`block`, `format`) each, whole numbers; columns of pairs
    and of shared costs follow, continuous. A loss is `shift + objective / scale`.
    """

    objective: Float[ndarray, " N"]
    matrix: sparse.csr_matrix
    lower: Float[ndarray, " M"]
    upper: Float[ndarray, " M"]
    ceiling: Float[ndarray, " N"]
    block: Int[ndarray, " X"]
    format: Int[ndarray, " X"]
    shift: float
    scale: float

    @property
    def is_whole(self) -> Bool[ndarray, " N"]:
        """Return which columns take whole numbers only."""
        return np.asarray(np.arange(len(self.objective)) < len(self.block))

    def choice_of(self, values: Float[ndarray, " N"]) -> Int[ndarray, " D"]:
        """Return the choice that column values mean: the largest of each block."""
        blocks = int(self.block.max()) + 1
        table = np.full((blocks, int(self.format.max()) + 1), -np.inf)
        table[self.block, self.format] = values[: len(self.block)]
        return np.asarray(np.argmax(table, axis=1))

    def loss_of(self, objective: float) -> float:
        """Return a value of the objective in units of the loss."""
        return self.shift + objective / self.scale


def linear_model(problem: Problem, *, expected_loss: float | None = None) -> LinearModel:
    """Return the linear programme of a problem whose best loss is about `expected_loss`.

    Example:
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> linear_model(problem).matrix.shape
        (3, 4)
    """
    block, format_ = np.nonzero(problem.mask)
    least = np.where(problem.mask, problem.loss, np.inf).min(axis=1)
    excess = problem.loss[block, format_] - least[block]
    greatest = np.zeros(len(problem.loss))
    np.maximum.at(greatest, block, excess)
    span = float(greatest.sum())
    expected = span if expected_loss is None else expected_loss - float(least.sum())
    # A loss that is expected to vanish says nothing about the size of the others.
    expected = min(span, max(expected, 1e-6 * span))
    scale = EXPECTED_OBJECTIVE / expected if span > 0 else 1.0
    pairs = _Pairs.of(problem, block=block, format_=format_)
    budget_rows, capacity, fits = _budget_rows(problem, block=block, format_=format_, pairs=pairs)
    choices = np.arange(len(block))
    one_each = sparse.csr_matrix((np.ones(len(block)), (block, choices)))
    cut_rows = _cut_rows(problem, block=block, format_=format_)
    share_rows = _share_rows(problem, block=block, format_=format_, pairs=pairs.count)
    width = share_rows.shape[1]
    rows = [_wide(each, width) for each in (one_each, budget_rows, pairs.links, cut_rows)]
    links, cuts = pairs.links.shape[0], cut_rows.shape[0]
    shares = share_rows.shape[0]
    blocks, budgets = problem.loss.shape[0], len(capacity)
    return LinearModel(
        objective=np.concatenate([excess * scale, np.zeros(width - len(block))]),
        matrix=sparse.vstack([*rows, share_rows], format="csr"),
        lower=np.concatenate(
            [
                *(np.ones(blocks), np.full(budgets, -np.inf)),
                *(np.zeros(links), np.full(cuts + shares, -np.inf)),
            ]
        ),
        upper=np.concatenate(
            [
                *(np.ones(blocks), capacity, np.zeros(links)),
                *(np.full(cuts, blocks - 1.0), np.zeros(shares)),
            ]
        ),
        ceiling=np.concatenate([fits.astype(float), np.ones(width - len(block))]),
        block=block,
        format=format_,
        shift=float(least.sum()),
        scale=scale,
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Pairs:
    """Columns of pairs (`edge`, producer's `first`, consumer's `second`) and what ties them."""

    edge: Int[ndarray, " Y"]
    first: Int[ndarray, " Y"]
    second: Int[ndarray, " Y"]
    links: sparse.csr_matrix

    @property
    def count(self) -> int:
        return len(self.edge)

    @staticmethod
    def of(problem: Problem, *, block: Int[ndarray, " X"], format_: Int[ndarray, " X"]) -> "_Pairs":
        none = np.zeros(0, dtype=np.int64)
        if problem.edges is None or problem.edge_cost is None:
            empty = sparse.csr_matrix((0, len(block)))
            return _Pairs(edge=none, first=none, second=none, links=empty)
        costly = np.asarray(problem.edge_cost.any(axis=(0, 2, 3)))
        both = problem.mask[problem.edges[:, 0], :, None] & problem.mask[problem.edges[:, 1], None]
        edge, first, second = np.nonzero(both & costly[:, None, None])
        column = np.zeros(problem.loss.shape, dtype=np.int64)
        column[block, format_] = np.arange(len(block))
        ends = (
            _links(column, blocks=problem.edges[edge, 0], edge=edge, end=first, choices=len(block)),
            _links(
                column, blocks=problem.edges[edge, 1], edge=edge, end=second, choices=len(block)
            ),
        )
        links = sparse.vstack(ends, format="csr")
        return _Pairs(edge=edge, first=first, second=second, links=links)


def _links(
    column: Int[ndarray, "D F"],
    *,
    blocks: Int[ndarray, " Y"],
    edge: Int[ndarray, " Y"],
    end: Int[ndarray, " Y"],
    choices: int,
) -> sparse.csr_matrix:
    """Return rows `sum of the pairs with this end = the choice of this end`."""
    keys = edge * column.shape[1] + end
    distinct, first, row = np.unique(keys, return_index=True, return_inverse=True)
    pairs = sparse.csr_matrix(
        (np.ones(len(edge)), (row, np.arange(len(edge)))), shape=(len(distinct), len(edge))
    )
    chosen = column[blocks[first], end[first]]
    singles = sparse.csr_matrix(
        (-np.ones(len(distinct)), (np.arange(len(distinct)), chosen)),
        shape=(len(distinct), choices),
    )
    return sparse.hstack([singles, pairs], format="csr")


def _budget_rows(
    problem: Problem,
    *,
    block: Int[ndarray, " X"],
    format_: Int[ndarray, " X"],
    pairs: _Pairs,
) -> tuple[sparse.csr_matrix, Float[ndarray, " R"], Bool[ndarray, " X"]]:
    """Return rows of costs above the least, their limits, and which choices fit at all."""
    values, capacity = [], []
    fits = np.ones(len(block), dtype=bool)
    for budget, cost in enumerate(problem.cost):
        least = np.where(problem.mask, cost, np.iinfo(np.int64).max).min(axis=1)
        row = cost[block, format_] - least[block]
        room = int(problem.limit[budget] - problem.offset[budget] - least.sum())
        if pairs.count and problem.edge_cost is not None:
            extra = problem.edge_cost[budget, pairs.edge, pairs.first, pairs.second]
            lowest = np.full(len(problem.edge_cost[budget]), np.iinfo(np.int64).max)
            np.minimum.at(lowest, pairs.edge, extra)
            present = np.unique(pairs.edge)
            room -= int(lowest[present].sum())
            row = np.concatenate([row, extra - lowest[pairs.edge]])
        fits &= row[: len(block)] <= room
        if problem.share_cost is not None:
            row = np.concatenate([row, problem.share_cost[budget]])
        # Whole multiples of a common divisor lose nothing, and a limit between two is no limit.
        divisor = max(1, int(np.gcd.reduce(row)))
        room = room // divisor
        unit = max(1, room) * divisor
        values.append(row / unit)
        capacity.append(1.0 if room > 0 else float(room))
    groups = 0 if problem.share_cost is None else problem.share_cost.shape[1]
    width = len(block) + pairs.count + groups
    matrix = sparse.csr_matrix(np.array(values).reshape(len(values), width))
    return matrix, np.array(capacity, dtype=float), fits


def _share_rows(
    problem: Problem,
    *,
    block: Int[ndarray, " X"],
    format_: Int[ndarray, " X"],
    pairs: int,
) -> sparse.csr_matrix:
    """Return rows `choices of a block that share a cost <= whether it is paid`, at full width."""
    if problem.sharers is None or problem.share_cost is None:
        return sparse.csr_matrix((0, len(block) + pairs))
    sharers = np.unique(problem.sharers, axis=0)
    sharers = sharers[problem.mask[sharers[:, 1], sharers[:, 2]]]
    column = np.zeros(problem.loss.shape, dtype=np.int64)
    column[block, format_] = np.arange(len(block))
    ends, row = np.unique(sharers[:, :2], axis=0, return_inverse=True)
    paid = len(block) + pairs + ends[:, 0]
    values = np.concatenate([np.ones(len(sharers)), -np.ones(len(ends))])
    rows = np.concatenate([row.ravel(), np.arange(len(ends))])
    columns = np.concatenate([column[sharers[:, 1], sharers[:, 2]], paid])
    width = len(block) + pairs + problem.share_cost.shape[1]
    return sparse.csr_matrix((values, (rows, columns)), shape=(len(ends), width))


def _cut_rows(
    problem: Problem, *, block: Int[ndarray, " X"], format_: Int[ndarray, " X"]
) -> sparse.csr_matrix:
    """Return for each forbidden choice a row that counts its agreeing blocks."""
    if problem.cuts is None or len(problem.cuts) == 0:
        return sparse.csr_matrix((0, len(block)))
    agree = (problem.cuts[:, block] == format_).astype(float)
    return sparse.csr_matrix(agree)


def _wide(matrix: sparse.csr_matrix, width: int) -> sparse.csr_matrix:
    """Append empty columns up to a width."""
    if matrix.shape[1] == width:
        return matrix
    more = sparse.csr_matrix((matrix.shape[0], width - matrix.shape[1]))
    return sparse.hstack([matrix, more], format="csr")
