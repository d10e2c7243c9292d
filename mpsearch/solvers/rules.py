"""Rules as parts of a problem: ties, fixed blocks, peak memory, how often a format may occur.

Each function returns a new problem that any solver takes.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError


def with_fixed(problem: Problem, fixed: Mapping[int, int]) -> Problem:
    """Return the problem with blocks held at a format.

    Raises:
        ProblemError: A block or format does not exist, or the format is not allowed there.

    Example:
        >>> problem = Problem(
        ...     loss=np.zeros((2, 2)),
        ...     cost=np.zeros((1, 2, 2), dtype=int),
        ...     limit=np.array([1]),
        ... )
        >>> with_fixed(problem, {1: 0}).mask.tolist()
        [[True, True], [True, False]]
    """
    allowed = problem.mask.copy()
    blocks, formats = allowed.shape
    for block, format_ in fixed.items():
        if not (0 <= block < blocks and 0 <= format_ < formats and allowed[block, format_]):
            raise ProblemError(
                f"Block {block} cannot be fixed to format {format_}. Expected one of its allowed "
                f"formats, in {blocks} blocks and {formats} formats. Choose another."
            )
        allowed[block] = np.arange(formats) == format_
    return replace(problem, allowed=allowed)


def with_ties(problem: Problem, group: Int[ndarray, " D"]) -> Problem:
    """Return the problem of one block per group; `choice[group]` is the choice of the blocks.

    Groups are numbered from 0 without a gap. Edges within a group become part of its costs.

    Raises:
        ProblemError: Groups are not numbered so, or a group has no common format.

    Example:
        >>> problem = Problem(
        ...     loss=np.array([[0.0, 1.0], [0.0, 3.0]]),
        ...     cost=np.array([[[4, 1], [4, 1]]]),
        ...     limit=np.array([5]),
        ... )
        >>> with_ties(problem, np.array([0, 0])).loss.tolist()
        [[0.0, 4.0]]
    """
    groups = int(group.max()) + 1
    if group.shape != (len(problem.loss),) or len(np.unique(group)) != groups or group.min() < 0:
        raise ProblemError(
            f"Ties name {len(np.unique(group))} groups up to {groups - 1} for {len(group)} blocks. "
            f"Expected {len(problem.loss)} numbers from 0 without a gap. Number the groups anew."
        )
    allowed = np.ones((groups, problem.loss.shape[1]), dtype=bool)
    np.logical_and.at(allowed, group, problem.mask)
    if not allowed.any(axis=1).all():
        lone = int(np.flatnonzero(~allowed.any(axis=1))[0])
        raise ProblemError(
            f"Tied blocks {np.flatnonzero(group == lone).tolist()} have no common format. "
            "Expected at least one that all allow. Untie them, or allow one."
        )
    loss = np.zeros(allowed.shape)
    np.add.at(loss, group, np.where(problem.mask, problem.loss, 0.0))
    cost = np.zeros((len(problem.limit), *allowed.shape), dtype=np.int64)
    for tied, each in zip(cost, problem.cost, strict=True):
        np.add.at(tied, group, each)
    edges, edge_cost = problem.edges, problem.edge_cost
    if edges is not None and edge_cost is not None:
        edges = group[edges]
        inner = edges[:, 0] == edges[:, 1]
        diagonal = np.diagonal(edge_cost[:, inner], axis1=2, axis2=3)
        for tied, each in zip(cost, diagonal, strict=True):
            np.add.at(tied, edges[inner, 0], each)
        edges, edge_cost = edges[~inner], edge_cost[:, ~inner]
    return replace(
        problem,
        loss=loss,
        cost=cost,
        allowed=allowed,
        edges=edges,
        edge_cost=edge_cost,
        sharers=_tied_sharers(problem, group),
        cuts=_tied_cuts(problem, group),
    )


def with_at_most(
    problem: Problem, count: int, *, format_: int, blocks: Bool[ndarray, " D"] | None = None
) -> Problem:
    """Return the problem with at most `count` of the blocks in a format: one more budget."""
    row = np.zeros((1, *problem.loss.shape), dtype=np.int64)
    row[0, :, format_] = 1 if blocks is None else blocks.astype(np.int64)
    return _with_rows(problem, row, limit=np.array([count]), name=f"count of format {format_}")


def with_peak_memory(
    problem: Problem,
    *,
    activation: Int[ndarray, "D F"],
    alive: Bool[ndarray, "T D"],
    limit: int,
) -> Problem:
    """Return the problem with what is alive at each of T steps held below a limit.

    `activation` is what a block's output takes in each format; `alive[t]` marks the outputs
    held at step t. Steps whose set another step contains are dropped: they cannot bind.
    """
    alive = np.unique(alive, axis=0)
    inside = (alive[:, None] <= alive[None]).all(axis=2) & ~np.eye(len(alive), dtype=bool)
    alive = alive[~inside.any(axis=1)]
    rows = np.where(alive[:, :, None], activation[None], 0).astype(np.int64)
    return _with_rows(problem, rows, limit=np.full(len(rows), limit), name="peak memory")


def _with_rows(
    problem: Problem, rows: Int[ndarray, "T D F"], *, limit: Int[ndarray, " T"], name: str
) -> Problem:
    edge_cost = problem.edge_cost
    if edge_cost is not None:
        nothing = np.zeros((len(rows), *edge_cost.shape[1:]), dtype=np.int64)
        edge_cost = np.concatenate([edge_cost, nothing])
    share_cost = problem.share_cost
    if share_cost is not None:
        nothing = np.zeros((len(rows), share_cost.shape[1]), dtype=np.int64)
        share_cost = np.concatenate([share_cost, nothing])
    names = (*problem.names, *(name for _ in rows)) if problem.names else ()
    return replace(
        problem,
        cost=np.concatenate([problem.cost, rows]),
        limit=np.concatenate([problem.limit, limit]),
        constant=np.concatenate([problem.offset, np.zeros(len(rows), dtype=np.int64)]),
        edge_cost=edge_cost,
        share_cost=share_cost,
        names=names,
    )


def _tied_sharers(problem: Problem, group: Int[ndarray, " D"]) -> Int[ndarray, "M 3"] | None:
    if problem.sharers is None:
        return None
    tied = problem.sharers.copy()
    tied[:, 1] = group[tied[:, 1]]
    return np.unique(tied, axis=0)


def _tied_cuts(problem: Problem, group: Int[ndarray, " D"]) -> Int[ndarray, "C G"] | None:
    if problem.cuts is None:
        return None
    first = np.unique(group, return_index=True)[1]
    tied = problem.cuts[:, first]
    # A forbidden choice in which tied blocks differ cannot come up.
    return np.asarray(tied[(tied[:, group] == problem.cuts).all(axis=1)])
