"""Convolutions as matrix products: the patches of the input that meet the weight."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


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
    groups = int(call.get("groups", 1))
    if set(kernel) == {1}:
        found = values[:, :, :: stride[0], :: stride[1]].flatten(2)
    else:
        found = functional.unfold(values, kernel, dilation=dilation, stride=stride)
    return found.reshape(len(values), groups, -1, found.shape[-1])


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
