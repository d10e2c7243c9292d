"""Resampling changes nothing without noise, and what is close with it."""

import numpy as np
import pytest
from numpy.random import default_rng

from mpsearch.core.problem import Problem
from mpsearch.errors import ProblemError
from mpsearch.solvers import stability


def twin_problem() -> Problem:
    """Return two pairs of blocks: within the first pair it hardly matters which gives way."""
    return Problem(
        loss=np.array([[0.0, 1.0], [0.0, 1.01], [0.0, 100.0]]),
        cost=np.array([[[1, 0]] * 3]),
        limit=np.array([2]),
    )


def test_without_noise_nothing_changes() -> None:
    problem = twin_problem()
    found = stability(problem, np.zeros((3, 2)), draws=3, generator=default_rng(0))
    assert found is not None
    assert found.changed.tolist() == [0, 0, 0]
    assert found.regret.tolist() == [0.0, 0.0, 0.0]


def test_blocks_that_are_close_change_and_others_do_not() -> None:
    problem = twin_problem()
    found = stability(problem, np.full((3, 2), 0.1), draws=40, generator=default_rng(0))
    assert found is not None
    assert 0.2 < found.share[0] < 0.8
    assert found.share[0] == found.share[1]
    assert found.share[2] == 0.0
    assert set(found.changed.tolist()) == {0, 2}
    assert found.regret.max() == pytest.approx(0.01)


def test_a_negative_error_is_refused() -> None:
    with pytest.raises(ProblemError, match="Standard errors"):
        stability(twin_problem(), np.full((3, 2), -1.0), draws=1, generator=default_rng(0))
