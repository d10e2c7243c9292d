"""Floating numbers: IEEE single, and bfloat16 and scaled E4M3 kept in float32 arrays."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from mpsearch.core.formats import TensorFormat
from mpsearch.quant.float8 import quantise_to_float8
from mpsearch.quant.quantizer import AbstractQuantizer, check_kind

_SINGLE_BITS: Final = 32
_BRAIN_BITS: Final = 16
_SCALED_BITS: Final = 8


def round_to_bfloat16(values: Float32[ndarray, "..."]) -> Float32[ndarray, "..."]:
    """Round to 8 bits of significand, half to even, and keep float32; NaN stays NaN.

    Adding half of the dropped part, less one where the kept part is even, rounds by carry.

    Example:
        >>> round_to_bfloat16(np.array([1.00390625, 3.1415927], dtype=np.float32)).tolist()
        [1.0, 3.140625]
    """
    # A copy: arrays of zero dimensions and strides have no 32-bit view.
    contiguous = np.array(values, dtype=np.float32, order="C", ndmin=1)
    bits = contiguous.view(np.uint32)
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)
    # The carry could turn a NaN into a zero.
    kept: ndarray = np.where(np.isnan(contiguous), contiguous, rounded)
    return kept.reshape(np.shape(values))


@final
@dataclass(frozen=True, kw_only=True)
class FloatingQuantizer(AbstractQuantizer):
    """IEEE single of 32 bits as it is, bfloat16 of 16 bits by rounding, E4M3 of 8 by a scale."""

    def _fake_quantise(
        self,
        weight: Float32[ndarray, "..."],
        number: TensorFormat,
        *,
        axis: int,  # noqa: ARG002 - there is one scale for all, or none, so no axis
        name: str,  # noqa: ARG002 - nothing here can fail
    ) -> Float32[ndarray, "..."]:
        widths = frozenset({_SINGLE_BITS, _BRAIN_BITS, _SCALED_BITS})
        check_kind(number, kind="floating", bits=widths)
        if number.bits == _SCALED_BITS:
            return quantise_to_float8(weight).dequantise()
        return round_to_bfloat16(weight) if number.bits == _BRAIN_BITS else weight.copy()
