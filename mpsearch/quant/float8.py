"""Floats of 8 bits: E4M3, four bits of exponent and three of significand, times one scale.

Without infinities, as in Micikevicius et al. (2022), arXiv:2209.05433, and ONNX's FLOAT8E4M3FN.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from mpsearch.core.plan import ActivationQuantizer

LARGEST_FLOAT8: Final = 448.0
_LEAST_EXPONENT: Final = -6  # of normal numbers; smaller ones have its step
_SIGNIFICAND_BITS: Final = 3
_SMALLEST_SCALE: Final = np.finfo(np.float32).tiny
# The precision is the same over 15 powers of two, so room for a range twice as wide as
# calibration's costs nothing, and what the range of whole numbers leaves out is kept.
_MARGIN: Final = 2.0


@final
@dataclass(frozen=True, kw_only=True)
class Float8Tensor:
    """Numbers of E4M3, kept as float32, and the scale that turns them back."""

    numbers: Float32[ndarray, "..."]
    scale: Float32[ndarray, ""]

    def dequantise(self) -> Float32[ndarray, "..."]:
        """Return numbers x scale."""
        values: ndarray = self.numbers * self.scale
        return values


def round_to_float8(values: Float[ndarray, "..."]) -> Float32[ndarray, "..."]:
    """Round to E4M3, ties to even; beyond 448 the largest number, as ONNX saturates.

    Example:
        >>> round_to_float8(np.array([1.06, 1.0625, 17.0, 1e4, 0.001], dtype=np.float32)).tolist()
        [1.0, 1.0, 16.0, 448.0, 0.001953125]
    """
    cut = np.clip(np.asarray(values, dtype=np.float32), -LARGEST_FLOAT8, LARGEST_FLOAT8)
    _, exponent = np.frexp(cut)  # of a significand in [0.5, 1)
    step = np.ldexp(
        np.float32(1.0), np.maximum(exponent - 1, _LEAST_EXPONENT) - _SIGNIFICAND_BITS
    ).astype(np.float32)
    rounded: ndarray = np.rint(cut / step) * step
    return rounded


def quantise_to_float8(weight: Float32[ndarray, "..."]) -> Float8Tensor:
    """Return a weight as E4M3 with one scale = max|w| / 448, which is 1 where all is zero."""
    peak = np.abs(weight).max(initial=0.0)
    scale = np.float32(peak / np.float32(LARGEST_FLOAT8))
    scale = max(scale, _SMALLEST_SCALE) if peak > 0 else np.float32(1.0)
    return Float8Tensor(
        numbers=round_to_float8(weight / scale), scale=np.array(scale, dtype=np.float32)
    )


def float8_input_scale(quantizer: ActivationQuantizer) -> float:
    """Return the scale of inputs whose range was found for whole numbers: twice max|x| / 448."""
    peak = max(abs(quantizer.low), abs(quantizer.high))
    scale = np.float32(_MARGIN * peak / LARGEST_FLOAT8)
    return float(max(scale, _SMALLEST_SCALE)) if peak > 0 else 1.0
