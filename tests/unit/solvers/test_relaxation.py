"""What the relaxation does before and after its prices are found."""

from itertools import product

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.relaxation import _reachable
from mpsearch.solvers.relaxation_loops import settle


@pytest.mark.parametrize("seed", range(20))
def test_room_shrinks_to_what_sums_can_reach_and_loses_no_choice(seed: int) -> None:
    generator = default_rng(seed)
    divisor = generator.integers(1, 12, (2, 1, 1))
    cost = generator.integers(0, 9, (2, 4, 3)) * divisor + generator.integers(0, 5, (1, 4, 1))
    room = generator.integers(0, 120, 2)
    filled = _reachable(cost, room)
    assert (filled <= room).all()
    for choice in map(np.array, product(range(3), repeat=4)):
        spend = cost[:, np.arange(4), choice].sum(axis=1)
        assert ((spend <= room) == (spend <= filled)).all()
    for k in range(2):
        rise = cost[k] - cost[k][:, :1]
        common = int(np.gcd.reduce(rise, axis=None))
        assert common == 0 or (int(filled[k]) - int(cost[k][:, 0].sum())) % common == 0


def test_one_odd_block_among_thousands_keeps_the_room() -> None:
    cost = 6 * default_rng(0).integers(0, 9, (1, 5000, 3))
    cost[0, 3333, 1] += 1
    assert _reachable(cost, np.array([77_777])).tolist() == [77_777]


@pytest.mark.parametrize("budgets", [1, 2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_settling_brings_the_slack_nearer_and_keeps_its_books(seed: int, budgets: int) -> None:
    generator = default_rng(seed)
    more = generator.integers(-100, 101, (200, budgets))
    slack = generator.integers(-3000, 3000, budgets)
    weight = generator.random(budgets)
    left, taken = slack.copy(), np.zeros(200, dtype=bool)
    compiled(settle)(more, weight, left, taken)
    assert (left == slack - more[taken].sum(axis=0)).all()
    assert weight @ left.astype(float) ** 2 <= weight @ slack.astype(float) ** 2
    # No move that is left helps much.
    after = (left - more[~taken]).astype(float) ** 2 @ weight
    assert (after >= 0.999 * (weight @ left.astype(float) ** 2) - 1e-9).all()
