"""Costs that several blocks share: taken apart for bounds, or their blocks joined for proofs."""

from dataclasses import dataclass, replace
from typing import final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy import sparse
from scipy.sparse import csgraph

from mpsearch.core.problem import Problem
from mpsearch.solvers.proposal import Proposal

# Choices of joined blocks, per component and in all (times budgets, some 100 MB).
_MOST_OF_ONE, _MOST_IN_ALL = 4096, 2_000_000


def without_sharing(problem: Problem) -> Problem:
    """Return the problem in which each sharing block pays an equal part of a shared cost.

    Parts are rounded down, so no choice spends more than it does in truth: a relaxation.
    """
    if problem.sharers is None or problem.share_cost is None:
        return problem
    group, block, format_ = _distinct(problem.sharers).T
    pairs = np.unique(np.stack([group, block]), axis=1)
    members = np.bincount(pairs[0], minlength=problem.share_cost.shape[1])
    cost = problem.cost.copy()
    for row, shared in zip(cost, problem.share_cost, strict=True):
        np.add.at(row, (block, format_), shared[group] // members[group])
    return replace(problem, cost=cost, sharers=None, share_cost=None)


@final
@dataclass(frozen=True, kw_only=True)
class Joined:
    """The same problem with one block per component of sharing blocks.

    Choice j of component c is `format[c, j]` for its blocks `blocks[c]`.
    """

    problem: Problem
    blocks: tuple[Int[ndarray, " _"], ...]
    formats: tuple[Int[ndarray, "_ _"], ...]

    def choice(self, joined: Int[ndarray, " C"]) -> Int[ndarray, " D"]:
        """Return the choice of the blocks that a choice of components means."""
        choice = np.empty(sum(len(blocks) for blocks in self.blocks), dtype=np.int64)
        for pick, blocks, formats in zip(joined, self.blocks, self.formats, strict=True):
            choice[blocks] = formats[pick]
        return choice

    def proposal(self, found: Proposal) -> Proposal:
        """Return an answer about the components as one about the blocks.

        Multipliers are kept: they give a bound of the problem itself, though a lower one.
        """
        if found.choice is None:
            return found
        return replace(found, choice=self.choice(found.choice))


def joined(problem: Problem) -> Joined | None:
    """Return the problem with sharing blocks joined, None where they have too many choices.

    Only for problems without edges and cuts. Choices that cost no less in any budget and lose
    no less than another one of their component are dropped.
    """
    assert problem.sharers is not None
    parts = _components(problem)
    sizes = np.array([np.prod(problem.mask[blocks].sum(axis=1, dtype=float)) for blocks in parts])
    if sizes.max() > _MOST_OF_ONE:
        return None
    choices = [_choices(problem, blocks) for blocks in parts]
    tables = [
        _table(problem, blocks=blocks, choices=each)
        for blocks, each in zip(parts, choices, strict=True)
    ]
    kept = [_undominated(table) for table in tables]
    width = max(len(rows) for rows in kept)
    if width * len(parts) > _MOST_IN_ALL:
        return None
    loss = np.full((len(parts), width), np.nan)
    cost = np.zeros((len(problem.limit), len(parts), width), dtype=np.int64)
    for place, (table, rows) in enumerate(zip(tables, kept, strict=True)):
        loss[place, : len(rows)] = table.loss[rows]
        cost[:, place, : len(rows)] = table.cost[:, rows]
    return Joined(
        problem=Problem(
            loss=loss,
            cost=cost,
            limit=problem.limit,
            constant=problem.offset,
            allowed=np.isfinite(loss),
            names=problem.names,
        ),
        blocks=tuple(parts),
        formats=tuple(each[rows] for each, rows in zip(choices, kept, strict=True)),
    )


@final
@dataclass(frozen=True, kw_only=True)
class _Table:
    """Loss and cost of each choice of a component."""

    loss: Float[ndarray, " J"]
    cost: Int[ndarray, "R J"]


def _distinct(sharers: Int[ndarray, "M 3"]) -> Int[ndarray, "N 3"]:
    return np.unique(sharers, axis=0)


def _components(problem: Problem) -> list[Int[ndarray, " _"]]:
    """Return blocks by which of them share, directly or through others."""
    assert problem.sharers is not None
    blocks = len(problem.loss)
    group, block = problem.sharers[:, 0], problem.sharers[:, 1]
    groups = int(group.max(initial=-1)) + 1
    ends = (np.ones(len(block)), (block, blocks + group))
    links = sparse.csr_matrix(ends, shape=(blocks + groups, blocks + groups))
    label = csgraph.connected_components(links, directed=False)[1][:blocks]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def _choices(problem: Problem, blocks: Int[ndarray, " B"]) -> Int[ndarray, "J B"]:
    """Return all allowed choices of some blocks."""
    formats = [np.flatnonzero(problem.mask[block]) for block in blocks]
    return np.stack([axis.ravel() for axis in np.meshgrid(*formats, indexing="ij")], axis=1)


def _table(problem: Problem, *, blocks: Int[ndarray, " B"], choices: Int[ndarray, "J B"]) -> _Table:
    """Return what each choice of a component loses and spends."""
    assert problem.sharers is not None
    assert problem.share_cost is not None
    cost = problem.cost[:, blocks, choices].sum(axis=2)
    rows = problem.sharers[np.isin(problem.sharers[:, 1], blocks)]
    place = np.searchsorted(blocks, rows[:, 1])
    for group in np.unique(rows[:, 0]):
        of_group = rows[:, 0] == group
        used = (choices[:, place[of_group]] == rows[of_group, 2]).any(axis=1)
        cost = cost + problem.share_cost[:, [group]] * used
    return _Table(loss=problem.loss[blocks, choices].sum(axis=1), cost=cost)


def _undominated(table: _Table) -> Int[ndarray, " K"]:
    """Return the choices, by loss, that no better one undercuts in every budget."""
    order = np.lexsort((*table.cost, table.loss))
    kept: list[int] = []
    for place in order:
        cheaper = table.cost[:, kept] <= table.cost[:, [place]]
        if not kept or not cheaper.all(axis=0).any():
            kept.append(int(place))
    return np.array(kept)
