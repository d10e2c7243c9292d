"""Each step of the search of a quadratic form against the form computed anew."""

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.solvers.compiled import compiled
from mpsearch.solvers.interaction_loops import Form, Walk, anneal, exchange, repair, single, take

BLOCKS, FORMATS, SAMPLES = 6, 3, 10
COLUMNS = BLOCKS * FORMATS


def form_of(seed: int, *, has_gram: bool) -> Form:
    generator = default_rng(seed)
    vectors = generator.standard_normal((COLUMNS, SAMPLES)).astype(np.float32)
    none = np.zeros((0, 0), dtype=np.float32)
    allowed = generator.random(COLUMNS) < 0.9
    allowed[::FORMATS] = True
    return Form(
        gram=vectors @ vectors.T if has_gram else none,
        vectors=none if has_gram else vectors,
        linear=generator.random(COLUMNS),
        mixed=0.7,
        cost=generator.integers(0, 9, (COLUMNS, 2)),
        allowed=allowed,
        formats=FORMATS,
    )


def walk_of(form: Form, column: np.ndarray, *, limit: int) -> Walk:
    rows = form.gram if len(form.gram) else form.vectors
    return Walk(
        column=column.copy(),
        slack=limit - form.cost[column].sum(axis=0),
        field=rows[column].sum(axis=0, dtype=float),
    )


def value(form: Form, column: np.ndarray) -> float:
    if len(form.gram):
        square = float(form.gram[np.ix_(column, column)].sum(dtype=float))
    else:
        square = float((form.vectors[column].sum(axis=0, dtype=float) ** 2).sum())
    return form.mixed * square + float(form.linear[column].sum())


def assert_consistent(form: Form, walk: Walk, *, limit: int) -> None:
    anew = walk_of(form, walk.column, limit=limit)
    assert (walk.slack == anew.slack).all()
    np.testing.assert_allclose(walk.field, anew.field, atol=1e-4)
    assert (walk.column // FORMATS == np.arange(BLOCKS)).all()
    assert form.allowed[walk.column].all()


@pytest.mark.parametrize("has_gram", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_change_of_one_block_is_what_the_form_changes_by(seed: int, *, has_gram: bool) -> None:
    form = form_of(seed, has_gram=has_gram)
    column = np.arange(0, COLUMNS, FORMATS)
    walk = walk_of(form, column, limit=30)
    for new in np.flatnonzero(form.allowed):
        before, old = value(form, walk.column), int(walk.column[new // FORMATS])
        change = compiled(single)(form, walk, old, int(new))
        compiled(take)(form, walk, int(new) // FORMATS, int(new))
        assert value(form, walk.column) - before == pytest.approx(change, abs=1e-4)
        assert_consistent(form, walk, limit=30)


@pytest.mark.parametrize("has_gram", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_exchanges_end_where_no_pair_within_the_budgets_helps(seed: int, *, has_gram: bool) -> None:
    form = form_of(seed, has_gram=has_gram)
    start = np.arange(0, COLUMNS, FORMATS)
    limit = int(form.cost[start].sum(axis=0).max())
    walk = walk_of(form, start, limit=limit)
    every = np.arange(COLUMNS)
    before = value(form, start)
    while compiled(exchange)(form, walk, every, every, 1e-5):
        after = value(form, walk.column)
        assert after < before
        before = after
        assert (walk.slack >= 0).all()
    assert_consistent(form, walk, limit=limit)
    for first in np.flatnonzero(form.allowed):
        for second in np.flatnonzero(form.allowed):
            other = walk.column.copy()
            other[first // FORMATS] = first
            other[second // FORMATS] = second
            if (form.cost[other].sum(axis=0) <= limit).all():
                assert value(form, other) >= before - 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_repair_ends_within_the_budgets_where_they_can_be_kept(seed: int) -> None:
    form = form_of(seed, has_gram=True)
    dearest = np.array(
        [
            max(
                (x for x in range(b * FORMATS, (b + 1) * FORMATS) if form.allowed[x]),
                key=lambda x: int(form.cost[x].sum()),
            )
            for b in range(BLOCKS)
        ]
    )
    walk = walk_of(form, dearest, limit=26)
    done = 0
    while done == 0:
        done = compiled(repair)(form, walk, np.ones(2), 1)
    assert (done > 0) == bool((walk.slack >= 0).all())
    assert_consistent(form, walk, limit=26)
    hopeless = walk_of(form, dearest, limit=-1)
    assert compiled(repair)(form, hopeless, np.ones(2), 99) == -1


@pytest.mark.parametrize("has_walls", [True, False])
def test_annealing_keeps_its_books_and_walls_hold(*, has_walls: bool) -> None:
    form = form_of(1, has_gram=True)
    start = np.arange(0, COLUMNS, FORMATS)
    limit = int(form.cost[start].sum(axis=0).max())
    generator = default_rng(0)
    walk = walk_of(form, start, limit=limit)
    lowest = np.inf
    for temperature in (10.0, 1.0, 0.1, 0.0):
        draws = generator.random((500, 3))
        compiled(anneal)(form, walk, np.zeros(2), draws, temperature, has_walls)
        assert_consistent(form, walk, limit=limit)
        assert not has_walls or (walk.slack >= 0).all()
        lowest = min(lowest, value(form, walk.column))
    # At no temperature it only falls.
    assert value(form, walk.column) == pytest.approx(lowest)


def test_prices_push_towards_what_costs_less() -> None:
    form = form_of(2, has_gram=True)
    generator = default_rng(0)
    spends = []
    for price in (0.0, 100.0):
        walk = walk_of(form, np.arange(0, COLUMNS, FORMATS), limit=0)
        draws = generator.random((2000, 3))
        compiled(anneal)(form, walk, np.full(2, price), draws, 0.0, False)
        spends.append(-int(walk.slack.sum()))
    assert spends[1] < spends[0]
    cheapest = np.where(form.allowed, form.cost.sum(axis=1), 99).reshape(BLOCKS, -1).min(axis=1)
    assert spends[1] == int(cheapest.sum())
