"""Integer numbers: weights with and without a zero point, activations of 8 bits with one.

Both round half to even and saturate, as ONNX QuantizeLinear does, so that the simulation
and the file hold the same bits.
"""

import math
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int8, UInt8
from numpy import ndarray

from mpsearch.core.formats import Clipping, Granularity, TensorFormat
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import FormatError
from mpsearch.quant.clipping import least_squares_ranges, least_squares_scales
from mpsearch.quant.quantizer import AbstractQuantizer, as_finite_float32, check_kind

WEIGHT_BITS: Final = frozenset(range(2, 9))
ACTIVATION_CODES: Final = 255  # the largest code of 8 bits without sign
# Smaller scales are denormal, which processors flush to zero at will.
_SMALLEST_SCALE: Final = np.finfo(np.float32).tiny
_MATRIX: Final = 2  # dimensions


@final
@dataclass(frozen=True, kw_only=True)
class QuantisedTensor:
    """Whole-number `codes`, the float32 `scale` that turns them back, and codes of zero.

    `scale` has shape () for one scale per tensor, (C,) for one per index of `axis`, and
    (rows, groups) for one per `group_size` neighbours of a row. So has `zero_point`, which is
    None where codes are symmetric about 0.
    """

    codes: Int8[ndarray, "..."]
    scale: Float32[ndarray, "..."]
    bits: int
    axis: int = 0
    group_size: int | None = None
    zero_point: Int8[ndarray, "..."] | None = None

    def dequantise(self) -> Float32[ndarray, "..."]:
        """Return (codes - zero point) x scale, one float32 multiplication each."""
        steps = self.codes.astype(np.float32)
        if self.zero_point is not None:
            steps -= self._spread(self.zero_point).astype(np.float32)
        values: ndarray = steps * self._spread(self.scale)
        return values

    def _spread(self, each: ndarray) -> ndarray:
        """Return one number per block in a shape that meets the codes."""
        if self.group_size is not None:
            return np.repeat(each, self.group_size, axis=1)
        if each.ndim == 0:
            return each
        shape = [1] * self.codes.ndim
        shape[self.axis] = -1
        return each.reshape(shape)


def quantise_weight(
    weight: Float[ndarray, "..."],
    number: TensorFormat,
    *,
    axis: int = 0,
    name: str = "weight",
) -> QuantisedTensor:
    """Quantise a weight to its nearest codes, ties to the even one; zero stays zero.

    Symmetric: scale = max|w| / (2**(bits - 1) - 1), and codes use the 2**bits - 1 values
    around zero; an all-zero channel gets scale 1. Scheme: Yao et al. (2021), HAWQ-V3, section
    3. Asymmetric: scale = (high - low) / (2**bits - 1) over the range of the weight, widened
    to hold zero, all codes in use. With MSE clipping (`quant.clipping`) the range is the
    one of least squared error instead, where that is less than of the whole range.

    Args:
        weight: Any shape; finite. Groups need a matrix (outputs, inputs).
        number: Integer, static, 2 to 8 bits.
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
        >>> quantise_weight(weight, format_named("w8-asymmetric").weight).codes.tolist()
        [[127, -128], [-128, 127]]
    """
    _check_format(number)
    values = as_finite_float32(weight, name)
    rows, shape = _rows(values, number, axis=axis, name=name)
    lattice = _whole_lattice(rows, number)
    if number.clipping is Clipping.MSE:
        lattice = _better(lattice, _clipped_lattice(rows, number), rows=rows)
    codes = lattice.codes(rows).astype(np.int8)
    is_channel = number.granularity is Granularity.CHANNEL
    return QuantisedTensor(
        codes=_back(codes, values, axis=axis) if is_channel else codes.reshape(values.shape),
        scale=lattice.scale.reshape(shape),
        bits=number.bits,
        axis=axis,
        group_size=number.group_size,
        zero_point=None if number.symmetric else lattice.zero.reshape(shape).astype(np.int8),
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
    """Integers of 2 to 8 bits; see `quantise_weight`."""

    def _fake_quantise(
        self, weight: Float32[ndarray, "..."], number: TensorFormat, *, axis: int, name: str
    ) -> Float32[ndarray, "..."]:
        return quantise_weight(weight, number, axis=axis, name=name).dequantise()


def _check_format(number: TensorFormat) -> None:
    check_kind(number, kind="integer", bits=WEIGHT_BITS)
    if number.dynamic or number.granularity is Granularity.TOKEN:
        raise FormatError(
            "A weight format is dynamic or has scales per token. Expected what is known before "
            "anything runs. Choose dynamic=False and a scale per tensor, channel or group."
        )


@final
@dataclass(frozen=True, kw_only=True)
class _Lattice:
    """The numbers that codes from `low` to `high` stand for, one scale and zero per row."""

    scale: Float32[ndarray, "B 1"]
    zero: Float32[ndarray, "B 1"]
    low: int
    high: int

    def codes(self, rows: Float32[ndarray, "B N"]) -> Float32[ndarray, "B N"]:
        found: ndarray = np.clip(np.rint(rows / self.scale) + self.zero, self.low, self.high)
        return found

    def error(self, rows: Float32[ndarray, "B N"]) -> Float64[ndarray, "B 1"]:
        stored = (self.codes(rows) - self.zero) * self.scale
        total: ndarray = np.square(stored.astype(np.float64) - rows).sum(axis=1, keepdims=True)
        return total


def _whole_lattice(rows: Float32[ndarray, "B N"], number: TensorFormat) -> _Lattice:
    if not number.symmetric:
        low = rows.min(axis=1, keepdims=True, initial=0.0).astype(np.float64)
        high = rows.max(axis=1, keepdims=True, initial=0.0)
        return _asymmetric(low, high, bits=number.bits)
    largest = _largest_code(number.bits)
    peak = np.abs(rows).max(axis=1, keepdims=True, initial=0.0)
    return _symmetric(peak / np.float32(largest), largest=largest)


def _clipped_lattice(rows: Float32[ndarray, "B N"], number: TensorFormat) -> _Lattice:
    if number.symmetric:
        largest = _largest_code(number.bits)
        scales = least_squares_scales(rows, largest_code=largest)
        return _symmetric(scales[:, None], largest=largest)
    low, high = least_squares_ranges(rows, codes=2**number.bits).T[:, :, None]
    return _asymmetric(low, high, bits=number.bits)


def _symmetric(scale: Float[ndarray, "B 1"], *, largest: int) -> _Lattice:
    safe = np.where(scale > 0, np.maximum(scale, _SMALLEST_SCALE), 1.0).astype(np.float32)
    return _Lattice(scale=safe, zero=np.zeros_like(safe), low=-largest, high=largest)


def _asymmetric(
    low: Float64[ndarray, "B 1"], high: Float[ndarray, "B 1"], *, bits: int
) -> _Lattice:
    """Return the lattice of a range that holds zero; zero itself gets a code."""
    first, last = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    scale = (high - low) / (last - first)
    safe = np.where(scale > 0, np.maximum(scale, _SMALLEST_SCALE), 1.0).astype(np.float32)
    zero = np.clip(first - np.rint(low / safe.astype(np.float64)), first, last)
    return _Lattice(scale=safe, zero=zero.astype(np.float32), low=first, high=last)


def _better(whole: _Lattice, clipped: _Lattice, *, rows: Float32[ndarray, "B N"]) -> _Lattice:
    """Return for each row the clipped lattice where it loses less, rounding included."""
    is_less = clipped.error(rows) < whole.error(rows)
    return replace(
        whole,
        scale=np.where(is_less, clipped.scale, whole.scale),
        zero=np.where(is_less, clipped.zero, whole.zero),
    )


def _largest_code(bits: int) -> int:
    return (1 << (bits - 1)) - 1


def _rows(
    values: Float32[ndarray, "..."], number: TensorFormat, *, axis: int, name: str
) -> tuple[Float32[ndarray, "B N"], tuple[int, ...]]:
    """Return the numbers that share a scale as rows, and the shape that scales have.

    Rows are copied into one order, since sums depend on it in the last bit.
    """
    if number.granularity is Granularity.TENSOR:
        return values.reshape(1, -1), ()
    if number.granularity is Granularity.CHANNEL:
        if not -values.ndim <= axis < values.ndim:
            raise FormatError(
                f"Tensor {name!r} of shape {values.shape} has no axis {axis}. Expected one scale "
                "per output channel. Pass the axis of output channels."
            )
        moved = np.ascontiguousarray(np.moveaxis(values, axis, 0))
        size = math.prod(moved.shape[1:])
        return moved.reshape(len(moved), size), (len(moved),)
    size = number.group_size or 0
    if size < 1 or values.ndim != _MATRIX or values.shape[1] % size:
        raise FormatError(
            f"Tensor {name!r} of shape {values.shape} cannot be cut into groups of "
            f"{number.group_size}. Expected a matrix (outputs, inputs) whose inputs are a multiple "
            "of the group size. Give this layer another format."
        )
    groups = values.shape[1] // size
    return np.ascontiguousarray(values).reshape(-1, size), (len(values), groups)


def _back(
    codes: Int8[ndarray, "B N"], values: Float32[ndarray, "..."], *, axis: int
) -> Int8[ndarray, "..."]:
    moved = np.moveaxis(values, axis, 0).shape
    return np.moveaxis(codes.reshape(moved), 0, axis)
