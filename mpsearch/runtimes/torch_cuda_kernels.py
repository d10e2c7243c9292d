"""Layers as kernels for NVIDIA GPUs: products of int8, of floats of 8 bits, and by int4 weights.

Each function takes tensors of any device: torch has the same operators on the processor, where
their arithmetic is tested. What the GPU alone asks for (sizes, rows) is asked for here too.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

import numpy as np
import torch
from jaxtyping import BFloat16, Float, Float32, Int8, Int32, UInt8
from torch import Tensor

from mpsearch.quant.float8 import LARGEST_FLOAT8
from mpsearch.runtimes.torch_lowering import InputCodes, LayerWork
from mpsearch.tracing.onnx_import.call import NodeCall, Operator
from mpsearch.tracing.onnx_import.operators.convolution import padded, padding

# cuBLAS multiplies int8 from 17 rows on, and numbers in lines of 8, or 16 of floats of 8 bits.
_FEWEST_ROWS: Final = 17
_PADDED_ROWS: Final = 32
_LINE: Final = 8
_FLOAT8_LINE: Final = 16
_HALF: Final = 128  # codes without sign less this are codes with sign
_LARGEST_CODE: Final = 255
_INT4_ZERO: Final = 8  # the code of zero in torch's packed weights
_INT4_BITS: Final = 4
_INT4_LINE: Final = 16
_GROUPS: Final = (128, 64, 32)  # those torch has kernels for, but 256
_INNER: Final = (8, 4, 2)  # tiles of 16 inputs that a thread of the kernel reads at once
_TILE: Final = 16

_INT8: Final = torch._int_mm  # noqa: SLF001 - torch names its kernels so
_FLOAT8: Final = torch._scaled_mm  # noqa: SLF001 - the same
_PACK_HERE: Final = torch._convert_weight_to_int4pack_for_cpu  # noqa: SLF001 - the same
_INT4_HERE: Final = torch._weight_int4pack_mm_for_cpu  # noqa: SLF001 - the same
_PACK_ON_GPU: Final = torch._convert_weight_to_int4pack  # noqa: SLF001 - the same


def operators(
    works: Mapping[str, LayerWork], *, quantizers: Mapping[str, InputCodes], base: torch.dtype
) -> dict[str, Operator]:
    """Return how the nodes of layers and quantisers are computed, by their output tensor."""
    return {name: _layer(work, base=base) for name, work in works.items()} | {
        name: _quantizer(codes) for name, codes in quantizers.items()
    }


def product_of_codes(
    codes: UInt8[Tensor, "M K"],
    weight: Int8[Tensor, "N K"],
    *,
    scale: Float32[Tensor, " N"],
    shift: Float32[Tensor, " N"],
) -> Float32[Tensor, "M N"]:
    """Return codes x weight x scale + shift, the sums exact.

    The kernel takes numbers with sign, so 128 is taken off the codes, for which `shift_of`
    makes up; and it takes no fewer than 17 rows, so rows of zeros are added.
    """
    signed = codes.bitwise_xor(_HALF).view(torch.int8)
    rows = len(signed)
    if rows < _FEWEST_ROWS:
        signed = torch.constant_pad_nd(signed, [0, 0, 0, _PADDED_ROWS - rows])
    sums = _INT8(signed, weight.t())
    if rows < _FEWEST_ROWS:
        sums = sums.narrow(0, 0, rows)
    return torch.addcmul(shift, sums.float(), scale)


def shift_of(
    weight: Int8[Tensor, "N K"],
    *,
    scale: Float32[Tensor, " N"],
    zero_point: int,
    bias: Float32[Tensor, " N"] | None,
) -> Float32[Tensor, " N"]:
    """Return what `product_of_codes` adds: bias - (zero_point - 128) x sums of rows x scale."""
    sums = weight.to(torch.int64).sum(dim=1) * (zero_point - _HALF)
    shift = -(sums.double() * scale.double())
    return (shift if bias is None else shift + bias.double()).float()


def product_of_float8(
    numbers: Float[Tensor, "M K"],
    weight: Float[Tensor, "N K"],
    *,
    scales: tuple[Float32[Tensor, ""], Float32[Tensor, ""]],
    bias: Float[Tensor, " N"] | None,
    base: torch.dtype,
) -> Float[Tensor, "M N"]:
    """Return numbers x weight x both scales + bias; sums in float32, one rounding to the base.

    The kernel adds a bias of bfloat16 alone, so under float32 it is added after it.
    """
    is_inside = base == torch.bfloat16
    product = _FLOAT8(
        numbers,
        weight.t(),
        scale_a=scales[0],
        scale_b=scales[1],
        bias=bias if is_inside else None,
        out_dtype=base,
    )
    return product if is_inside or bias is None else product + bias


def to_float8(values: Float[Tensor, "..."], scale: Float32[Tensor, ""]) -> Float[Tensor, "..."]:
    """Return values / scale as E4M3, beyond it the largest number, as QuantizeLinear says."""
    cut = (values.float() / scale).clamp_(-LARGEST_FLOAT8, LARGEST_FLOAT8)
    return cut.to(torch.float8_e4m3fn)


def to_codes(
    values: Float[Tensor, "..."], scale: Float32[Tensor, ""], *, zero_point: int
) -> UInt8[Tensor, "..."]:
    """Return the codes of QuantizeLinear: half to even, then the zero point, then saturation.

    The scale is a tensor: on GPUs a division by a number is a product by its inverse.
    """
    scaled = values.float().div(scale).round_().add_(zero_point)
    return scaled.clamp_(0, _LARGEST_CODE).to(torch.uint8)


def int4_numbers(
    codes: Int8[Tensor, "N K"], scale: Float32[Tensor, "N G"]
) -> tuple[Int32[Tensor, "N K"], BFloat16[Tensor, "groups N 2"]]:
    """Return codes from 0 to 15, and scales with offsets of zero, in groups that kernels take.

    One scale per row is repeated. The kernel keeps scales in bfloat16: half a percent at most.
    """
    inputs = codes.shape[1]
    group = group_of(inputs) if scale.shape[1] == 1 else inputs // scale.shape[1]
    each = scale.expand(-1, inputs // group) if scale.shape[1] == 1 else scale
    scales = each.t().contiguous().to(torch.bfloat16)
    return codes.to(torch.int32) + _INT4_ZERO, torch.stack([scales, torch.zeros_like(scales)], -1)


def group_of(inputs: int) -> int:
    """Return the largest group that divides so many inputs, 0 where none does.

    Example:
        >>> group_of(384), group_of(96), group_of(40)
        (128, 32, 0)
    """
    return next((size for size in _GROUPS if inputs % size == 0), 0)


def packed_for_gpu(two: UInt8[Tensor, "N half"]) -> Int32[Tensor, "..."]:
    """Return `pairs` of codes as the kernel of GPUs reads them; runs there alone."""
    inputs = 2 * two.shape[1]
    inner = next(tiles for tiles in _INNER if inputs % (tiles * _TILE) == 0)
    return _PACK_ON_GPU(two, inner)


def pairs(codes: Int32[Tensor, "N K"]) -> UInt8[Tensor, "N half"]:
    """Return two codes in a byte, the first of them in its upper half.

    Example:
        >>> pairs(torch.tensor([[1, 2, 15, 0]], dtype=torch.int32)).tolist()
        [[18, 240]]
    """
    return (codes[:, ::2] << _INT4_BITS | codes[:, 1::2]).to(torch.uint8)


def _layer(work: LayerWork, *, base: torch.dtype) -> Operator:
    if work.is_convolution:
        return _convolution(work, base=base)
    if work.given is None:
        is_int4 = work.stored is not None and work.stored.bits == _INT4_BITS
        return _by_int4(work) if is_int4 and base == torch.bfloat16 else _linear(work, base=base)
    return _of_float8(work, base=base) if work.given.is_float8 else _of_codes(work, base=base)


def _quantizer(codes: InputCodes) -> Operator:
    scale = torch.tensor(codes.scale, dtype=torch.float32)
    if not codes.is_float8:
        return lambda call: to_codes(call.tensor(0), scale, zero_point=codes.zero_point)
    return lambda call: to_float8(call.tensor(0), scale)


def _linear(work: LayerWork, *, base: torch.dtype) -> Operator:
    weight, bias = _weight(work).to(base), _bias(work, base)
    return lambda call: torch.nn.functional.linear(call.tensor(0), weight, bias)


def _convolution(work: LayerWork, *, base: torch.dtype) -> Operator:
    weight, bias = _weight(work).to(base), _bias(work, base)
    size = list(work.weight.shape[2:])
    rank = len(size)

    def compute(call: NodeCall) -> Tensor:
        if work.given is not None:
            raise call.wrong("is a convolution of codes", "plain inputs: torch has no such kernel")
        strides = list(call.attribute("strides", (1,) * rank))
        dilations = list(call.attribute("dilations", (1,) * rank))
        value = call.tensor(0)
        pads = padding(call, value, kernel=size, strides=strides, dilations=dilations)
        value, even = padded(value, pads, number=0.0)
        groups = call.attribute("group", 1)
        return torch.convolution(
            value, weight, bias, strides, even, dilations, False, [0] * rank, groups
        )  # fmt: skip

    return compute


def _of_codes(work: LayerWork, *, base: torch.dtype) -> Operator:
    assert work.given is not None
    assert work.scale is not None
    weight = whole_lines(_weight(work), line=_LINE)
    scale = whole_lines(torch.from_numpy(work.scale.copy()) * work.given.scale, line=_LINE)
    bias = whole_lines(_bias(work, torch.float32), line=_LINE)
    shift = shift_of(weight, scale=scale, zero_point=work.given.zero_point, bias=bias)

    def product(rows: Tensor) -> Tensor:
        return product_of_codes(rows, weight, scale=scale, shift=shift).to(base)

    return _by_rows(product, work, line=_LINE)


def _of_float8(work: LayerWork, *, base: torch.dtype) -> Operator:
    assert work.given is not None
    assert work.scale is not None
    weight = whole_lines(_weight(work), line=_FLOAT8_LINE).to(torch.float8_e4m3fn)
    scales = (torch.tensor(work.given.scale), torch.tensor(float(work.scale[0])))
    bias = whole_lines(_bias(work, base), line=_FLOAT8_LINE)

    def product(rows: Tensor) -> Tensor:
        return product_of_float8(rows, weight, scales=scales, bias=bias, base=base)

    return _by_rows(product, work, line=_FLOAT8_LINE)


def _by_int4(work: LayerWork) -> Operator:
    codes, scales = int4_of(work)
    if not len(scales):
        return _refusing(work, line=_GROUPS[-1])
    bias = whole_lines(_bias(work, torch.bfloat16), line=_INT4_LINE)
    group = codes.shape[1] // len(scales)
    packed = _PACK_HERE(codes, _INNER[-1])

    def product(rows: Tensor) -> Tensor:
        found = _INT4_HERE(rows.contiguous(), packed, group, scales)
        return found if bias is None else found + bias

    return _by_rows(product, work, line=_GROUPS[-1])


def int4_of(work: LayerWork) -> tuple[Int32[Tensor, "N K"], BFloat16[Tensor, "groups N 2"]]:
    """Return the codes and scales of a layer with weights of 4 bits; no scales if none fit."""
    assert work.stored is not None
    codes = whole_lines(torch.from_numpy(work.stored.codes.copy()), line=_INT4_LINE)
    numbers = work.stored.scale.astype(np.float32).reshape(len(work.stored.codes), -1)
    scale = whole_lines(torch.from_numpy(numbers.copy()), line=_INT4_LINE)
    size = codes.shape[1] // scale.shape[1]
    if not group_of(codes.shape[1]) or (scale.shape[1] > 1 and size not in _GROUPS):
        return codes.to(torch.int32), torch.zeros(0, len(codes), 2, dtype=torch.bfloat16)
    return int4_numbers(codes, scale)


_Maybe = TypeVar("_Maybe", Tensor, Tensor | None)


def whole_lines(values: _Maybe, *, line: int) -> _Maybe:
    """Return a tensor whose first axis, outputs, is a multiple of `line`: zeros are added.

    Example:
        >>> whole_lines(torch.ones(3), line=4).tolist()
        [1.0, 1.0, 1.0, 0.0]
    """
    if values is None:
        return values
    added = [0, 0] * (values.ndim - 1) + [0, -len(values) % line]
    return torch.nn.functional.pad(values, added)


def _by_rows(product: Callable[[Tensor], Tensor], work: LayerWork, *, line: int) -> Operator:
    """Return an operator that sees its input as a matrix, where the kernel takes its length."""
    outputs, inputs = work.weight.shape

    def compute(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        found = product(value.reshape(-1, inputs)).narrow(1, 0, outputs)
        return found.reshape(*value.shape[:-1], outputs)

    return compute if inputs % line == 0 else _refusing(work, line=line)


def _refusing(work: LayerWork, *, line: int) -> Operator:
    inputs = work.weight.shape[1]

    def compute(call: NodeCall) -> Tensor:
        raise call.wrong(
            f"has {inputs} inputs in a format of few bits",
            f"a multiple of {line}, which kernels of GPUs multiply",
        )

    return compute


def _weight(work: LayerWork) -> Tensor:
    return torch.from_numpy(work.weight.copy())


def _bias(work: LayerWork, kind: torch.dtype) -> Tensor | None:
    return None if work.bias is None else torch.from_numpy(work.bias.copy()).to(kind)
