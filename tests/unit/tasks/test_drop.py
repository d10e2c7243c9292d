"""Laws of a drop's upper bound: closed forms, coverage, and the samples it takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from mpsearch.errors import MeasurementError
from mpsearch.tasks.drop import drop_of, interval_of_drop, samples_needed

_Z = float(norm.ppf(0.95))


def _changes(*, lost: int, gained: int, samples: int) -> np.ndarray:
    return np.repeat([1.0, -1.0, 0.0], [lost, gained, samples - lost - gained])


@pytest.mark.parametrize("samples", [10, 350, 5000])
def test_no_change_at_all_is_bounded_by_the_score_of_nothing(samples: int) -> None:
    # (n d)^2 = z^2 n d (1 - d), the score test where nothing was seen, solved for d.
    expected = _Z**2 / (samples + _Z**2)
    drop = drop_of(np.zeros(samples), measure="accuracy")
    assert drop.upper == pytest.approx(expected, rel=1e-6)
    assert drop.mean == 0.0


def test_of_many_changes_the_bound_is_that_of_a_normal_distribution() -> None:
    changes = _changes(lost=4_000, gained=3_000, samples=500_000)
    deviation = changes.std() / np.sqrt(len(changes))
    upper = drop_of(changes, measure="accuracy").upper
    assert upper == pytest.approx(changes.mean() + _Z * deviation, rel=2e-3)


def test_of_numbers_the_bound_is_students() -> None:
    numbers = np.random.default_rng(0).normal(0.1, 1.0, 20)
    reach = t.ppf(0.95, 19) * numbers.std(ddof=1) / np.sqrt(20)
    assert drop_of(numbers, measure="cosine").upper == pytest.approx(numbers.mean() + reach)


@pytest.mark.parametrize("rates", [(0.03, 0.015), (0.005, 0.0), (0.3, 0.2)])
def test_the_true_drop_is_exceeded_as_seldom_as_promised(rates: tuple[float, float]) -> None:
    generator = np.random.default_rng(1)
    lost, gained = rates
    trials = 1_500
    missed = sum(
        drop_of(
            generator.choice([1.0, -1.0, 0.0], size=300, p=[lost, gained, 1 - lost - gained]),
            measure="accuracy",
        ).upper
        < lost - gained
        for _ in range(trials)
    )
    # A score test is not exact: its true level may lie a percent above the nominal 5 %. A
    # missed share beyond that by three of its standard errors has a probability of .001.
    assert missed / trials < 0.06 + 3 * np.sqrt(0.06 * 0.94 / trials)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(61, 400))
def test_one_more_sample_lost_raises_the_bound(lost: int, gained: int, samples: int) -> None:
    fewer = drop_of(_changes(lost=lost, gained=gained, samples=samples), measure="accuracy")
    more = drop_of(_changes(lost=lost + 1, gained=gained, samples=samples), measure="accuracy")
    assert fewer.mean < fewer.upper < more.upper


def test_the_samples_needed_certify_and_one_less_does_not() -> None:
    changes = _changes(lost=4, gained=3, samples=500)
    needed = samples_needed(changes, bound=0.005)
    assert needed is not None
    grown = [_scaled(changes, samples=count) for count in (needed - 1, needed)]
    # Counts are whole in a sample, so the neighbour is only nearly as dense.
    assert drop_of(_scaled(changes, samples=10 * needed), measure="accuracy").holds(0.005)
    assert drop_of(grown[1], measure="accuracy").upper == pytest.approx(0.005, rel=0.05)
    assert not drop_of(changes, measure="accuracy").holds(0.005)


def _scaled(changes: np.ndarray, *, samples: int) -> np.ndarray:
    share = samples / len(changes)
    lost, gained = (round(share * float((changes == sign).sum())) for sign in (1, -1))
    return _changes(lost=lost, gained=gained, samples=samples)


def test_no_number_of_samples_certifies_what_is_not_so() -> None:
    assert samples_needed(_changes(lost=10, gained=0, samples=500), bound=0.01) is None


def test_what_holds_already_needs_no_more_samples() -> None:
    changes = np.zeros(1_000)
    needed = samples_needed(changes, bound=0.01)
    assert needed is not None
    assert needed == int(np.ceil(_Z**2 * 0.99 / 0.01))


@pytest.mark.parametrize("values", [np.zeros(1), np.array([0.0, np.nan])])
def test_too_little_to_judge_is_refused(values: np.ndarray) -> None:
    with pytest.raises(MeasurementError, match="two finite"):
        drop_of(values, measure="accuracy")


def test_of_numbers_the_interval_is_students() -> None:
    values = np.array([0.1, -0.2, 0.4, 0.25, 0.0])
    reach = t.ppf(0.975, 4) * values.std(ddof=1) / np.sqrt(5)
    found = interval_of_drop(values)
    assert found == pytest.approx((values.mean() - reach, values.mean() + reach))


@given(lost=st.integers(0, 20), gained=st.integers(0, 20), kept=st.integers(2, 200))
def test_the_interval_of_gains_mirrors_that_of_losses(lost: int, gained: int, kept: int) -> None:
    values = np.repeat([1.0, -1.0, 0.0], [lost, gained, kept])
    low, high = interval_of_drop(values)
    assert (low, high) == pytest.approx(tuple(-each for each in interval_of_drop(-values))[::-1])
    assert low < values.mean() < high
    assert high > drop_of(values, measure="accuracy").upper  # each side is surer


def test_the_true_drop_lies_in_the_interval_as_often_as_promised() -> None:
    generator = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        values = generator.choice([1.0, -1.0, 0.0], size=300, p=[0.06, 0.03, 0.91])
        low, high = interval_of_drop(values)
        inside += low <= 0.03 <= high
    assert inside / 400 == pytest.approx(0.95, abs=0.03)  # three standard errors of the share
