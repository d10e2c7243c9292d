"""Small random problems with everything that makes solvers wrong: ties, zeros, edges, cuts."""

import numpy as np
from hypothesis import strategies
from hypothesis.strategies import SearchStrategy
from jaxtyping import Int
from numpy.random import Generator, default_rng

from mpsearch.core.problem import Problem

# Shares that make each kind of trouble common without crowding out the plain case.
_DISTINCT, _ALLOWED = 0.5, 0.9


def problems(*, with_edges: bool = True, with_cuts: bool = True) -> SearchStrategy[Problem]:
    """Draw a problem of at most 5 blocks, 4 formats and 3 budgets, often without an answer."""
    return strategies.builds(
        lambda seed, *, edges, cuts, sharing: random_problem(
            default_rng(seed),
            with_edges=with_edges and edges,
            with_cuts=with_cuts and cuts,
            with_sharing=sharing,
        ),
        strategies.integers(0, 2**32 - 1),
        edges=strategies.booleans(),
        cuts=strategies.booleans(),
        sharing=strategies.booleans(),
    )


def random_problem(
    generator: Generator,
    *,
    with_edges: bool = False,
    with_cuts: bool = False,
    with_sharing: bool = False,
) -> Problem:
    """Return a random small problem; half of them have equal losses or equal costs in plenty."""
    blocks, formats = int(generator.integers(1, 6)), int(generator.integers(1, 5))
    budgets = int(generator.integers(0, 4))
    few = int(generator.integers(2, 40))
    loss = generator.integers(0, few, (blocks, formats)).astype(float)
    if generator.random() < _DISTINCT:
        loss = generator.lognormal(0, 1.5, (blocks, formats))
    cost = generator.integers(0, int(generator.choice([2, 5, 1000])), (budgets, blocks, formats))
    allowed = generator.random((blocks, formats)) < _ALLOWED
    allowed[np.arange(blocks), generator.integers(0, formats, blocks)] = True
    edges = edge_cost = sharers = share_cost = None
    if with_edges and blocks > 1:
        edges = _random_edges(generator, blocks=blocks)
        edge_cost = generator.integers(0, 6, (budgets, len(edges), formats, formats))
    if with_sharing:
        groups = int(generator.integers(1, 4))
        size = (groups, blocks, formats)
        sharers = generator.integers(0, size, (int(generator.integers(0, 9)), 3))
        share_cost = generator.integers(0, 9, (budgets, groups))
    constant = generator.integers(-3, 4, budgets)
    low, high = cost.min(axis=2).sum(axis=1), cost.max(axis=2).sum(axis=1)
    share = generator.uniform(-0.05, 1.05, budgets)
    limit = constant + np.floor(low + share * (high - low)).astype(np.int64)
    cuts = None
    if with_cuts:
        cuts = generator.integers(0, formats, (int(generator.integers(0, 4)), blocks))
    return Problem(
        loss=np.where(allowed, loss, np.nan),
        cost=cost,
        limit=limit,
        constant=constant,
        allowed=allowed,
        edges=edges,
        edge_cost=edge_cost,
        sharers=sharers,
        share_cost=share_cost,
        cuts=cuts,
    )


def _random_edges(generator: Generator, *, blocks: int) -> Int[np.ndarray, "E 2"]:
    count = int(generator.integers(1, blocks + 1))
    first = generator.integers(0, blocks, count)
    # Never from a block to itself.
    second = (first + generator.integers(1, blocks, count)) % blocks
    return np.stack([first, second], axis=1)
