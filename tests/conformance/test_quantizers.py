"""Every registered quantiser obeys the laws of quantisers."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from jaxtyping import Bool, Float32, Float64
from numpy import ndarray

from mpsearch.core.formats import FORMATS, Granularity, TensorFormat
from mpsearch.quant import QUANTIZERS, AbstractQuantizer
from mpsearch.testing.quantizer_laws import LAW, MATRICES, QuantizerLaws

_NEARLY = 1e-5  # of a step: singles decide a tie by their rounding


def _integers(*, symmetric: bool) -> tuple[TensorFormat, ...]:
    return tuple(
        TensorFormat(
            kind="integer",
            bits=bits,
            granularity=granularity,
            group_size=4 if granularity is Granularity.GROUP else None,
            symmetric=symmetric,
        )
        for bits, granularity in product(
            (2, 3, 4, 8), (Granularity.TENSOR, Granularity.CHANNEL, Granularity.GROUP)
        )
    )


def _blocks(weight: Float32[ndarray, "O I"], number: TensorFormat) -> Float32[ndarray, "B N"]:
    return {
        Granularity.TENSOR: weight.reshape(1, -1),
        Granularity.CHANNEL: weight,
        Granularity.GROUP: weight.reshape(-1, number.group_size or 1),
    }[number.granularity]


def _spread(
    each: Float32[ndarray, "B 1"], weight: Float32[ndarray, "O I"], number: TensorFormat
) -> Float32[ndarray, "O I"]:
    rows = _blocks(weight, number)
    return np.broadcast_to(each, rows.shape).reshape(weight.shape).astype(np.float32)


def _ends(
    weight: Float32[ndarray, "O I"], number: TensorFormat
) -> tuple[Float64[ndarray, "B 1"], Float64[ndarray, "B 1"]]:
    rows = _blocks(weight, number).astype(np.float64)
    low = rows.min(axis=1, keepdims=True, initial=0.0)
    return low, rows.max(axis=1, keepdims=True, initial=0.0)


class TestIntegerQuantizer(QuantizerLaws):
    """Symmetric integers, per tensor, channel and group."""

    def quantizer(self) -> AbstractQuantizer:
        return QUANTIZERS["integer"]

    def numbers(self) -> tuple[TensorFormat, ...]:
        return _integers(symmetric=True)

    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        peak = np.abs(_blocks(weight, number)).max(axis=1, keepdims=True)
        return _spread(peak / np.float32(2 ** (number.bits - 1) - 1), weight, number)


class TestAsymmetricQuantizer(TestIntegerQuantizer):
    """Integers with a zero point."""

    def numbers(self) -> tuple[TensorFormat, ...]:
        return _integers(symmetric=False)

    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        low, high = _ends(weight, number)
        span = (high - low).astype(np.float32)
        return _spread(span / np.float32(2**number.bits - 1), weight, number)

    def loses_an_end(
        self, weight: Float32[ndarray, "O I"], number: TensorFormat
    ) -> Bool[ndarray, "O I"]:
        """At a tie the zero point is rounded away from one end, which is then out of reach."""
        low, high = _ends(weight, number)
        with np.errstate(invalid="ignore"):
            zero_point = -low * (2**number.bits - 1) / (high - low)
        is_tie = np.abs(zero_point % 1 - 0.5) < _NEARLY
        return _spread(is_tie.astype(np.float32), weight, number).astype(bool)

    @LAW
    @given(weight=MATRICES)
    def test_an_opposite_weight_is_stored_opposite(self, weight: Float32[ndarray, "O I"]) -> None:
        """The zero point is rounded to even, so that at a tie an end of the range moves a step."""
        for number in self.numbers():
            apart = np.abs(self._stored(-weight, number) + self._stored(weight, number))
            assert (apart <= self.largest_step(weight, number) * (1 + 1e-6)).all()


class TestFloatingQuantizer(QuantizerLaws):
    """IEEE single and bfloat16."""

    def quantizer(self) -> AbstractQuantizer:
        return QUANTIZERS["floating"]

    def numbers(self) -> tuple[TensorFormat, ...]:
        return tuple(TensorFormat(kind="floating", bits=bits) for bits in (16, 32))

    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        stored_bits = {16: 7, 32: 23}[number.bits]
        _, exponent = np.frexp(weight)
        step: ndarray = np.ldexp(np.float32(1.0), exponent - 1 - stored_bits)
        return step.astype(np.float32)


class TestFloat8(QuantizerLaws):
    """E4M3 with one scale."""

    def quantizer(self) -> AbstractQuantizer:
        return QUANTIZERS["floating"]

    def numbers(self) -> tuple[TensorFormat, ...]:
        return (TensorFormat(kind="floating", bits=8),)

    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        scale = np.abs(weight).max() / np.float32(448) or np.float32(1)
        significand_bits = {8: 3}[number.bits]
        _, exponent = np.frexp(weight / scale)
        # Normal numbers begin at 2**-6.
        step: ndarray = scale * np.ldexp(
            np.float32(1.0), np.maximum(exponent - 1, -6) - significand_bits
        )
        return step.astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_quantiser_for_its_weight(name: str) -> None:
    number = FORMATS[name].weight
    weight = np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128)
    stored = QUANTIZERS[number.kind].fake_quantise(weight, number)
    # The step of the coarsest format, 2 bits, is the largest number.
    assert np.abs(stored - weight).max() <= 0.5
