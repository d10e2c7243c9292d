"""Exponents follow the published formula, and both of their steps are exact."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.quant.smoothing import smoothing_exponents, smoothing_factors

REACHES = st.lists(
    st.tuples(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6)), min_size=1, max_size=12
).map(np.array)


@given(REACHES, st.floats(0, 1))
def test_factors_are_those_of_the_paper_within_half_a_doubling(
    reaches: np.ndarray, strength: float
) -> None:
    inputs, weights = reaches.T
    published = inputs**strength / weights ** (1 - strength)
    ours = smoothing_factors(smoothing_exponents(inputs, weights, strength=strength))
    off = np.log2(ours) - np.log2(published)
    inside = np.abs(np.log2(ours)) < 24  # what is further out is cut
    common = np.median(np.log2(published))
    assert np.abs(off[inside] + common).max(initial=0) <= 0.5 + 1e-6


def test_the_largest_strength_gives_every_channel_one_reach() -> None:
    reach = 2.0 ** np.array([-3, 0, 0, 5])
    exponents = smoothing_exponents(reach, np.array([9.0, 1.0, 3.0, 0.5]), strength=1.0)
    assert exponents == (-3, 0, 0, 5)
    assert np.unique(reach / smoothing_factors(exponents)).tolist() == [1.0]


def test_without_strength_weights_get_one_reach() -> None:
    weights = 2.0 ** np.array([-2, 0, 1])
    exponents = smoothing_exponents(np.array([1.0, 50.0, 1.0]), weights, strength=0.0)
    assert np.unique(weights * smoothing_factors(exponents)).tolist() == [1.0]


@pytest.mark.parametrize("absent", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("slot", [0, 1])
def test_channels_that_tell_nothing_stay_and_move_no_other(absent: float, slot: int) -> None:
    reaches = np.array([[1.0, 16.0, 4.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    others = smoothing_exponents(*reaches[:, :3], strength=0.5)
    reaches[slot, 3] = absent
    assert smoothing_exponents(*reaches, strength=0.5) == (*others, 0)
    assert smoothing_exponents(np.zeros(2), np.ones(2)) == (0, 0)


def test_dividing_and_multiplying_by_factors_gives_every_number_back() -> None:
    numbers = np.random.default_rng(0).standard_normal(49).astype(np.float32)
    factors = smoothing_factors(range(-24, 25))
    np.testing.assert_array_equal(numbers / factors * factors, numbers)
    np.testing.assert_array_equal(numbers * (1 / factors), numbers / factors)
