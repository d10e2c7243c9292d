"""Every registered quantiser obeys the laws of quantisers."""

from itertools import product

import numpy as np
import pytest
from jaxtyping import Float32
from numpy import ndarray

from mpsearch.core.formats import FORMATS, Granularity, TensorFormat
from mpsearch.quant import QUANTIZERS, AbstractQuantizer
from mpsearch.testing.quantizer_laws import QuantizerLaws


class TestIntegerQuantizer(QuantizerLaws):
    """Integers, per tensor, channel and group."""

    def quantizer(self) -> AbstractQuantizer:
        return QUANTIZERS["integer"]

    def numbers(self) -> tuple[TensorFormat, ...]:
        return tuple(
            TensorFormat(
                kind="integer",
                bits=bits,
                granularity=granularity,
                group_size=4 if granularity is Granularity.GROUP else None,
            )
            for bits, granularity in product((2, 3, 4, 8), Granularity)
        )

    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        rows = {
            Granularity.TENSOR: weight.reshape(1, -1),
            Granularity.CHANNEL: weight,
            Granularity.GROUP: weight.reshape(-1, number.group_size or 1),
        }[number.granularity]
        step = np.abs(rows).max(axis=1, keepdims=True) / (2 ** (number.bits - 1) - 1)
        return np.broadcast_to(step, rows.shape).reshape(weight.shape).astype(np.float32)


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


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_has_a_quantiser_for_its_weight(name: str) -> None:
    number = FORMATS[name].weight
    weight = np.linspace(-1, 1, 256, dtype=np.float32).reshape(2, 128)
    stored = QUANTIZERS[number.kind].fake_quantise(weight, number)
    # The step of the coarsest format, 2 bits, is the largest number.
    assert np.abs(stored - weight).max() <= 0.5
