"""The loops over states against sets built the slow way."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.state_loops import Items, States, enumerate_merged, enumerate_states


def random_items(seed: int, *, budgets: int, most: int) -> Items:
    """Return classes whose weights coincide often."""
    generator = default_rng(seed)
    classes = sorted(
        (np.sort(generator.random(int(generator.integers(1, 4)))) for _ in range(5)),
        key=lambda reduced: float(reduced[0]),
    )
    reduced = np.concatenate(classes)
    return Items(
        start=np.concatenate([[0], np.cumsum([len(each) for each in classes])]).astype(np.int64),
        reduced=reduced,
        weight=generator.integers(-most, most + 1, (len(reduced), budgets)),
        threshold=1.5,
        direction=np.zeros((0, budgets)),
        least=np.zeros((len(classes) + 1, 0)),
    )


def room(count: int, *, budgets: int) -> States:
    return States(
        reduced=np.empty(count),
        weight=np.empty((count, budgets), dtype=np.int64),
        parent=np.empty(count, dtype=np.int32),
        item=np.empty(count, dtype=np.int32),
        last=np.empty(count, dtype=np.int32),
    )


def run(loop: Callable[..., int], *arrays: object) -> int:
    """Run a loop in chunks of one step, to the end; return the count, or -1."""
    cursor = np.zeros(2, dtype=np.int64)
    done = 0
    while done == 0:
        done = compiled(loop)(*arrays, cursor, 1)
    return int(cursor[1]) if done > 0 else -1


def every_state(items: Items) -> list[tuple[tuple[int, ...], float]]:
    """Return weight and reduced cost of all sets of deviations up to the threshold."""
    options = [
        [None, *range(items.start[place], items.start[place + 1])]
        for place in range(len(items.start) - 1)
    ]
    states = []
    for picks in product(*options):
        chosen = [pick for pick in picks if pick is not None]
        reduced = float(items.reduced[chosen].sum())
        if reduced <= items.threshold:
            states.append((tuple(items.weight[chosen].sum(axis=0).tolist()), reduced))
    return states


@pytest.mark.parametrize("budgets", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_every_state_is_enumerated_once(seed: int, budgets: int) -> None:
    items = random_items(seed, budgets=budgets, most=3)
    states = room(5000, budgets=budgets)
    count = run(enumerate_states, items, states)
    found = sorted(
        (tuple(weight), round(float(reduced), 9))
        for weight, reduced in zip(
            states.weight[:count].tolist(), states.reduced[:count], strict=True
        )
    )
    assert found == sorted((weight, round(reduced, 9)) for weight, reduced in every_state(items))


@pytest.mark.parametrize("budgets", [1, 2])
@pytest.mark.parametrize("seed", range(40))
def test_merging_keeps_the_cheapest_state_of_each_weight(seed: int, budgets: int) -> None:
    items = random_items(seed, budgets=budgets, most=2)
    states = room(5000, budgets=budgets)
    count = run(enumerate_merged, items, states, np.full(1 << 15, -1, dtype=np.int64))
    alive = np.flatnonzero(states.last[:count] == len(items.start))
    found = {tuple(states.weight[place].tolist()): float(states.reduced[place]) for place in alive}
    assert len(found) == len(alive)
    expected: dict[tuple[int, ...], float] = {}
    for weight, reduced in every_state(items):
        expected[weight] = min(reduced, expected.get(weight, np.inf))
    assert found == pytest.approx(expected)


def test_too_little_room_is_told() -> None:
    items = random_items(1, budgets=1, most=3)
    assert run(enumerate_states, items, room(3, budgets=1)) == -1
    table = np.full(64, -1, dtype=np.int64)
    assert run(enumerate_merged, items, room(3, budgets=1), table) == -1
