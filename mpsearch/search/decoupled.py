"""Metric decoupling: each group solved by its own metric, the split of the budget swept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Final, final

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from mpsearch.core.plan import Budget
from mpsearch.core.problem import Problem
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.formulation import Formulation, formulate, resource_of
from mpsearch.formulation.envelope import monotone_envelope
from mpsearch.search.portfolio import Proposals
from mpsearch.solvers import solve

# Bits of a group beside those of the last one: from half to twice as many.
RATIOS: Final = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)
_MOST_SPLITS: Final = 100


def decoupled(
    tables: Mapping[str, SensitivityTable],
    *,
    members: Mapping[str, Sequence[str]],
    cost: CostTable,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str],
    ratios: Sequence[float] = RATIOS,
    solver: str = "auto",
) -> Proposals | None:
    """Return one choice for each split of the budgets between the groups; None where none fits.

    Losses of different groups have different units and are never added: a group's problem
    holds its own layers, its own losses (made monotone along bits) and its share of every
    budget. With mean bits as the budget and two groups, a ratio k gives them MixDQ's
    m_2 = B (1 + r) / (k r + 1) and m_1 = k m_2. Which choice is best says the end metric,
    measured. Source: Zhao et al. (2024), MixDQ, ECCV, section 3.4.

    Args:
        tables: Sensitivities by group, of the group's layers at least.
        members: Layers by group.
        cost: Spending under one base and placement.
        budgets: Resolved limits.
        fixed: Format by layer name or pattern.
        ratios: Of each group's share to the last group's.
        solver: Name of the solver.
    """
    smooth = {name: monotone_envelope(table).table for name, table in tables.items()}
    parts = {
        name: formulate(_elsewhere_free(table, members[name]), cost, budgets=budgets, fixed=fixed)
        for name, table in smooth.items()
    }
    whole = next(iter(parts.values()))
    places = {name: _blocks_of(whole, members[name]) for name in parts}
    split = _Split.of(whole, cost, budgets=budgets)
    choices: dict[str, Int[ndarray, " D"]] = {}
    for shares in _splits(len(parts), ratios=ratios):
        named = dict(zip(parts, shares, strict=True))
        limits = split.limits(named, places=places)
        choice = _solved(parts, places=places, limits=limits, solver=solver)
        if choice is not None and whole.problem.fits(choice):
            told = ", ".join(f"{name} {ratio:g}" for name, ratio in named.items())
            choices.setdefault(f"groups {told}", choice)
    return Proposals(formulation=whole, choices=_distinct(choices)) if choices else None


def _elsewhere_free(table: SensitivityTable, members: Sequence[str]) -> SensitivityTable:
    """Return the table with losses of nothing where other groups decide."""
    others = ~np.isin(table.layers, list(members))
    return replace(table, loss=np.where(others[:, None], 0.0, table.loss), numbers=None)


def _blocks_of(formulation: Formulation, members: Sequence[str]) -> Int[ndarray, " M"]:
    """Return the blocks of a group; a shared weight belongs to its first layer's."""
    inside = [block[0] in members for block in formulation.blocks]
    return np.flatnonzero(inside)


def _splits(count: int, *, ratios: Sequence[float]) -> list[tuple[float, ...]]:
    """Return every combination of ratios to the last group, the nearest to even ones first."""
    every = [(*each, 1.0) for each in product(ratios, repeat=count - 1)]
    every.sort(key=lambda split: float(np.abs(np.log(split)).sum()))
    return every[:_MOST_SPLITS]


@final
@dataclass(frozen=True, kw_only=True)
class _Split:
    """What there is to divide: the least and the most that each block spends, and the room."""

    least: Int[ndarray, "R D"]
    most: Int[ndarray, "R D"]
    room: Int[ndarray, " R"]

    @staticmethod
    def of(formulation: Formulation, cost: CostTable, *, budgets: Sequence[Budget]) -> "_Split":
        problem, rows = formulation.problem, {name: i for i, name in enumerate(cost.layers)}
        first = problem.mask.argmax(axis=1)
        blocks = np.arange(len(first))
        # A problem counts from each block's least; the tables tell what that least is.
        absolute = [
            [
                int(cost.amount[resource_of(budget)][[rows[n] for n in block], choice].sum())
                for block, choice in zip(formulation.blocks, first, strict=True)
            ]
            for budget in budgets
        ]
        least = np.array(absolute, dtype=np.int64) - problem.cost[:, blocks, first]
        most = least + np.where(problem.mask, problem.cost, 0).max(axis=2)
        room = problem.limit - problem.offset + least.sum(axis=1)
        return _Split(least=least, most=most, room=room)

    def limits(
        self, ratios: Mapping[str, float], *, places: Mapping[str, Int[ndarray, " M"]]
    ) -> dict[str, Int[ndarray, " R"]]:
        """Return each group's limits above its least; negative where the least is too much."""
        weights = {name: ratios[name] * self.most[:, at].sum(axis=1) for name, at in places.items()}
        total = np.maximum(np.sum(list(weights.values()), axis=0), 1.0)
        return {
            name: np.floor(self.room * (weights[name] / total) * (1 + 1e-12)).astype(np.int64)
            - self.least[:, at].sum(axis=1)
            for name, at in places.items()
        }


def _solved(
    parts: Mapping[str, Formulation],
    *,
    places: Mapping[str, Int[ndarray, " M"]],
    limits: Mapping[str, Int[ndarray, " R"]],
    solver: str,
) -> Int[ndarray, " D"] | None:
    choice = np.zeros(sum(map(len, places.values())), dtype=np.int64)
    for name, formulation in parts.items():
        if bool((limits[name] < 0).any()):
            return None
        problem = _part(formulation.problem, blocks=places[name], limit=limits[name])
        found = solve(problem, solver=solver).choice
        if found is None:
            return None
        choice[places[name]] = found
    return choice


def _part(problem: Problem, *, blocks: Int[ndarray, " M"], limit: Int[ndarray, " R"]) -> Problem:
    """Return a group's own problem. Edges to other groups are seen when the whole is checked."""
    edges = edge_cost = None
    if problem.edges is not None and problem.edge_cost is not None:
        kept = np.isin(problem.edges, blocks).all(axis=1)
        if bool(kept.any()):
            edges = np.searchsorted(blocks, problem.edges[kept])
            edge_cost = problem.edge_cost[:, kept]
    return Problem(
        loss=problem.loss[blocks],
        cost=problem.cost[:, blocks],
        limit=limit,
        allowed=problem.mask[blocks],
        edges=edges,
        edge_cost=edge_cost,
        names=problem.names,
    )


def _distinct(choices: Mapping[str, Int[ndarray, " D"]]) -> dict[str, Int[ndarray, " D"]]:
    found: dict[bytes, str] = {}
    for name, choice in choices.items():
        found.setdefault(choice.tobytes(), name)
    return {name: choices[name] for name in found.values()}
