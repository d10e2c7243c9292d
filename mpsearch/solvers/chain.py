"""Blocks in chains with conversion costs: shortest paths at the best prices, then a core step."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from mpsearch.core.problem import Problem
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.solvers.abstract import AbstractSolver, Feature
from mpsearch.solvers.chain_loops import Chain, least_to_come, shortest_path
from mpsearch.solvers.chain_paths import near_paths
from mpsearch.solvers.clock import TimeUpError
from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.dual import maximise
from mpsearch.solvers.proposal import Proposal

_FIRST_SHARE, _GROWTH = 1e-6, 2.0
_ROUNDING = 1e-12
_TOLERANCE = 1e-10


@final
@dataclass(frozen=True, kw_only=True)
class ChainCore(AbstractSolver):
    """Raise a threshold on the excess over the Lagrangian bound, along a chain of blocks.

    At fixed prices the best choice is a shortest path (Viterbi 1967). All paths whose excess
    stays below the threshold are enumerated from both ends to the middle, equal ones merged,
    and joined there; an empty join raises the bound by the threshold.
    """

    name: ClassVar[str] = "chain_core"
    supports: ClassVar[frozenset[Feature]] = frozenset({Feature.SEVERAL_LIMITS, Feature.EDGES})

    def _check(self, problem: Problem) -> None:
        super()._check(problem)
        if chain_order(problem) is None:
            raise UnsupportedFeatureError(
                "The edges form branches or cycles. Expected chains of blocks for solver "
                "'chain_core'. Use solver='auto'."
            )

    def _propose(self, problem: Problem, *, deadline: float) -> Proposal:
        return search_chain(problem, gap=self.gap, deadline=deadline)


def chain_order(problem: Problem) -> Int[ndarray, " D"] | None:
    """Return the blocks in an order in which every edge joins neighbours, None if none exists."""
    blocks = len(problem.loss)
    neighbours: list[set[int]] = [set() for _ in range(blocks)]
    for first, second in [] if problem.edges is None else problem.edges.tolist():
        neighbours[first].add(second)
        neighbours[second].add(first)
    if any(len(each) > len(("before", "after")) for each in neighbours):
        return None
    order: list[int] = []
    seen = [False] * blocks
    for end in range(blocks):
        block = end if not seen[end] and len(neighbours[end]) <= 1 else -1
        while block >= 0:
            seen[block] = True
            order.append(block)
            block = next((other for other in neighbours[block] if not seen[other]), -1)
    # What is left has no end: a cycle.
    return np.array(order) if len(order) == blocks else None


def search_chain(problem: Problem, *, gap: float, deadline: float) -> Proposal:
    """Return the best choice along a chain, and how far that is proven."""
    order = chain_order(problem)
    assert order is not None
    work = _Work(problem, order)
    scaled = maximise(
        work.evaluate,
        size=len(work.room),
        refuted_above=work.greatest + 1.0,
        tolerance=_TOLERANCE,
        deadline=deadline,
    )
    # Without a budget nothing has been evaluated yet.
    work.evaluate(scaled)
    price = scaled / work.width
    chain = work.priced(price)
    bound = work.value(chain) - float(price @ work.room)
    proven, was_stopped = 0.0, False
    threshold = max(_FIRST_SHARE * abs(bound), _ROUNDING)
    most = work.greatest - bound + _ROUNDING
    while bound <= work.greatest + _ROUNDING and not work.is_proven(bound + proven, gap=gap):
        threshold = min(threshold, max(work.least - bound, _ROUNDING), most)
        try:
            found = near_paths(
                chain,
                price=price,
                room=work.room,
                threshold=threshold + _ROUNDING,
                deadline=deadline,
            )
        except TimeUpError:
            found = None
        if found is None:
            was_stopped = True
            break
        if len(found):
            work.offer(found)
        proven = threshold
        if threshold >= min(work.least - bound, most):
            break
        threshold *= _GROWTH
    excess = min(proven, work.least - bound)
    choice = work.unordered()
    return Proposal(
        choice=choice,
        bound=work.shift + work.unit * (bound + max(excess, 0.0) - _ROUNDING),
        multipliers=price * work.unit,
        is_infeasible=choice is None and not was_stopped,
        was_stopped=was_stopped,
    )


@final
class _Work:
    """Arrays in the chain's order, and the best path within the limits that was met."""

    def __init__(self, problem: Problem, order: Int[ndarray, " D"]) -> None:
        self._order = order
        loss = np.where(problem.mask, problem.loss, np.inf).astype(float)[order]
        least = loss.min(axis=1, keepdims=True)
        self.shift = float(least.sum())
        loss = loss - least
        span = float(np.where(np.isfinite(loss), loss, 0.0).max(axis=1).sum())
        self.unit = span if span > 0 else 1.0
        self.loss = loss / self.unit
        self.greatest = float(np.where(np.isfinite(loss), loss, 0.0).max(axis=1).sum()) / self.unit
        self.room = (problem.limit - problem.offset).astype(np.int64)
        self.weight = np.ascontiguousarray(
            np.moveaxis(problem.cost[:, order], 0, -1), dtype=np.int64
        )
        self.pair_weight = _pairs(problem, order)
        spread = np.ptp(self.weight, axis=1).sum(axis=0) + np.ptp(
            self.pair_weight, axis=(1, 2)
        ).sum(axis=0)
        self.width = np.maximum(spread.astype(float), 1.0)
        self.least = math.inf
        self._best: Int[ndarray, " D"] | None = None

    def priced(self, price: Float[ndarray, " K"]) -> Chain:
        """Return the chain at prices; the last block's pair costs are zero."""
        return Chain(
            unary=self.loss + self.weight @ price,
            pair=self.pair_weight @ price,
            weight=self.weight,
            pair_weight=self.pair_weight,
        )

    def value(self, chain: Chain) -> float:
        rest = np.empty(chain.unary.shape)
        compiled(least_to_come)(chain, rest)
        return float((chain.unary[0] + rest[0]).min())

    def evaluate(self, scaled: Float[ndarray, " K"]) -> tuple[float, Float[ndarray, " K"]]:
        price = scaled / self.width
        chain = self.priced(price)
        path = np.empty(len(self.loss), dtype=np.int64)
        value = compiled(shortest_path)(chain, np.empty(chain.unary.shape), path)
        spend = self.spend(path)
        if (spend <= self.room).all():
            self.offer(path)
        return value - float(price @ self.room), (spend - self.room) / self.width

    def spend(self, path: Int[ndarray, " D"]) -> Int[ndarray, " K"]:
        blocks = np.arange(len(path))
        own = self.weight[blocks, path].sum(axis=0)
        return np.asarray(own + self.pair_weight[blocks[:-1], path[:-1], path[1:]].sum(axis=0))

    def offer(self, path: Int[ndarray, " D"]) -> None:
        """Keep a path within the limits if it is better."""
        loss = math.fsum(self.loss[np.arange(len(path)), path])
        if loss < self.least:
            self.least, self._best = loss, path

    def is_proven(self, bound: float, *, gap: float) -> bool:
        """Return whether the best path is within the gap, a tenth kept back for rounding."""
        return self._best is not None and self.least - bound <= 0.9 * gap * self.least

    def unordered(self) -> Int[ndarray, " D"] | None:
        """Return the best path as a choice in the problem's order of blocks."""
        if self._best is None:
            return None
        choice = np.empty(len(self._best), dtype=np.int64)
        choice[self._order] = self._best
        return choice


def _pairs(problem: Problem, order: Int[ndarray, " D"]) -> Int[ndarray, "D F F K"]:
    """Return what pairs of neighbours spend, in the chain's order and direction."""
    blocks, formats = problem.loss.shape
    pairs = np.zeros((blocks, formats, formats, len(problem.limit)), dtype=np.int64)
    if problem.edges is None or problem.edge_cost is None:
        return pairs
    place = np.empty(blocks, dtype=np.int64)
    place[order] = np.arange(blocks)
    for edge, (first, second) in enumerate(problem.edges.tolist()):
        cost = np.moveaxis(problem.edge_cost[:, edge], 0, -1)
        if place[first] < place[second]:
            pairs[place[first]] += cost
        else:
            pairs[place[second]] += np.swapaxes(cost, 0, 1)
    return pairs
