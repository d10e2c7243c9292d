"""Layers as kernels of oneDNN in torch: weights are packed once, for the first input's shape."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, TypeAlias, final

import torch
from torch import Tensor

from mpsearch.runtimes.torch_lowering import InputCodes, LayerWork
from mpsearch.tracing.onnx_import.call import NodeCall, Operator
from mpsearch.tracing.onnx_import.operators.convolution import padded, padding

_LARGEST_CODE: Final = 255
_NOTHING_BEHIND: Final[tuple[str, list[Any], str]] = ("none", [], "")  # no operator is fused
_PACK_LINEAR: Final = torch.ops.mkldnn._reorder_linear_weight  # noqa: SLF001 - torch names its kernels so
_LINEAR: Final = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - the same
_PACK_CONVOLUTION: Final = torch.ops.mkldnn._reorder_convolution_weight  # noqa: SLF001 - the same
_CONVOLUTION: Final = torch.ops.mkldnn._convolution_pointwise  # noqa: SLF001 - the same
_PLANE: Final = 2  # dimensions of an image
_ONE_SCALE: Final = 1.0  # of outputs that are no codes


def operators(
    works: Mapping[str, LayerWork], *, quantizers: Mapping[str, InputCodes], base: torch.dtype
) -> dict[str, Operator]:
    """Return how the nodes of layers and quantisers are computed, by their output tensor."""
    return {name: _layer(work, base=base) for name, work in works.items()} | {
        name: _quantize(codes) for name, codes in quantizers.items()
    }


def _layer(work: LayerWork, *, base: torch.dtype) -> Operator:
    if work.is_convolution:
        return _convolution(work, base=base)
    return _linear(work, base=base) if work.given is None else _linear_of_codes(work, base=base)


def _quantize(codes: InputCodes) -> Operator:
    def compute(call: NodeCall) -> Tensor:
        # As QuantizeLinear: half to even, then the zero point, then saturation; in place but
        # for the division, which leaves the input alone.
        scaled = call.tensor(0).float().div(codes.scale).round_().add_(codes.zero_point)
        return scaled.clamp_(0, _LARGEST_CODE).to(torch.uint8)

    return compute


def _linear(work: LayerWork, *, base: torch.dtype) -> Operator:
    weight, bias = _weight(work).to(base), _bias(work, base)

    @cache
    def packed(rows: int) -> Tensor:
        return _tensor(_PACK_LINEAR(weight, rows))

    def compute(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        rows = value.numel() // value.shape[-1]
        return _tensor(_LINEAR(value, packed(rows), bias, *_NOTHING_BEHIND))

    return compute


def _linear_of_codes(work: LayerWork, *, base: torch.dtype) -> Operator:
    given, scale, zeros, bias = _of_codes(work)
    codes = _weight(work)

    @cache
    def packed(rows: int) -> Tensor:
        return _tensor(torch.ops.onednn.qlinear_prepack(codes, [rows, codes.shape[1]]))

    def compute(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        weight = packed(value.numel() // value.shape[-1])
        return _tensor(
            torch.ops.onednn.qlinear_pointwise(
                value, given.scale, given.zero_point, weight, scale, zeros, bias,
                _ONE_SCALE, 0, base, *_NOTHING_BEHIND,
            )
        )  # fmt: skip

    return compute


@final
@dataclass(frozen=True, kw_only=True)
class _Window:
    """How a kernel moves over a plane."""

    strides: list[int]
    pads: list[int]
    dilations: list[int]
    groups: int

    def of_a_plane(self) -> "_Window":
        """Return the same over a plane of height 1, where it moves over a line."""
        if len(self.strides) == _PLANE:
            return self
        return _Window(
            strides=[1, *self.strides],
            pads=[0, *self.pads],
            dilations=[1, *self.dilations],
            groups=self.groups,
        )


_OverPlane: TypeAlias = Callable[[Tensor, _Window], Tensor]


def _convolution(work: LayerWork, *, base: torch.dtype) -> Operator:
    kernel = _float_plane(work, base=base) if work.given is None else _coded_plane(work, base=base)
    number = 0.0 if work.given is None else float(work.given.zero_point)
    size = list(work.weight.shape[2:])
    rank = len(size)

    def compute(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        if rank > _PLANE:
            raise call.wrong(f"runs over {rank} dimensions", "1 or 2, which oneDNN is called for")
        strides = list(call.attribute("strides", (1,) * rank))
        dilations = list(call.attribute("dilations", (1,) * rank))
        pads = padding(call, value, kernel=size, strides=strides, dilations=dilations)
        value, even = padded(value, pads, number=number)
        groups = call.attribute("group", 1)
        window = _Window(strides=strides, pads=even, dilations=dilations, groups=groups)
        if rank == _PLANE:
            return kernel(value, window)
        return kernel(value.unsqueeze(2), window.of_a_plane()).squeeze(2)

    return compute


def _float_plane(work: LayerWork, *, base: torch.dtype) -> _OverPlane:
    weight, bias = _plane(_weight(work)).to(base), _bias(work, base)
    packed: dict[torch.Size, Tensor] = {}

    def compute(value: Tensor, window: _Window) -> Tensor:
        if value.shape not in packed:
            packed[value.shape] = _PACK_CONVOLUTION(
                weight, window.pads, window.strides, window.dilations, window.groups,
                list(value.shape),
            )  # fmt: skip
        return _tensor(
            _CONVOLUTION(
                value, packed[value.shape], bias, window.pads, window.strides, window.dilations,
                window.groups, *_NOTHING_BEHIND,
            )
        )  # fmt: skip

    return compute


def _coded_plane(work: LayerWork, *, base: torch.dtype) -> _OverPlane:
    given, scale, zeros, bias = _of_codes(work)
    codes = _plane(_weight(work))
    packed: dict[torch.Size, Tensor] = {}

    def compute(value: Tensor, window: _Window) -> Tensor:
        if value.shape not in packed:
            packed[value.shape] = torch.ops.onednn.qconv_prepack(
                codes, scale, given.scale, given.zero_point, window.strides, window.pads,
                window.dilations, window.groups, list(value.shape),
            )  # fmt: skip
        return _tensor(
            torch.ops.onednn.qconv2d_pointwise(
                value, given.scale, given.zero_point, packed[value.shape], scale, zeros, bias,
                window.strides, window.pads, window.dilations, window.groups, _ONE_SCALE, 0, base,
                *_NOTHING_BEHIND,
            )
        )  # fmt: skip

    return compute


def _of_codes(work: LayerWork) -> tuple[InputCodes, Tensor, Tensor, Tensor | None]:
    assert work.given is not None
    assert work.scale is not None
    scale = torch.from_numpy(work.scale.copy())
    return work.given, scale, torch.zeros(len(scale), dtype=torch.int64), _bias(work, torch.float32)


def _weight(work: LayerWork) -> Tensor:
    return torch.from_numpy(work.weight.copy())


def _bias(work: LayerWork, kind: torch.dtype) -> Tensor | None:
    return None if work.bias is None else torch.from_numpy(work.bias.copy()).to(kind)


def _plane(weight: Tensor) -> Tensor:
    return weight if weight.ndim == _PLANE + 2 else weight.unsqueeze(2)


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)  # torch does not type its operators
    return value
