"""Laws of floating numbers."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Float32
from numpy import ndarray

from mpsearch.core.formats import TensorFormat, format_named
from mpsearch.errors import FormatError, ModelError
from mpsearch.quant import QUANTIZERS
from mpsearch.quant.floating import round_to_bfloat16


@settings(deadline=None)  # a busy machine is no broken law
@given(values=hnp.arrays(np.float32, 50, elements=st.floats(width=32)))
def test_rounding_equals_ml_dtypes(values: Float32[ndarray, " N"]) -> None:
    with np.errstate(invalid="ignore", over="ignore"):
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(round_to_bfloat16(values), expected)


def test_every_pattern_of_the_dropped_bits_rounds_as_ml_dtypes_does() -> None:
    dropped = np.arange(2**16, dtype=np.uint32)
    for kept in (0x3F80, 0x3F81, 0xBF81, 0x0000, 0x7F7E):
        values = (np.uint32(kept << 16) | dropped).view(np.float32)
        expected = values.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(round_to_bfloat16(values), expected)


def test_not_a_number_stays_and_scalars_and_strides_work() -> None:
    assert np.isnan(round_to_bfloat16(np.array(np.nan, dtype=np.float32)))
    # The payload of this NaN would carry into a negative zero.
    assert np.isnan(round_to_bfloat16(np.array([0x7FFFFFFF], np.uint32).view(np.float32)))[0]
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    np.testing.assert_array_equal(round_to_bfloat16(transposed), transposed)


def test_fp32_keeps_every_bit_and_returns_a_copy() -> None:
    weight = np.array([[1.1, -2.2]], dtype=np.float32)
    stored = QUANTIZERS["floating"].fake_quantise(weight, format_named("fp32").weight)
    assert stored.tobytes() == weight.tobytes()
    assert not np.shares_memory(stored, weight)


def test_a_weight_beyond_bfloat16_is_refused() -> None:
    weight = np.array([np.finfo(np.float32).max], dtype=np.float32)
    with pytest.raises(ModelError, match="beyond the largest number of 16 bits"):
        QUANTIZERS["floating"].fake_quantise(weight, format_named("bf16").weight)


def test_other_widths_are_refused() -> None:
    with pytest.raises(FormatError, match="floating of 8, 16, 32 bits"):
        QUANTIZERS["floating"].fake_quantise(
            np.ones(2, dtype=np.float32), TensorFormat(kind="floating", bits=12)
        )
