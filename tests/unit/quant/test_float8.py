"""Floats of 8 bits are those of another library, and hold what the format says."""

import ml_dtypes
import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.core.formats import TensorFormat
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.quant.fake_torch import fake_float8_activation
from mpsearch.quant.float8 import (
    LARGEST_FLOAT8,
    float8_input_scale,
    quantise_to_float8,
    round_to_float8,
)
from mpsearch.quant.ranges import quantizer_of_range

_ALL = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
_NUMBERS = np.unique(_ALL[np.isfinite(_ALL)])


def test_every_number_of_the_format_stays_and_the_largest_is_448() -> None:
    np.testing.assert_array_equal(round_to_float8(_NUMBERS), _NUMBERS)
    assert _NUMBERS.max() == LARGEST_FLOAT8


def test_ties_go_to_the_even_neighbour_and_all_else_to_the_nearest() -> None:
    middle = (_NUMBERS[1:] + _NUMBERS[:-1]) / 2
    for values in (middle, np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)):
        expected = values.astype(np.float32).astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
        np.testing.assert_array_equal(round_to_float8(values), expected)


@given(st.floats(-(2.0**60), 2.0**60, width=32))
def test_what_is_too_large_becomes_the_largest_number(value: float) -> None:
    rounded = round_to_float8(np.array([value], dtype=np.float32))[0]
    nearest = _NUMBERS[np.abs(_NUMBERS - np.float64(value)).argmin()]
    assert abs(rounded - value) == abs(nearest - value)


def test_a_weight_uses_the_whole_range_and_zeros_stay() -> None:
    weight = np.array([[3.0, -0.5], [0.0, 1.5]], dtype=np.float32)
    stored = quantise_to_float8(weight)
    assert np.abs(stored.numbers).max() == LARGEST_FLOAT8
    assert stored.scale == np.float32(3.0 / 448)
    np.testing.assert_allclose(stored.dequantise(), weight, rtol=2.0**-4)
    zero = quantise_to_float8(np.zeros((2, 2), dtype=np.float32))
    assert float(zero.scale) == 1.0
    assert not zero.dequantise().any()


def test_inputs_have_room_for_twice_the_range() -> None:
    quantizer = quantizer_of_range(-1.0, 7.0)
    assert float8_input_scale(quantizer) == np.float32(14 / 448)
    nothing = ActivationQuantizer(scale=1.0, zero_point=0, low=0.0, high=0.0, method="", samples=1)
    assert float8_input_scale(nothing) == 1.0


def test_the_simulation_of_inputs_is_the_same_rounding() -> None:
    quantizer = quantizer_of_range(-4.0, 4.0)
    values = np.random.default_rng(0).standard_normal(1000, dtype=np.float32) * 8
    scale = np.float32(float8_input_scale(quantizer))
    expected = round_to_float8(values / scale) * scale
    found = fake_float8_activation(torch.from_numpy(values), quantizer)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert np.abs(found.numpy()).max() <= 8.0


def test_it_is_no_plain_number() -> None:
    assert not TensorFormat(kind="floating", bits=8).is_plain
    assert TensorFormat(kind="floating", bits=16).is_plain
    assert not TensorFormat(kind="integer", bits=8).is_plain
