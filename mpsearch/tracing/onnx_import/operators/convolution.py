"""Convolutions."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.values import Size, larger

CONVOLUTIONS: Final[Sequence[Callable[..., Tensor]]] = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
)
_TRANSPOSED: Final[Sequence[Callable[..., Tensor]]] = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)


def _conv(call: NodeCall) -> Tensor:
    return convolved(call, call.tensor(0), weight=call.tensor(1), bias=call.optional(2))


def convolved(call: NodeCall, value: Tensor, *, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the convolution that the node's attributes describe."""
    kernel = list(weight.shape[2:])
    rank = _rank(call, value, among=CONVOLUTIONS)
    strides = list(call.attribute("strides", (1,) * rank))
    dilations = list(call.attribute("dilations", (1,) * rank))
    pads = padding(call, value, kernel=kernel, strides=strides, dilations=dilations)
    value, even = padded(value, pads, number=0.0)
    return CONVOLUTIONS[rank - 1](
        value, weight, bias, strides, even, dilations, call.attribute("group", 1)
    )


def _rank(call: NodeCall, value: Tensor, *, among: Sequence[object]) -> int:
    rank = value.ndim - 2
    if not 1 <= rank <= len(among):
        raise call.wrong(f"runs over {rank} dimensions", f"1 to {len(among)}")
    return rank


def padding(
    call: NodeCall,
    value: Tensor,
    *,
    kernel: Sequence[Any],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[Size, Size]]:
    """Return the numbers to add before and after each dimension."""
    rank, mode = len(kernel), call.attribute("auto_pad", "NOTSET")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        return [
            _same(
                size,
                kernel=kernel[i],
                stride=strides[i],
                dilation=dilations[i],
                is_upper=mode == "SAME_UPPER",
            )
            for i, size in enumerate(value.shape[2:])
        ]
    pads = (0,) * (2 * rank) if mode == "VALID" else call.attribute("pads", (0,) * (2 * rank))
    return list(zip(pads[:rank], pads[rank:], strict=True))


def _same(
    size: Any,  # noqa: ANN401 - a number or a symbol
    *,
    kernel: Any,  # noqa: ANN401 - as above
    stride: int,
    dilation: int,
    is_upper: bool,
) -> tuple[Size, Size]:
    reach = (kernel - 1) * dilation + 1
    steps = (size + stride - 1) // stride
    total = larger((steps - 1) * stride + reach - size, 0)
    small, large = total // 2, total - total // 2
    return (small, large) if is_upper else (large, small)


def padded(
    value: Tensor, pads: Sequence[tuple[Any, Any]], *, number: float
) -> tuple[Tensor, list[Any]]:
    """Return the tensor, padded where both sides differ, and the padding left to the operator."""
    if all(isinstance(low, int) and low == high for low, high in pads):
        return value, [low for low, _ in pads]
    flat = [each for pair in reversed(pads) for each in pair]
    return functional.pad(value, flat, value=number), [0] * len(pads)


def _conv_transpose(call: NodeCall) -> Tensor:
    value, weight, bias = call.tensor(0), call.tensor(1), call.optional(2)
    rank = _rank(call, value, among=_TRANSPOSED)
    kernel = list(weight.shape[2:])
    strides = list(call.attribute("strides", (1,) * rank))
    dilations = list(call.attribute("dilations", (1,) * rank))
    more = list(call.attribute("output_padding", (0,) * rank))
    full = [
        (size - 1) * stride + (reach - 1) * dilation + 1
        for size, stride, reach, dilation in zip(
            value.shape[2:], strides, kernel, dilations, strict=True
        )
    ]
    cuts = _cuts(call, value, full=full, strides=strides, more=more)
    # The whole output without padding, of which the padding then cuts the edges.
    done = _TRANSPOSED[rank - 1](
        value, weight, None, strides, 0, 0, call.attribute("group", 1), dilations
    )
    for place, (low, high) in enumerate(cuts):
        axis = place + 2
        missing = larger(more[place] - high, 0) if high < more[place] else 0
        if missing:
            flat = [0, 0] * (done.ndim - axis - 1) + [0, missing]
            done = functional.pad(done, flat)
        length = full[place] + more[place] - low - high
        done = done.narrow(axis, low, length)
    return done if bias is None else done + bias.reshape(1, -1, *([1] * rank))


def _cuts(
    call: NodeCall,
    value: Tensor,
    *,
    full: Sequence[Any],
    strides: Sequence[int],
    more: Sequence[int],
) -> list[tuple[Any, Any]]:
    rank, mode = len(full), call.attribute("auto_pad", "NOTSET")
    wanted: list[Any] = list(call.attribute("output_shape", ()))
    if not wanted and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(value.shape[2:], strides, strict=True)]
    if wanted:
        totals = [
            size + extra - want
            for size, extra, want in zip(full, more, wanted[-rank:], strict=True)
        ]
        if mode == "SAME_UPPER":
            return [(total // 2, total - total // 2) for total in totals]
        return [(total - total // 2, total // 2) for total in totals]
    pads = (0,) * (2 * rank) if mode == "VALID" else call.attribute("pads", (0,) * (2 * rank))
    return list(zip(pads[:rank], pads[rank:], strict=True))


CONVOLUTION: Final[Operators] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
}
