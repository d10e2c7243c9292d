"""Integer numbers: symmetric weights, and activations of 8 bits with a zero point.

Both round half to even and saturate, as ONNX QuantizeLinear does, so that the simulation
and the file hold the same bits.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Int8, UInt8
from numpy import ndarray

from mpsearch.core.formats import Granularity, TensorFormat
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import FormatError
from mpsearch.quant.quantizer import AbstractQuantizer, as_finite_float32, check_kind

WEIGHT_BITS: Final = frozenset(range(2, 9))
ACTIVATION_CODES: Final = 255  # the largest code of 8 bits without sign
# Smaller scales are denormal, which processors flush to zero at will.
_SMALLEST_SCALE: Final = np.finfo(np.float32).tiny
_MATRIX: Final = 2  # dimensions


@final
@dataclass(frozen=True, kw_only=True)
class QuantisedTensor:
    """Whole-number `codes` and the float32 `scale` that turns them back.

    `scale` has shape () for one scale per tensor, (C,) for one per index of `axis`, and
    (rows, groups) for one per `group_size` neighbours of a row.
    """

    codes: Int8[ndarray, "..."]
    scale: Float32[ndarray, "..."]
    bits: int
    axis: int = 0
    group_size: int | None = None

    def dequantise(self) -> Float32[ndarray, "..."]:
        """Return codes x scale, one float32 multiplication each."""
        if self.group_size is not None:
            scale = np.repeat(self.scale, self.group_size, axis=1)
        else:
            scale = _spread(self.scale, axis=self.axis, dimensions=self.codes.ndim)
        values: ndarray = self.codes.astype(np.float32) * scale
        return values


def quantise_weight(
    weight: Float[ndarray, "..."],
    number: TensorFormat,
    *,
    axis: int = 0,
    name: str = "weight",
) -> QuantisedTensor:
    """Quantise a weight symmetrically: scale = max|w| / (2**(bits - 1) - 1), nearest code.

    Ties go to the even code. Codes use the 2**bits - 1 values around zero. Zero stays
    zero; an all-zero channel gets scale 1. Scheme: Yao et al. (2021), HAWQ-V3, section 3.

    Args:
        weight: Any shape; finite. Groups need a matrix (outputs, inputs).
        number: Integer, symmetric, 2 to 8 bits.
        axis: The axis of output channels, one scale per index; for CHANNEL only.
        name: What messages call the weight.

    Raises:
        FormatError: The format is not such an integer, or groups do not divide the weight.
        ModelError: The weight holds NaN or infinity.

    Example:
        >>> from mpsearch.core.formats import format_named
        >>> weight = np.array([[1.0, -127.0], [0.0, 2.0]])
        >>> quantise_weight(weight, format_named("w8").weight).codes.tolist()
        [[1, -127], [0, 127]]
    """
    _check_format(number)
    values = as_finite_float32(weight, name)
    largest_code = 2 ** (number.bits - 1) - 1
    blocks, axes, group_size = _blocks(values, number, axis=axis, name=name)
    peak = np.abs(blocks).max(axis=axes, keepdims=True, initial=0.0)
    scale = np.where(
        peak > 0, np.maximum(peak / np.float32(largest_code), _SMALLEST_SCALE), np.float32(1.0)
    ).astype(np.float32)
    codes = np.clip(np.rint(blocks / scale), -largest_code, largest_code).astype(np.int8)
    return QuantisedTensor(
        codes=codes.reshape(values.shape),
        scale=scale.squeeze(axes),
        bits=number.bits,
        axis=axis,
        group_size=group_size,
    )


def quantise_activation(
    values: Float[ndarray, "..."], quantizer: ActivationQuantizer
) -> UInt8[ndarray, "..."]:
    """Return codes in 0..255: saturate(round half to even(x / scale) + zero point)."""
    steps = np.rint(np.asarray(values, dtype=np.float32) / np.float32(quantizer.scale))
    codes: ndarray = np.clip(steps + np.float32(quantizer.zero_point), 0, ACTIVATION_CODES)
    return codes.astype(np.uint8)


def dequantise_activation(
    codes: UInt8[ndarray, "..."], quantizer: ActivationQuantizer
) -> Float32[ndarray, "..."]:
    """Return (code - zero point) x scale."""
    offsets = codes.astype(np.float32) - np.float32(quantizer.zero_point)
    values: ndarray = offsets * np.float32(quantizer.scale)
    return values


@final
@dataclass(frozen=True, kw_only=True)
class IntegerQuantizer(AbstractQuantizer):
    """Symmetric integers of 2 to 8 bits; see `quantise_weight`."""

    def _fake_quantise(
        self, weight: Float32[ndarray, "..."], number: TensorFormat, *, axis: int, name: str
    ) -> Float32[ndarray, "..."]:
        return quantise_weight(weight, number, axis=axis, name=name).dequantise()


def _check_format(number: TensorFormat) -> None:
    check_kind(number, kind="integer", bits=WEIGHT_BITS)
    if not number.symmetric or number.dynamic:
        raise FormatError(
            "A weight format is asymmetric or dynamic. Expected symmetric and static weights. "
            "Choose symmetric=True, dynamic=False."
        )


def _blocks(
    values: Float32[ndarray, "..."], number: TensorFormat, *, axis: int, name: str
) -> tuple[Float32[ndarray, "..."], tuple[int, ...], int | None]:
    """Return a view in which each scale covers `axes`, these axes, and the group size."""
    if number.granularity is Granularity.TENSOR:
        return values, tuple(range(values.ndim)), None
    if number.granularity is Granularity.CHANNEL:
        if not -values.ndim <= axis < values.ndim:
            raise FormatError(
                f"Tensor {name!r} of shape {values.shape} has no axis {axis}. Expected one scale "
                "per output channel. Pass the axis of output channels."
            )
        channel = axis % values.ndim
        return values, tuple(each for each in range(values.ndim) if each != channel), None
    size = number.group_size
    if size is None or size < 1 or values.ndim != _MATRIX or values.shape[1] % size:
        raise FormatError(
            f"Tensor {name!r} of shape {values.shape} cannot be cut into groups of {size}. "
            "Expected a matrix (outputs, inputs) whose inputs are a multiple of the group size. "
            "Give this layer another format."
        )
    return values.reshape(values.shape[0], -1, size), (2,), size


def _spread(
    scale: Float32[ndarray, "..."], *, axis: int, dimensions: int
) -> Float32[ndarray, "..."]:
    if scale.ndim == 0:
        return scale
    shape = [1] * dimensions
    shape[axis] = -1
    return scale.reshape(shape)
