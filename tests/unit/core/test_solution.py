"""Laws of the gap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.solution import Solution, Termination


def solution(*, loss: float, bound: float, ideal: float) -> Solution:
    return Solution(
        termination=Termination.LIMIT,
        solver="test",
        seconds=0.0,
        choice=np.array([0]),
        loss=loss,
        bound=bound,
        ideal=ideal,
    )


def test_the_gap_is_the_share_of_the_span_that_is_unproven() -> None:
    assert solution(loss=3.0, bound=2.0, ideal=1.0).gap == pytest.approx(0.5)


@given(st.integers(-50, 50), st.integers(1, 50), st.integers(1, 50), st.integers(-8, 8))
def test_the_gap_ignores_scale_and_shift(ideal: int, span: int, excess: int, power: int) -> None:
    loss = ideal + span
    bound = max(loss - excess, ideal)
    scale, shift = 2.0**power, 3.0
    plain = solution(loss=float(loss), bound=float(bound), ideal=float(ideal)).gap
    moved = solution(
        loss=scale * loss + shift, bound=scale * bound + shift, ideal=scale * ideal + shift
    ).gap
    assert moved == pytest.approx(plain, rel=1e-9)
    assert 0.0 <= plain <= 1.0


def test_a_bound_that_meets_the_loss_closes_the_gap() -> None:
    assert solution(loss=1.0, bound=1.0, ideal=0.0).gap == 0.0
    assert solution(loss=1.0, bound=1.0 + 1e-12, ideal=0.0).gap == 0.0


def test_without_an_answer_the_gap_is_infinite() -> None:
    nothing = Solution(termination=Termination.INFEASIBLE, solver="test", seconds=0.0)
    assert nothing.gap == float("inf")
