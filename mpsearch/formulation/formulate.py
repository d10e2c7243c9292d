"""One sensitivity table, one cost table and the budgets become a Problem of whole numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from mpsearch.core.hardware import Resource, Support
from mpsearch.core.plan import Budget
from mpsearch.core.problem import Problem
from mpsearch.core.tables import CostTable, SensitivityTable
from mpsearch.errors import FormatError, UnknownLayerError
from mpsearch.formulation.budgets import resource_of


@final
@dataclass(frozen=True, kw_only=True)
class Formulation:
    """A Problem with the way back: `blocks[i]` are the layers that block i stands for.

    `constant_loss` is the loss that is there whatever is chosen: that of base and placement.
    """

    problem: Problem
    blocks: tuple[tuple[str, ...], ...]
    formats: tuple[str, ...]
    constant_loss: float

    def assignment(self, choice: Int[ndarray, " D"]) -> dict[str, str]:
        """Return the format of each layer that a choice stands for."""
        return {
            layer: self.formats[int(place)]
            for block, place in zip(self.blocks, choice, strict=True)
            for layer in block
        }

    def choice(self, assignment: Mapping[str, str]) -> Int[ndarray, " D"]:
        """Return the choice that an assignment of all layers stands for."""
        return np.array([self.formats.index(assignment[block[0]]) for block in self.blocks])


def formulate(
    sensitivity: SensitivityTable,
    cost: CostTable,
    *,
    budgets: Sequence[Budget],
    fixed: Mapping[str, str] | None = None,
) -> Formulation:
    """Build the problem: least summed loss, every budget a limit on whole numbers.

    A format is offered to a layer where its loss was measured and the runtime supports it;
    formats that are only stored (no kernel) where a budget on bytes asks for them. Layers
    that share a weight become one block. Each block's and edge's costs are shifted by their
    minimum, so that they are not negative; the shift goes into `constant`.

    Args:
        sensitivity: Loss per layer and format; the base of `cost` loses nothing more.
        cost: Spending per layer and format under one base and placement.
        budgets: Limits in the units of their resources.
        fixed: Format by layer name or shell-style pattern; the last match wins.

    Raises:
        UnknownLayerError: The tables disagree on layers, or a pattern matches none.
        FormatError: A fixed format is not offered to its layer.
        ProblemError: A layer has no format left, or sums are too large to be exact.
    """
    _check_layers(sensitivity, cost)
    loss, allowed = _loss(sensitivity, cost)
    stores = any(resource_of(budget) is Resource.WEIGHT_BYTES for budget in budgets)
    allowed &= _offered(cost, stores=stores)
    allowed = _with_fixed(allowed, cost=cost, fixed=fixed or {})
    groups = _blocks(cost)
    resources = [resource_of(budget) for budget in budgets]
    amounts, constant = _amounts(cost, resources=resources, allowed=allowed, groups=groups)
    edge_cost, edge_constant = _edge_amounts(cost, resources=resources)
    edges, loops = _between_blocks(cost, groups=groups)
    for place in np.flatnonzero(loops):
        amounts[:, edges[place, 0]] += np.diagonal(edge_cost[:, place], axis1=1, axis2=2)
    matters = edge_cost.any(axis=(0, 2, 3)) & ~loops
    block_loss = np.stack([np.where(allowed[g], loss[g], 0.0).sum(axis=0) for g in groups])
    problem = Problem(
        loss=block_loss,
        cost=amounts,
        limit=np.array([math.floor(budget.limit) for budget in budgets], dtype=np.int64),
        constant=constant + edge_constant,
        allowed=np.stack([allowed[group].all(axis=0) for group in groups]),
        edges=edges[matters] if bool(matters.any()) else None,
        edge_cost=edge_cost[:, matters] if bool(matters.any()) else None,
        names=tuple(budget.name for budget in budgets),
    )
    return Formulation(
        problem=problem,
        blocks=tuple(tuple(cost.layers[layer] for layer in group) for group in groups),
        formats=cost.formats,
        constant_loss=sensitivity.constant_loss(base=cost.base, placement=cost.placement),
    )


def _check_layers(sensitivity: SensitivityTable, cost: CostTable) -> None:
    if sensitivity.layers != cost.layers:
        different = sorted(set(sensitivity.layers) ^ set(cost.layers))[:3]
        raise UnknownLayerError(
            f"The sensitivity table has {len(sensitivity.layers)} layers and the cost table "
            f"{len(cost.layers)}; they differ at {different or 'their order'}. Expected tables "
            "of one model. Measure both for the same model."
        )


def _loss(
    sensitivity: SensitivityTable, cost: CostTable
) -> tuple[Float[ndarray, "L F"], Bool[ndarray, "L F"]]:
    """Return the loss in the columns of the cost table, and where it is known."""
    loss = np.full((len(cost.layers), len(cost.formats)), np.nan)
    for place, name in enumerate(cost.formats):
        if name == cost.base:
            loss[:, place] = 0.0
        elif name in sensitivity.formats:
            loss[:, place] = sensitivity.loss[:, sensitivity.formats.index(name)]
    known = np.isfinite(loss)
    return np.where(known, loss, 0.0), known


def _offered(cost: CostTable, *, stores: bool) -> Bool[ndarray, "L F"]:
    wanted = {Support.NATIVE, Support.STORAGE} if stores else {Support.NATIVE}
    return np.array([[kind in wanted for kind in row] for row in cost.support])


def _with_fixed(
    allowed: Bool[ndarray, "L F"], *, cost: CostTable, fixed: Mapping[str, str]
) -> Bool[ndarray, "L F"]:
    result = allowed.copy()
    for pattern, name in fixed.items():
        layers = [i for i, layer in enumerate(cost.layers) if fnmatchcase(layer, pattern)]
        if not layers:
            raise UnknownLayerError(
                f"Pattern {pattern!r} in `fixed` matches no layer. Expected a name or pattern "
                f"such as {cost.layers[0]!r}. `mpsearch measure` lists the names."
            )
        # The base is what "keep full precision" comes to under this base.
        column = _column(cost, name=name)
        for layer in layers:
            if column is None or not allowed[layer, column]:
                offered = [f for f, ok in zip(cost.formats, allowed[layer], strict=True) if ok]
                raise FormatError(
                    f"Layer {cost.layers[layer]!r} is fixed to {name!r}, which is not offered to "
                    f"it. Expected one of {', '.join(offered)}. Choose one of them."
                )
            result[layer] = False
            result[layer, column] = True
    return result


def _column(cost: CostTable, *, name: str) -> int | None:
    if name in cost.formats:
        return cost.formats.index(name)
    return cost.formats.index(cost.base) if name == "fp32" else None


def _blocks(cost: CostTable) -> list[list[int]]:
    """Group layers that share a weight, in the order of their first member."""
    leader = list(range(len(cost.layers)))
    for group in cost.shared_weights:
        for member in group:
            leader[member] = min(group)
    return [
        [layer for layer, head in enumerate(leader) if head == first]
        for first in sorted(set(leader))
    ]


def _amounts(
    cost: CostTable,
    *,
    resources: Sequence[str],
    allowed: Bool[ndarray, "L F"],
    groups: list[list[int]],
) -> tuple[Int[ndarray, "R D F"], Int[ndarray, " R"]]:
    """Return non-negative costs per block and what their shifts came to."""
    rows, constants = [], []
    for resource in resources:
        amount = np.where(allowed, cost.amount[resource], 0)
        block = np.stack([amount[group].sum(axis=0) for group in groups]).astype(np.int64)
        usable = np.stack([allowed[group].all(axis=0) for group in groups])
        shift = np.where(usable, block, np.iinfo(np.int64).max).min(axis=1, keepdims=True)
        # A block without any usable format is refused by Problem; its shift must not wrap.
        shift = np.where(usable.any(axis=1, keepdims=True), shift, 0)
        rows.append(np.where(usable, block - shift, 0))
        constants.append(int(shift.sum()) + int(cost.constant.get(resource, 0)))
    return np.stack(rows), np.array(constants, dtype=np.int64)


def _edge_amounts(
    cost: CostTable, *, resources: Sequence[str]
) -> tuple[Int[ndarray, "R E F F"], Int[ndarray, " R"]]:
    """Return non-negative costs per edge and what their shifts came to."""
    shape = (len(cost.edges), len(cost.formats), len(cost.formats))
    zeros = np.zeros(shape, dtype=np.int64)
    rows = [np.asarray(cost.edge_amount.get(resource, zeros)) for resource in resources]
    table = np.stack(rows).astype(np.int64)
    shift = table.min(axis=(2, 3), keepdims=True, initial=0)
    return table - shift, shift.sum(axis=(1, 2, 3))


def _between_blocks(
    cost: CostTable, *, groups: list[list[int]]
) -> tuple[Int[ndarray, "E 2"], Bool[ndarray, " E"]]:
    """Return each edge as blocks (producer, consumer), and whether both ends are one block."""
    block_of = {layer: block for block, group in enumerate(groups) for layer in group}
    pairs = [(block_of[producer], block_of[consumer]) for producer, consumer in cost.edges]
    edges = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return edges, edges[:, 0] == edges[:, 1]
