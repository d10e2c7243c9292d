"""Minimisation along forests against every choice."""

from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.solvers.forest import is_forest, minimise_forest


def brute(unary: np.ndarray, edges: np.ndarray, pair: np.ndarray) -> float:
    blocks, formats = unary.shape
    values = [
        unary[np.arange(blocks), choice].sum()
        + sum(each[choice[a], choice[b]] for (a, b), each in zip(edges, pair, strict=True))
        for choice in map(np.array, product(range(formats), repeat=blocks))
    ]
    return float(min(values))


@pytest.mark.parametrize("seed", range(12))
def test_trees_are_exact_and_choices_attain_the_value(seed: int) -> None:
    generator = default_rng(seed)
    edges = np.array([[block, generator.integers(0, block)] for block in range(1, 5)])
    edges = np.concatenate([edges, edges[:1, ::-1]])
    unary, pair = generator.random((5, 3)), generator.random((5, 3, 3))
    value, choice = minimise_forest(unary, edges=edges, pair=pair)
    assert is_forest(edges, blocks=5)
    assert value == pytest.approx(brute(unary, edges, pair))
    attained = unary[np.arange(5), choice].sum()
    attained += sum(pair[e, choice[a], choice[b]] for e, (a, b) in enumerate(edges))
    assert attained == pytest.approx(value)


@pytest.mark.parametrize("seed", range(30))
def test_with_cycles_the_value_is_a_lower_bound(seed: int) -> None:
    generator = default_rng(seed)
    edges = np.array([[0, 1], [1, 2], [2, 0], [2, 3], [3, 0]])
    unary, pair = generator.random((4, 3)) / 10, generator.random((5, 3, 3))
    value, _ = minimise_forest(unary, edges=edges, pair=pair)
    assert not is_forest(edges, blocks=4)
    assert value <= brute(unary, edges, pair) + 1e-12
