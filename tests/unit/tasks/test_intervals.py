"""Confidence intervals against closed forms and by their coverage."""

import numpy as np
import pytest

from mpsearch.errors import MeasurementError
from mpsearch.tasks.intervals import bootstrap_interval, normal_interval


def test_the_normal_interval_equals_the_formula() -> None:
    low, high = normal_interval(np.array([1.0, 2.0, 3.0, 6.0]))
    error = np.sqrt(14 / 3 / 4)
    assert (low, high) == pytest.approx((3 - 1.959964 * error, 3 + 1.959964 * error))


def test_both_intervals_cover_the_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    covered = np.zeros(2)
    for _ in range(300):
        values = generator.exponential(size=80)
        intervals = (
            normal_interval(values),
            bootstrap_interval(values, generator=generator, draws=200),
        )
        covered += [low <= 1.0 <= high for low, high in intervals]
    # 300 trials at .95 stray by .013; a skewed distribution covers a little less.
    assert (covered / 300 >= 0.89).all()
    assert (covered / 300 <= 0.99).all()


def test_the_bootstrap_stays_inside_the_values_and_repeats_by_seed() -> None:
    shares = np.array([1.0] * 19 + [0.9])
    low, high = bootstrap_interval(shares, generator=np.random.default_rng(1))
    assert 0.9 <= low <= high <= 1.0
    assert (low, high) == bootstrap_interval(shares, generator=np.random.default_rng(1))


def test_one_value_or_nan_has_no_interval() -> None:
    for values in (np.array([1.0]), np.array([1.0, np.nan])):
        with pytest.raises(MeasurementError, match="at least two"):
            normal_interval(values)
        with pytest.raises(MeasurementError, match="at least two"):
            bootstrap_interval(values, generator=np.random.default_rng(0))
