"""MSE clipping loses no more than any scale of a dense grid, and never more than min-max."""

import numpy as np
import pytest
from jaxtyping import Float32, Float64
from numpy import ndarray

from mpsearch.core.formats import format_named
from mpsearch.quant.clipping import least_squares_ranges, least_squares_scales, range_error
from mpsearch.quant.integer import quantise_weight

_GRID = 4001


@pytest.fixture(scope="module")
def rows() -> Float32[ndarray, "B N"]:
    """Rows of all kinds: normal, with outliers, even, one-sided, tiny, on a lattice, alone."""
    generator = np.random.default_rng(0)
    kinds = [
        generator.normal(size=(6, 24)),
        generator.standard_t(2, size=(6, 24)),
        generator.uniform(size=(3, 24)),
        generator.normal(size=(2, 24)) * 1e-30,
        generator.integers(-3, 4, size=(3, 24)),
        np.eye(1, 24) * -5.0,
        np.zeros((1, 24)),
    ]
    return np.concatenate(kinds).astype(np.float32)


def error(row: Float64[ndarray, " N"], scale: float, *, largest: int) -> float:
    codes = np.clip(np.rint(row / scale), -largest, largest)
    return float(np.square(codes * scale - row).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_no_scale_of_a_dense_grid_loses_less(rows: Float32[ndarray, "B N"], bits: int) -> None:
    largest = 2 ** (bits - 1) - 1
    found = least_squares_scales(rows, largest_code=largest)
    for row, scale in zip(rows.astype(np.float64), found, strict=True):
        peak = np.abs(row).max()
        if peak == 0:
            assert scale == 1.0
            continue
        grid = peak / (largest - 0.5) * np.linspace(1.0, 1e-3, _GRID)
        least = min(error(row, each, largest=largest) for each in grid)
        # Sums are rounded; of the row itself, since the error may be nothing.
        assert error(row, scale, largest=largest) <= least + 1e-14 * np.square(row).sum()


def test_ternary_codes_equal_the_best_of_all_subsets() -> None:
    """By hand: with codes -1, 0, 1 the best scale is the mean of the k largest, for some k."""
    row = np.random.default_rng(1).normal(size=(1, 40)).astype(np.float32)
    sizes = np.sort(np.abs(row[0].astype(np.float64)))[::-1]
    gains = np.cumsum(sizes) ** 2 / np.arange(1, 41)
    best = int(gains.argmax()) + 1
    found = least_squares_scales(row, largest_code=1)
    np.testing.assert_allclose(found, sizes[:best].mean(), rtol=1e-12)


@pytest.mark.parametrize("name", ["w2", "w3", "w4", "w8", "w2-asymmetric", "w4-asymmetric"])
def test_no_channel_loses_more_than_by_min_max(rows: Float32[ndarray, "B N"], name: str) -> None:
    whole = quantise_weight(rows, format_named(name).weight).dequantise()
    clipped = quantise_weight(rows, format_named(f"{name}-mse").weight).dequantise()
    before = np.square(whole.astype(np.float64) - rows).sum(axis=1)
    after = np.square(clipped.astype(np.float64) - rows).sum(axis=1)
    assert (after <= before).all()
    heavy = slice(6, 12)  # rows with outliers
    assert (after[heavy] < before[heavy]).any()


@pytest.mark.parametrize("name", ["w4", "w8", "w2-asymmetric"])
def test_ties_and_roundings_never_make_it_worse(name: str) -> None:
    """Short rows of whole numbers times a factor: there float32 decides what is nearer."""
    generator = np.random.default_rng(5)
    whole = generator.integers(-7, 8, size=(3000, 4))
    rows = (whole * generator.normal(size=(3000, 1))).astype(np.float32)
    errors = [
        np.square(
            quantise_weight(rows, format_named(each).weight).dequantise().astype(np.float64) - rows
        ).sum(axis=1)
        for each in (name, f"{name}-mse")
    ]
    assert (errors[1] <= errors[0]).all()


def test_what_lies_on_the_lattice_stays_on_it() -> None:
    """Min-max is exact there, so nothing may replace it, not even by an ulp."""
    lattice = np.float32(0.1) * np.arange(-7, 8, dtype=np.float32)[None]
    for name in ("w4", "w4-asymmetric"):
        whole = quantise_weight(lattice, format_named(name).weight)
        clipped = quantise_weight(lattice, format_named(f"{name}-mse").weight)
        assert clipped.scale.tobytes() == whole.scale.tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_two_ends_come_near_the_best_pair_of_a_dense_grid(bits: int) -> None:
    generator = np.random.default_rng(2)
    rows = np.concatenate([generator.normal(size=(8, 32)), generator.gamma(1.0, size=(8, 32))])
    found = range_error(
        rows, least_squares_ranges(rows.astype(np.float32), codes=2**bits), codes=2**bits
    )
    ends = np.stack([rows.min(axis=1, initial=0.0), rows.max(axis=1)], axis=1)
    shares = np.linspace(0.0, 1.0, 61)
    least = np.full(len(rows), np.inf)
    for low in shares:
        for high in shares[1:]:
            tried = range_error(rows, ends * [low, high], codes=2**bits)
            least = np.minimum(least, tried)
    # One end at a time may stop at a pair that only both together improve.
    assert (found <= 1.25 * least).all()
    assert found.mean() <= 1.05 * least.mean()


def test_rows_are_independent_and_scale_with_the_weight() -> None:
    rows = np.random.default_rng(3).standard_t(3, size=(5, 64)).astype(np.float32)
    whole = least_squares_scales(rows, largest_code=7)
    alone = [least_squares_scales(row[None], largest_code=7)[0] for row in rows]
    np.testing.assert_array_equal(whole, alone)
    np.testing.assert_array_equal(least_squares_scales(-rows, largest_code=7), whole)
    np.testing.assert_array_equal(least_squares_scales(rows * 4, largest_code=7), 4 * whole)
    permuted = least_squares_scales(rows[:, ::-1], largest_code=7)
    np.testing.assert_allclose(permuted, whole, rtol=1e-12)


def test_order_in_memory_changes_no_bit() -> None:
    rows = np.random.default_rng(4).normal(size=(40, 24)).astype(np.float32)
    other = np.asfortranarray(rows)
    for name in ("w3-mse", "w3-asymmetric-mse"):
        one = quantise_weight(rows, format_named(name).weight)
        two = quantise_weight(other, format_named(name).weight)
        assert one.scale.tobytes() == two.scale.tobytes()
        assert one.codes.tobytes() == np.ascontiguousarray(two.codes).tobytes()


def test_an_empty_weight_and_one_without_blocks_are_no_error() -> None:
    assert least_squares_scales(np.zeros((0, 3), np.float32), largest_code=7).shape == (0,)
    np.testing.assert_array_equal(
        least_squares_scales(np.zeros((2, 0), np.float32), largest_code=7), 1.0
    )
