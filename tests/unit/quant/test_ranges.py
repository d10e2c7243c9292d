"""Laws of range observers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float32
from numpy import ndarray

from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import MeasurementError, UsageError
from mpsearch.quant.integer import dequantise_activation, quantise_activation
from mpsearch.quant.ranges import (
    RANGE_METHODS,
    RangeObserver,
    _divergence,
    activation_quantizer,
    quantizer_of_range,
)


def _observed(*batches: Float32[ndarray, "..."], method: str = "mse") -> RangeObserver:
    observer = RangeObserver(method=method)
    for batch in batches:
        observer.observe_(batch)
    return observer


def _error(values: Float32[ndarray, "..."], quantizer: ActivationQuantizer) -> float:
    back = dequantise_activation(quantise_activation(values, quantizer), quantizer)
    return float(((back.astype(float) - values) ** 2).mean())


@pytest.mark.parametrize("method", RANGE_METHODS)
@settings(deadline=None, max_examples=40)  # a busy machine is no broken law
@given(
    values=hnp.arrays(
        np.float32,
        12,
        elements=st.one_of(st.floats(-1e6, 1e6, width=32), st.floats(-1, 1, width=32)),
    ),
    cut=st.integers(0, 12),
)
def test_order_and_size_of_batches_change_nothing(
    method: str, values: Float32[ndarray, " N"], cut: int
) -> None:
    whole = _observed(values, method=method)
    parts = _observed(values[cut:], values[:cut], method=method)
    merged = _observed(values[cut:], method=method)
    merged.merge_(_observed(values[:cut], method=method))
    for other in (parts, merged):
        assert activation_quantizer(other) == activation_quantizer(whole)
        np.testing.assert_array_equal(other.counts, whole.counts)


def test_what_is_next_to_nothing_stays_on_its_side_of_zero_in_any_batch() -> None:
    # The least number below zero vanishes when it is scaled by the width of a wide bin.
    values = np.array([-1e-45, 1e6, 0.5], dtype=np.float32)
    whole = _observed(values, method="percentile")
    parts = _observed(values[:1], values[1:], method="percentile")
    np.testing.assert_array_equal(parts.counts, whole.counts)


def test_minmax_covers_all_that_was_seen_and_zero() -> None:
    quantizer = activation_quantizer(_observed(np.array([[2.0, 5.1]], np.float32), method="minmax"))
    assert (quantizer.low, quantizer.zero_point, quantizer.samples) == (0.0, 0, 1)
    assert quantizer.scale == pytest.approx(5.1 / 255)
    negative = activation_quantizer(_observed(np.array([-4.0], np.float32), method="minmax"))
    assert (negative.high, negative.zero_point) == (0.0, 255)


def test_the_scale_is_a_float32_so_that_the_file_can_hold_it() -> None:
    scale = quantizer_of_range(-0.3, 1.7).scale
    assert float(np.float32(scale)) == scale


def test_a_layer_that_sees_only_zeros_gets_a_harmless_quantiser() -> None:
    for method in RANGE_METHODS:
        quantizer = activation_quantizer(_observed(np.zeros((2, 3), np.float32), method=method))
        assert (quantizer.scale, quantizer.zero_point) == (1.0, 0)


def test_denormal_activations_get_a_normal_scale() -> None:
    quantizer = activation_quantizer(_observed(np.array([1e-44, 0], np.float32)))
    assert quantizer.scale >= np.finfo(np.float32).tiny


@pytest.mark.parametrize("seed", range(3))
def test_least_squares_is_as_good_as_a_dense_search_on_the_values_themselves(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values = np.concatenate(
        [generator.normal(0.2, 1, 20000), generator.laplace(0, 3, 50), [25.0 * (seed + 1)]]
    ).astype(np.float32)
    mine = _error(values, activation_quantizer(_observed(values)))
    lows = np.linspace(values.min(), 0, 25)[:-1]
    highs = np.linspace(values.max(), 0, 80)[:-1]
    best = min(
        _error(values, quantizer_of_range(float(low), float(high)))
        for low in lows
        for high in highs
    )
    # Two grids, bins instead of values: within 2 % of each other.
    assert mine <= best * 1.02
    assert mine < _error(values, quantizer_of_range(float(values.min()), float(values.max())))


def test_least_squares_keeps_a_flat_range() -> None:
    kept = activation_quantizer(_observed(np.linspace(-1, 1, 10001, dtype=np.float32)))
    assert (kept.low, kept.high) == (-1.0, 1.0)


@pytest.mark.parametrize("count", [100_000, 1_000_000])
def test_least_squares_clips_an_outlier_as_the_closed_form_says(count: int) -> None:
    values = np.random.default_rng(0).normal(size=count).astype(np.float32)
    values[0] = 60.0
    quantizer = activation_quantizer(_observed(values))
    # min (60 - h)**2 / n + ((h - l) / 255)**2 / 12, the derivative set to zero.
    rounding = 12 * 255**2
    expected = (60 * rounding + quantizer.low * count) / (rounding + count)
    assert quantizer.high == pytest.approx(expected, abs=2 * 60 / 100)  # two steps of the grid


def test_exact_zeros_weigh_nothing() -> None:
    values = np.abs(np.random.default_rng(3).normal(size=5000)).astype(np.float32)
    padded = np.concatenate([values, np.zeros(500_000, np.float32)])
    few, many = activation_quantizer(_observed(values)), activation_quantizer(_observed(padded))
    assert (few.low, few.high) == (many.low, many.high)


def test_the_percentile_equals_the_quantiles_within_a_bin() -> None:
    values = np.random.default_rng(4).normal(size=200_000).astype(np.float32)
    observer = _observed(values, method="percentile")
    quantizer = activation_quantizer(observer)
    low, high = np.quantile(values, [0.5e-4, 1 - 0.5e-4])
    # Neighbours in the tail lie further apart than a bin is wide.
    assert (quantizer.low, quantizer.high) == pytest.approx((low, high), abs=0.05)
    assert quantizer.low > values.min()
    assert quantizer.high < values.max()


def test_a_number_that_is_not_finite_is_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(MeasurementError, match="finite"):
            _observed(np.array([1.0, bad], np.float32))


def test_nothing_observed_is_an_error_and_an_empty_batch_is_none() -> None:
    observer = _observed(np.zeros((0, 4), np.float32))
    with pytest.raises(MeasurementError, match="No activation was observed"):
        activation_quantizer(observer)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="'widest' is unknown"):
        RangeObserver(method="widest")


def test_samples_count_the_first_axis_or_what_is_told() -> None:
    observer = _observed(np.ones((3, 7), np.float32))
    observer.observe_(np.ones(40, np.float32), samples=2)
    assert observer.samples == 5


def test_entropy_leaves_outliers_out_and_keeps_an_even_spread() -> None:
    random = np.random.default_rng(0)
    bulk = random.normal(size=200_000).astype(np.float32)
    outliers = np.array([60.0, -45.0], np.float32)
    found = activation_quantizer(_observed(bulk, outliers, method="entropy"))
    assert found.high < 20
    assert found.low > -20
    even = random.uniform(-1, 1, 200_000).astype(np.float32)
    whole = activation_quantizer(_observed(even, method="entropy"))
    assert whole.high > 0.95
    assert whole.low < -0.95


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1])
def test_the_divergence_equals_its_definition(share: float) -> None:
    """A second method: number by number, with dictionaries."""
    random = np.random.default_rng(1)
    values = np.sort(random.normal(size=400)).astype(float)
    weights = random.integers(1, 9, 400).astype(float)
    low, high = share * values[0], share * values[-1]
    quantizer = quantizer_of_range(low, high)
    code = [round(float(v) / quantizer.scale) + quantizer.zero_point for v in values]
    inside = [place for place in range(400) if 0 <= code[place] <= 255]
    p = {place: weights[place] for place in inside}
    p[inside[0]] += weights[: inside[0]].sum()
    p[inside[-1]] += weights[inside[-1] + 1 :].sum()
    members: dict[int, list[int]] = {}
    for place in inside:
        members.setdefault(code[place], []).append(place)
    q = {
        place: sum(weights[each] for each in members[code[place]]) / len(members[code[place]])
        for place in inside
    }
    total, mass = sum(p.values()), sum(q.values())
    wanted = sum(
        p[place] / total * np.log(p[place] / total / (q[place] / mass)) for place in inside
    )
    assert _divergence(values, weights, low=low, high=high) == pytest.approx(wanted, rel=1e-9)
