"""Laws of the problem: what it spends is exact, and a malformed one is refused."""

from collections.abc import Iterator
from itertools import product

import jaxtyping
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.problem import EXACT_LIMIT, Problem
from mpsearch.errors import ProblemError


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Draw a small problem of every feature."""
    blocks, formats, budgets = (draw(st.integers(1, 4)) for _ in range(3))
    edges = draw(st.integers(0, 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    return Problem(
        loss=generator.normal(size=(blocks, formats)),
        cost=generator.integers(0, 100, size=(budgets, blocks, formats)),
        limit=generator.integers(0, 300, size=budgets),
        constant=generator.integers(-50, 50, size=budgets),
        edges=generator.integers(0, blocks, size=(edges, 2)),
        edge_cost=generator.integers(0, 9, size=(budgets, edges, formats, formats)),
    )


def every_choice(problem: Problem) -> list[list[int]]:
    blocks, formats = problem.loss.shape
    return [list(choice) for choice in product(range(formats), repeat=blocks)]


def spent(problem: Problem, choice: list[int], *, budget: int) -> int:
    """Count by hand, in Python's own whole numbers."""
    total = int(problem.offset[budget])
    total += sum(int(problem.cost[budget, block, f]) for block, f in enumerate(choice))
    assert problem.edges is not None
    assert problem.edge_cost is not None
    for edge, (producer, consumer) in enumerate(problem.edges.tolist()):
        total += int(problem.edge_cost[budget, edge, choice[producer], choice[consumer]])
    return total


@given(problems())
def test_spending_equals_a_count_by_hand(problem: Problem) -> None:
    for choice in every_choice(problem):
        by_hand = [spent(problem, choice, budget=r) for r in range(len(problem.limit))]
        assert problem.spend(np.array(choice)).tolist() == by_hand


@given(problems())
def test_a_choice_fits_exactly_when_no_limit_is_passed(problem: Problem) -> None:
    for choice in every_choice(problem):
        within = all(
            spent(problem, choice, budget=r) <= limit
            for r, limit in enumerate(problem.limit.tolist())
        )
        assert problem.fits(np.array(choice)) == within


def small(**changes: object) -> Problem:
    fields: dict[str, object] = {
        "loss": np.array([[0.0, 1.0], [0.0, 3.0]]),
        "cost": np.array([[[4, 1], [4, 1]]]),
        "limit": np.array([5]),
    }
    return Problem(**(fields | changes))  # type: ignore[arg-type]  # fields are checked when run


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Switch off the run-time checks of annotations, as where a user runs the package."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_one_unit_over_the_limit_does_not_fit() -> None:
    assert small().fits(np.array([0, 1]))
    assert not small(limit=np.array([4])).fits(np.array([0, 1]))


def test_the_value_is_the_summed_loss() -> None:
    assert small().value(np.array([1, 1])) == pytest.approx(4.0)


def test_a_forbidden_or_cut_choice_does_not_fit() -> None:
    mask = np.array([[True, False], [True, True]])
    assert not small(allowed=mask).fits(np.array([1, 1]))
    cut = small(cuts=np.array([[0, 1]]))
    assert not cut.fits(np.array([0, 1]))
    assert cut.fits(np.array([1, 0]))


def test_a_forbidden_loss_may_be_anything() -> None:
    loss = np.array([[0.0, np.nan], [0.0, 1.0]])
    assert small(loss=loss, allowed=np.array([[True, False], [True, True]])).mask.sum() == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": np.zeros((0, 2))}, "at least one of each"),
        ({"cost": np.zeros((1, 2, 3), dtype=int)}, r"cost has shape \(1, 2, 3\)"),
        ({"constant": np.zeros(2, dtype=int)}, r"constant has shape \(2,\)"),
        ({"allowed": np.ones((2, 3), dtype=bool)}, r"allowed has shape \(2, 3\)"),
        ({"edges": np.array([[0, 1]])}, "only one of edges and edge_cost"),
        ({"names": ("bytes", "time")}, "2 names for 1 budgets"),
        ({"allowed": np.array([[True, True], [False, False]])}, "Block 1 has no allowed"),
        ({"loss": np.array([[0.0, np.nan], [0.0, 1.0]])}, "NaN or infinity"),
        ({"loss": np.array([[0.0, np.inf], [0.0, 1.0]])}, "NaN or infinity"),
        ({"cost": np.array([[[4, -1], [4, 1]]])}, "holds -1"),
        ({"cost": np.full((1, 2, 2), EXACT_LIMIT // 2)}, r"beyond 2\*\*53"),
        ({"cost": np.array([[[4.5, 1.0], [4.0, 1.0]]])}, r"float64.*whole numbers"),
        ({"limit": [5]}, r"limit is of type list.*NumPy array"),
        ({"loss": np.array([[0, 1], [0, 3]])}, r"loss is of type int64.*floating"),
        ({"allowed": np.ones((2, 2))}, r"allowed is of type float64.*booleans"),
        ({"limit": np.array(5)}, "limit"),
        ({"cuts": np.array([[0, 1, 1]])}, r"cuts has shape \(1, 3\)"),
        (
            {"edges": np.array([[0, 2]]), "edge_cost": np.zeros((1, 1, 2, 2), dtype=int)},
            "names blocks 0 to 2",
        ),
        (
            {"edges": np.array([[-1, 1]]), "edge_cost": np.zeros((1, 1, 2, 2), dtype=int)},
            "names blocks -1 to 1",
        ),
        ({"constant": np.array([-EXACT_LIMIT])}, r"beyond 2\*\*53"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_a_malformed_problem_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        small(**changes)


def test_sums_just_below_the_exact_limit_are_accepted() -> None:
    small(cost=np.full((1, 2, 2), EXACT_LIMIT // 2 - 8))


def test_a_sum_that_would_wrap_around_is_refused() -> None:
    with pytest.raises(ProblemError, match=r"beyond 2\*\*53"):
        small(cost=np.full((1, 2, 2), 2**62))
