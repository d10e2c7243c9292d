"""Whole-number codes and back, and products of codes.

A QuantizeLinear that only DequantizeLinear reads keeps its codes as floating numbers and hands
gradients straight through its rounding, where codes are not cut off (Bengio et al., 2013,
arXiv:1308.3432), so that float layers before a quantised tensor keep their gradients.
"""

from collections.abc import Mapping
from typing import Any, Final

import torch
from onnx import TensorProto
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.conversion import converted
from mpsearch.tracing.onnx_import.graph import STRAIGHT_THROUGH
from mpsearch.tracing.onnx_import.operators.convolution import convolved
from mpsearch.tracing.onnx_import.tensors import torch_type

_RANGES: Final[Mapping[int, tuple[int, int]]] = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT32: (-(2**31), 2**31 - 1),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
    TensorProto.INT2: (-2, 1),
    TensorProto.UINT2: (0, 3),
}


def _quantize(call: NodeCall) -> Tensor:
    value, scale = call.tensor(0), call.tensor(1)
    zero = call.optional(2)
    kind = call.element_type(2) if zero is not None else call.attribute("output_dtype", 0)
    kind = kind or TensorProto.UINT8
    scale = _spread(call, scale, like=value).to(value.dtype)
    scaled = value / scale
    if kind not in _RANGES:
        return converted(scaled, kind, saturate=bool(call.attribute("saturate", 1)))
    low, high = _RANGES[kind]
    codes = scaled + (scaled.round() - scaled).detach() if _is_straight(call) else scaled.round()
    if zero is not None:
        codes = codes + _spread(call, zero, like=value).to(value.dtype)
    codes = codes.clamp(low, high)
    return codes if _is_straight(call) else codes.to(torch_type(kind, name=call.node.title))


def _is_straight(call: NodeCall) -> bool:
    return bool(call.attribute(STRAIGHT_THROUGH, 0))


def _dequantize(call: NodeCall) -> Tensor:
    codes, scale, zero = call.tensor(0), call.tensor(1), call.optional(2)
    wide = codes.to(scale.dtype) if not codes.is_floating_point() else codes.float()
    spread = _spread(call, scale, like=codes)
    if zero is not None:
        wide = wide - _spread(call, zero, like=codes).to(wide.dtype)
    return (wide * spread).to(scale.dtype)


def _spread(call: NodeCall, numbers: Tensor, *, like: Tensor) -> Tensor:
    """Return one number per tensor, channel or block in a shape that broadcasts."""
    if numbers.ndim == 0 or (numbers.ndim == 1 and like.ndim == 0):
        return numbers.reshape(())
    axis = call.attribute("axis", 1)
    axis = axis + like.ndim if axis < 0 else axis
    block = call.attribute("block_size", 0)
    if block or numbers.ndim > 1:
        wide = numbers.repeat_interleave(block, dim=axis)
        return wide.narrow(axis, 0, like.shape[axis])
    if numbers.shape[0] == 1:
        return numbers
    shape = [1] * like.ndim
    shape[axis] = -1
    return numbers.reshape(shape)


def _dynamic_quantize(call: NodeCall) -> list[Tensor]:
    value = call.tensor(0)
    low = torch.minimum(value.amin(), torch.zeros(()))
    high = torch.maximum(value.amax(), torch.zeros(()))
    scale = (high - low) / 255
    safe = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / safe).clamp(0, 255).round()
    codes = ((value / safe).round() + zero).clamp(0, 255)
    return [codes.to(torch.uint8), scale, zero.to(torch.uint8)]


def _shifted(codes: Tensor, zero: Tensor | None, *, axis: int | None = None) -> Tensor:
    """Return codes less their zero point, as floating numbers that hold them exactly."""
    wide = codes.double()
    if zero is None:
        return wide
    if axis is not None and zero.ndim == 1 and zero.shape[0] != 1:
        shape = [1] * codes.ndim
        shape[axis] = -1
        zero = zero.reshape(shape)
    return wide - zero.double()


def _matmul_integer(call: NodeCall) -> Tensor:
    first = _shifted(call.tensor(0), call.optional(2), axis=call.tensor(0).ndim - 2)
    second = _shifted(call.tensor(1), call.optional(3), axis=call.tensor(1).ndim - 1)
    return torch.matmul(first, second).to(torch.int32)


def _conv_integer(call: NodeCall) -> Tensor:
    value = _shifted(call.tensor(0), call.optional(2))
    weight = _shifted(call.tensor(1), call.optional(3), axis=0)
    return convolved(call, value, weight=weight, bias=None).to(torch.int32)


def _requantised(call: NodeCall, value: Tensor, *, scale: Tensor, place: int) -> Tensor:
    """Return the value in codes of the output's scale (`place`) and zero point (the next)."""
    zero = call.tensor(place + 1)
    low, high = _RANGES[call.element_type(place + 1)]
    codes = (value * (scale / call.tensor(place).double())).round() + zero.double()
    return codes.clamp(low, high).to(zero.dtype)


def _qlinear_matmul(call: NodeCall) -> Tensor:
    first, second = call.tensor(0), call.tensor(3)
    product = torch.matmul(
        _shifted(first, call.tensor(2), axis=first.ndim - 2),
        _shifted(second, call.tensor(5), axis=second.ndim - 1),
    )
    scale = _column(call.tensor(1)).double() * call.tensor(4).double()
    return _requantised(call, product, scale=scale, place=6)


def _column(scale: Tensor) -> Tensor:
    return scale.unsqueeze(-1) if scale.ndim == 1 and scale.shape[0] != 1 else scale


def _qlinear_conv(call: NodeCall) -> Tensor:
    value = _shifted(call.tensor(0), call.tensor(2))
    weight = _shifted(call.tensor(3), call.tensor(5), axis=0)
    bias = call.optional(8)
    done = convolved(call, value, weight=weight, bias=None if bias is None else bias.double())
    scale = call.tensor(1).double() * call.tensor(4).double()
    if scale.ndim and scale.shape[0] != 1:
        scale = scale.reshape(1, -1, *([1] * (value.ndim - 2)))
    return _requantised(call, done, scale=scale, place=6)


def _cast(call: NodeCall) -> Any:  # noqa: ANN401 - as every operator
    saturate = bool(call.attribute("saturate", 1))
    kind = call.needed("to", int)
    up = call.attribute("round_mode", "up")
    return converted(call.tensor(0), kind, saturate=saturate, round_mode=up)


def _cast_like(call: NodeCall) -> Tensor:
    return converted(
        call.tensor(0), call.element_type(1), saturate=bool(call.attribute("saturate", 1))
    )


def _bit_cast(call: NodeCall) -> Tensor:
    return call.tensor(0).view(torch_type(call.needed("to", int), name=call.node.title))


QUANTISATION: Final[Operators] = {
    "BitCast": _bit_cast,
    "Cast": _cast,
    "CastLike": _cast_like,
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _matmul_integer,
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QuantizeLinear": _quantize,
}
