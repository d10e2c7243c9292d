"""Numbers of one element type of ONNX in another, with its rules beyond the range."""

from collections.abc import Mapping
from typing import Final

import torch
from onnx import TensorProto
from torch import Tensor

from mpsearch.tracing.onnx_import.tensors import torch_type

_BITS: Final[Mapping[int, int]] = {
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
}
_UNSIGNED = frozenset({TensorProto.UINT4, TensorProto.UINT2})
_SMALL_FLOATS = {
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.FLOAT8E4M3FNUZ: torch.float8_e4m3fnuz,
    TensorProto.FLOAT8E5M2: torch.float8_e5m2,
    TensorProto.FLOAT8E5M2FNUZ: torch.float8_e5m2fnuz,
}


def converted(
    value: Tensor, data_type: int, *, saturate: bool = True, round_mode: str = "up"
) -> Tensor:
    """Return the numbers in an element type of ONNX.

    Whole numbers of 2 and 4 bits wrap around. Floats of 8 bits are cut off at their largest
    number with `saturate`, and become infinite, or NaN where there is no infinity, without.

    Raises:
        ModelError: Torch has no such type.
    """
    dtype = torch_type(data_type, name="output")
    if value.dtype == dtype and data_type not in _BITS:
        return value
    if data_type in _BITS:
        return _wrapped(value, bits=_BITS[data_type], signed=data_type not in _UNSIGNED).to(dtype)
    if data_type in _SMALL_FLOATS:
        return _small_float(value.float(), dtype, saturate=saturate)
    if data_type == TensorProto.FLOAT8E8M0:
        return _power_of_two(value.float(), round_mode=round_mode)
    return value.to(dtype)


def _wrapped(value: Tensor, *, bits: int, signed: bool) -> Tensor:
    count = 2**bits
    offset = count // 2 if signed else 0
    return torch.remainder(value.to(torch.int32) + offset, count) - offset


def _small_float(value: Tensor, dtype: torch.dtype, *, saturate: bool) -> Tensor:
    largest = torch.finfo(dtype).max
    if saturate:
        # NaN stays NaN; infinities are cut off too.
        return torch.where(value.isnan(), value, value.clamp(-largest, largest)).to(dtype)
    beyond = float("inf") if dtype is torch.float8_e5m2 else float("nan")
    cut = value.clamp(-largest, largest).to(dtype)
    # The largest number is 1.75 powers of two in each type: half a step beyond is too far.
    mantissa_bits = 2 if dtype in (torch.float8_e5m2, torch.float8_e5m2fnuz) else 3
    over = value.abs() >= largest + largest / 1.75 * 2.0**-mantissa_bits / 2
    far = torch.copysign(torch.full_like(value, beyond), value).to(dtype)
    wide = torch.where(over | value.isnan(), far.float(), cut.float())
    return torch.where(value.isnan(), value, wide).to(dtype)


def _power_of_two(value: Tensor, *, round_mode: str) -> Tensor:
    exponent = torch.log2(value.abs().double())
    rounded = {"up": torch.ceil, "down": torch.floor, "nearest": torch.round}[round_mode](exponent)
    powers = torch.exp2(rounded.clamp(-127, 127)).float()
    return powers.to(torch.float8_e8m0fnu)
