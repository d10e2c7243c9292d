"""Convolutions as matrix products: the patches of the input that meet the weight."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_NAMES = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip


def patches(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Float[Tensor, "S G K P"]:
    """Return, per group, the K numbers of the input under the kernel at each of P places.

    `args` and `kwargs` are those of `aten.conv1d` or `aten.conv2d`: a convolution's output is
    weight.view(G, O / G, K) @ patches.
    """
    call = dict(zip(_NAMES, args, strict=False)) | dict(kwargs)
    values, weight = call["input"], call["weight"]
    dimensions = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride = _sizes(call.get("stride", 1), dimensions)
    dilation = _sizes(call.get("dilation", 1), dimensions)
    values = _padded(values, call.get("padding", 0), kernel=kernel, dilation=dilation)
    if dimensions == 1:
        values, kernel = values[:, :, None], (1, *kernel)
        stride, dilation = (1, *stride), (1, *dilation)
    if set(kernel) == {1}:
        found = values[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        found = functional.unfold(values, kernel, dilation=dilation, stride=stride)
    return found.reshape(len(values), int(call.get("groups", 1)), -1, found.shape[-1])


def transposed_patches(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Float[Tensor, "S G K P"]:
    """Return the same of `aten.conv_transpose1d` or `2d`, whose weight is taken outputs first.

    A transposed convolution is a plain one of stride 1 over its input with zeros put between
    the numbers, under the kernel turned round. Source: Dumoulin, Visin (2016), A guide to
    convolution arithmetic for deep learning, section 4.
    """
    call = dict(zip(_TRANSPOSED_NAMES, args, strict=False)) | dict(kwargs)
    values, kernel = call["input"], tuple(call["weight"].shape[2:])
    dimensions = len(kernel)
    stride, dilation = (_sizes(call.get(name, 1), dimensions) for name in ("stride", "dilation"))
    padding, added = (
        _sizes(call.get(name, 0), dimensions) for name in ("padding", "output_padding")
    )
    spans = [d * (k - 1) - p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    ends = list(zip(spans, [a + b for a, b in zip(spans, added, strict=True)], strict=True))
    # Negative ends cut off, which is what more padding than the kernel reaches asks for.
    values = functional.pad(_spread(values, stride), [n for pair in reversed(ends) for n in pair])
    if dimensions == 1:
        values, kernel, dilation = values[:, :, None], (1, *kernel), (1, *dilation)
    found = functional.unfold(values, kernel, dilation=dilation)
    found = found.reshape(len(values), -1, *kernel, found.shape[-1]).flip(2, 3)
    return found.reshape(len(values), int(call.get("groups", 1)), -1, found.shape[-1])


def _spread(values: Tensor, stride: Sequence[int]) -> Tensor:
    """Put stride - 1 zeros between neighbours along each dimension of space."""
    sizes = [(size - 1) * step + 1 for size, step in zip(values.shape[2:], stride, strict=True)]
    spread = values.new_zeros((*values.shape[:2], *sizes))
    places = [slice(None), slice(None), *(slice(None, None, step) for step in stride)]
    spread[tuple(places)] = values
    return spread


def _padded(
    values: Tensor,
    padding: Any,  # noqa: ANN401 - "same", "valid", a number or one per dimension
    *,
    kernel: Sequence[int],
    dilation: Sequence[int],
) -> Tensor:
    if isinstance(padding, str):
        spans = [
            d * (k - 1) if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)
        ]
        # torch puts the odd one at the end.
        ends = [(span // 2, span - span // 2) for span in spans]
    else:
        ends = [(size, size) for size in _sizes(padding, len(kernel))]
    flat = [size for pair in reversed(ends) for size in pair]
    return functional.pad(values, flat) if any(flat) else values


def _sizes(value: Any, dimensions: int) -> tuple[int, ...]:  # noqa: ANN401 - a number or several
    found = (int(value),) if isinstance(value, int) else tuple(int(each) for each in value)
    return found * dimensions if len(found) == 1 else found
