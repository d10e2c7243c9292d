"""Poolings: the largest or the mean number of each window."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.operators.convolution import CONVOLUTIONS, padding
from mpsearch.tracing.onnx_import.values import larger

_MAX_POOLS: Final[Sequence[Callable[..., Any]]] = (
    functional.max_pool1d,
    functional.max_pool2d,
    functional.max_pool3d,
)


def _global(function: Callable[..., Tensor]) -> Callable[[NodeCall], Tensor]:
    def run(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        return function(value, list(range(2, value.ndim)), keepdim=True)

    return run


def _window(call: NodeCall, value: Tensor) -> dict[str, list[Any]]:
    """Return kernel, strides, dilations and pads of a pooling, longer where the last step asks."""
    kernel = list(call.needed("kernel_shape", tuple))
    rank = len(kernel)
    strides = list(call.attribute("strides", (1,) * rank))
    dilations = list(call.attribute("dilations", (1,) * rank))
    pads = padding(call, value, kernel=kernel, strides=strides, dilations=dilations)
    extra: list[Any] = [0] * rank
    if call.attribute("ceil_mode", 0):
        for place, (low, high) in enumerate(pads):
            size = value.shape[2 + place]
            reach = (kernel[place] - 1) * dilations[place] + 1
            room = size + low + high - reach
            steps = -(-room // strides[place])
            # A window that would begin in the padding behind the input is left out.
            if steps * strides[place] >= size + low:
                steps = steps - 1
            extra[place] = larger(steps * strides[place] - room, 0)
    return {
        "kernel": kernel, "strides": strides, "dilations": dilations, "pads": pads, "extra": extra
    }  # fmt: skip


def _max_pool(call: NodeCall) -> list[Tensor | None]:
    value = call.tensor(0)
    window = _window(call, value)
    rank = len(window["kernel"])
    function = _MAX_POOLS[rank - 1]
    whole = not value.is_floating_point()
    numbers = value.float() if whole else value
    pads = [(low, high + more) for (low, high), more in zip(*_pads_and_extra(window), strict=True)]
    flat = [each for pair in reversed(pads) for each in pair]
    lowest = float("-inf")
    wide = functional.pad(numbers, flat, value=lowest) if any(map(_is_some, flat)) else numbers
    result = function(
        wide, window["kernel"], window["strides"], 0, window["dilations"],
        return_indices=call.wants(1),
    )  # fmt: skip
    if not call.wants(1):
        return [result.to(value.dtype) if whole else result, None]
    done, places = result
    return [done.to(value.dtype) if whole else done, _places(call, places, value=value, pads=pads)]


def _is_some(pad: Any) -> bool:  # noqa: ANN401 - a number or a symbol
    return not isinstance(pad, int) or pad != 0


def _pads_and_extra(window: dict[str, list[Any]]) -> tuple[list[Any], list[Any]]:
    return window["pads"], window["extra"]


def _places(
    call: NodeCall, places: Tensor, *, value: Tensor, pads: Sequence[tuple[Any, Any]]
) -> Tensor:
    """Return places in the whole, unpadded input, counted as the attribute says."""
    sizes = list(value.shape[2:])
    wide = [size + low + high for size, (low, high) in zip(sizes, pads, strict=True)]
    rest, axes = places, []
    for size, (low, _) in reversed(list(zip(wide, pads, strict=True))):
        axes.append(rest % size - low)
        rest = rest // size
    axes.reverse()
    order = list(range(len(sizes)))
    if call.attribute("storage_order", 0):
        order.reverse()
    flat = torch.zeros_like(places)
    for axis in order:
        flat = flat * sizes[axis] + axes[axis]
    images = torch.arange(math.prod(value.shape[:2])).reshape(*value.shape[:2], *([1] * len(sizes)))
    return flat + images * math.prod(sizes)


def _average_pool(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    window = _window(call, value)
    numbers = _summed(value, window)
    counted = torch.ones_like(value[:1, :1])
    if call.attribute("count_include_pad", 0):
        # Padding counts, the overhang of the last window does not.
        flat = [each for pair in reversed(window["pads"]) for each in pair]
        counted = functional.pad(counted, flat, value=1.0)
        window = {**window, "pads": [(0, 0)] * len(window["pads"])}
    return numbers / _summed(counted, window)


def _summed(value: Tensor, window: dict[str, list[Any]]) -> Tensor:
    """Return the sum over each window, by a convolution with ones, channel by channel."""
    rank, channels = len(window["kernel"]), value.shape[1]
    pads = [(low, high + more) for (low, high), more in zip(*_pads_and_extra(window), strict=True)]
    flat = [each for pair in reversed(pads) for each in pair]
    wide = functional.pad(value, flat)
    ones = torch.ones([1, 1, *window["kernel"]], dtype=value.dtype)
    rows = wide.reshape(-1, 1, *wide.shape[2:])
    done = CONVOLUTIONS[rank - 1](rows, ones, None, window["strides"], 0, window["dilations"])
    return done.reshape(-1, channels, *done.shape[2:])


def _lp_pool(call: NodeCall) -> Tensor:
    value, power = call.tensor(0), call.attribute("p", 2)
    return _summed(value.abs() ** power, _window(call, value)) ** (1.0 / power)


def _global_lp_pool(call: NodeCall) -> Tensor:
    value, power = call.tensor(0), call.attribute("p", 2)
    axes = list(range(2, value.ndim))
    length: Tensor = torch.linalg.vector_norm(value, power, dim=axes, keepdim=True)
    return length


def _max_unpool(call: NodeCall) -> Tensor:
    value, places = call.tensor(0), call.tensor(1)
    kernel = call.needed("kernel_shape", tuple)
    rank = len(kernel)
    strides = call.attribute("strides", (1,) * rank)
    pads = call.attribute("pads", (0,) * (2 * rank))
    inner = [
        (size - 1) * strides[i] + kernel[i] - pads[i] - pads[i + rank]
        for i, size in enumerate(value.shape[2:])
    ]
    sizes = call.checked([*value.shape[:2], *inner])
    flat = torch.zeros(math.prod(sizes), dtype=value.dtype)
    done = flat.scatter(0, places.reshape(-1), value.reshape(-1)).reshape(sizes)
    if not call.has(2):
        return done
    # Places count in the size that follows from the kernel; more room is added behind.
    room: list[Any] = [want - have for want, have in zip(call.integers(2), sizes, strict=True)]
    return functional.pad(done, [each for more in reversed(room) for each in (0, more)])


POOLING: Final[Operators] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalLpPool": _global_lp_pool,
    "GlobalMaxPool": _global(torch.amax),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
    "MaxUnpool": _max_unpool,
}
