"""Exponents that even out the channels of a layer's input: outliers move into the weight.

Codes of 8 bits over a whole tensor are as coarse as its largest channel asks for. Divided
by 2**e in each channel, while the weight's column is multiplied by it, the layer computes the
same and its input has less to cover. Powers of two make both steps exact.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from jaxtyping import Float, Float32, Int64
from numpy import ndarray

# The share of the outliers that weights take over. Half of it suits weights that are as coarse
# as inputs (Xiao et al.); here each row of a weight has a scale of its own.
STRENGTH: Final = 0.8
_LARGEST: Final = 24  # columns that are never reached would have exponents without end


def smoothing_exponents(
    inputs: Float[ndarray, " I"], weights: Float[ndarray, " I"], *, strength: float = STRENGTH
) -> tuple[int, ...]:
    """Return e with 2**e nearest to max|X_i|**a / max|W_i|**(1 - a), up to a common factor.

    Xiao et al., "SmoothQuant" (2023), equation 4, rounded to powers of two. A channel whose
    inputs or weights are all zero stays as it is beside the median of the others.

    Args:
        inputs: Largest magnitude of each channel of the input.
        weights: Largest magnitude of what is multiplied with the channel, all layers that
            read the input together.
        strength: a, from 0 (weights are evened out instead) to 1 (inputs take one reach).

    Example:
        >>> smoothing_exponents(np.array([1.0, 1.0, 16.0]), np.ones(3), strength=0.5)
        (0, 0, 2)
    """
    is_reached = (inputs > 0) & (weights > 0) & np.isfinite(inputs) & np.isfinite(weights)
    exponents: Int64[ndarray, " I"] = np.zeros(len(inputs), dtype=np.int64)
    if is_reached.any():
        wanted = strength * np.log2(inputs[is_reached].astype(np.float64))
        wanted -= (1 - strength) * np.log2(weights[is_reached].astype(np.float64))
        wanted = np.rint(wanted - np.median(wanted)).astype(np.int64)
        exponents[is_reached] = np.clip(wanted, -_LARGEST, _LARGEST)
    return tuple(exponents.tolist())


def smoothing_factors(exponents: Sequence[int]) -> Float32[ndarray, " I"]:
    """Return 2**e of each channel: inputs are divided by it, columns of weights multiplied."""
    return np.exp2(np.array(exponents, dtype=np.float32))
