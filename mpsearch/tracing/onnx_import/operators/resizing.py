"""Resize and its kin: axis by axis, as a weighted sum of neighbours along the axis."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.values import as_whole


@final
@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One axis to resize: from `size` to `wanted` numbers, `scale` as the node says."""

    axis: int
    size: Any
    wanted: Any
    scale: Any
    region: tuple[float, float] = (0.0, 1.0)


def _resize(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    mode = call.attribute("mode", "nearest")
    for each in _axes(call, value):
        if isinstance(each.scale, int | float) and each.scale == 1 and each.wanted is each.size:
            continue
        places = _places(call, each)
        if mode == "nearest":
            value = value.index_select(each.axis, _nearest(call, places, size=each.size))
        else:
            value = _weighted(call, value, axis=each, places=places, is_cubic=mode == "cubic")
    return value


def _axes(call: NodeCall, value: Tensor) -> list[_Axis]:
    axes = list(call.attribute("axes", tuple(range(value.ndim))))
    axes = [axis % value.ndim for axis in axes]
    have = [value.shape[axis] for axis in axes]
    wanted: Sequence[Any]
    scales: Sequence[Any]
    scale_slot = 2 if call.version > 10 else 1  # noqa: PLR2004 - since 11 the region comes before
    region: list[Any] = list(call.numbers(1)) if call.version > 10 and call.has(1) else []  # noqa: PLR2004 - as above
    if call.has(3) and call.numbers(3):
        wanted = call.numbers(3)
        wanted, scales = _kept_aspect(call, have=have, wanted=wanted)
    else:
        scales = call.numbers(scale_slot)
        wanted = [
            size if isinstance(scale, int | float) and scale == 1 else as_whole(size * scale)
            for size, scale in zip(have, scales, strict=True)
        ]
    regions = [(0.0, 1.0)] * len(axes)
    if call.attribute("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        regions = list(zip(region[: len(axes)], region[len(axes) :], strict=True))
        if not call.has(3):
            wanted = [
                as_whole(size * (end - start) * scale)
                for size, (start, end), scale in zip(have, regions, scales, strict=True)
            ]
    call.checked([*wanted])
    return [
        _Axis(axis=axis, size=size, wanted=want, scale=scale, region=area)
        for axis, size, want, scale, area in zip(axes, have, wanted, scales, regions, strict=True)
    ]


def _kept_aspect(call: NodeCall, *, have: Sequence[Any], wanted: Sequence[Any]) -> tuple[Any, Any]:
    policy = call.attribute("keep_aspect_ratio_policy", "stretch")
    scales = [want / size for want, size in zip(wanted, have, strict=True)]
    if policy == "stretch":
        return wanted, scales
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [int(scale * size + 0.5) for size in have], [scale] * len(have)


def _places(call: NodeCall, axis: _Axis) -> Tensor:
    """Return where each number of the result lies on the axis of the input."""
    mode = call.attribute("coordinate_transformation_mode", "half_pixel")
    x = torch.arange(axis.wanted, dtype=torch.float64)
    if mode == "half_pixel" or mode not in _TRANSFORMS:
        return torch.div(x + 0.5, axis.scale) - 0.5
    return _TRANSFORMS[mode](x, axis)


def _align_corners(x: Tensor, axis: _Axis) -> Tensor:
    length = axis.size * axis.scale  # as ONNX says: before it is cut to a whole number
    return x * 0 if axis.wanted == 1 else torch.mul(x, (axis.size - 1) / (length - 1))


def _asymmetric(x: Tensor, axis: _Axis) -> Tensor:
    return torch.div(x, axis.scale)


def _crop_and_resize(x: Tensor, axis: _Axis) -> Tensor:
    start, end = axis.region
    if axis.wanted == 1:
        return torch.full_like(x, 0.5 * (start + end) * (axis.size - 1))
    step = (end - start) * (axis.size - 1) / (axis.wanted - 1)
    return torch.add(torch.mul(x, step), start * (axis.size - 1))


def _pytorch_half_pixel(x: Tensor, axis: _Axis) -> Tensor:
    return x * 0 if axis.wanted == 1 else torch.div(x + 0.5, axis.scale) - 0.5


def _half_pixel_symmetric(x: Tensor, axis: _Axis) -> Tensor:
    adjustment = axis.wanted / (axis.scale * axis.size)
    places = torch.div(x + 0.5, axis.scale) - 0.5
    return torch.add(places, axis.size / 2 * (1 - adjustment))


_TRANSFORMS: Final[Mapping[str, Callable[[Tensor, _Axis], Tensor]]] = {
    "align_corners": _align_corners,
    "asymmetric": _asymmetric,
    "half_pixel_symmetric": _half_pixel_symmetric,
    "pytorch_half_pixel": _pytorch_half_pixel,
    "tf_crop_and_resize": _crop_and_resize,
}


def _nearest(call: NodeCall, places: Tensor, *, size: Any) -> Tensor:  # noqa: ANN401 - a number or a symbol
    default = "round_prefer_floor" if call.version > 10 else "floor"  # noqa: PLR2004 - the older one says so
    mode = call.attribute("nearest_mode", default)
    rounded = _ROUNDINGS[mode](places)
    return rounded.long().clamp(min=0).minimum(torch.scalar_tensor(size - 1, dtype=torch.int64))


_ROUNDINGS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def _kernel(call: NodeCall, *, is_cubic: bool) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return the weight of a neighbour by its distance, and how far neighbours reach."""
    if not is_cubic:
        return (lambda x: (1 - x.abs()).clamp(min=0)), 1
    a = call.attribute("cubic_coeff_a", -0.75)

    def cubic(distance: Tensor) -> Tensor:
        x = distance.abs()
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = a * (((x - 5) * x + 8) * x - 4)
        zero = torch.zeros_like(x)
        return torch.where(x <= 1, near, torch.where(x < 2, far, zero))  # noqa: PLR2004 - the reach

    return cubic, 2


def _weighted(
    call: NodeCall, value: Tensor, *, axis: _Axis, places: Tensor, is_cubic: bool
) -> Tensor:
    weights = _weights(call, axis, places=places, is_cubic=is_cubic)
    moved = value.movedim(axis.axis, -1)
    done = torch.matmul(moved, weights.t().to(value.dtype)).movedim(-1, axis.axis)
    return _beyond(call, done, axis=axis, places=places)


def _weights(call: NodeCall, axis: _Axis, *, places: Tensor, is_cubic: bool) -> Tensor:
    """Return, for each number of the result, the weights of all numbers of the axis."""
    kernel, reach = _kernel(call, is_cubic=is_cubic)
    shrink = axis.scale if call.attribute("antialias", 0) and axis.scale < 1 else 1.0
    start = math.floor(-reach / shrink) + 1
    columns, last = torch.arange(axis.size), torch.scalar_tensor(axis.size - 1, dtype=places.dtype)
    total = torch.zeros_like(places.unsqueeze(1) + columns)
    for step in range(start, 2 - start):
        place = places.floor() + step
        weight = kernel((places - place) * shrink)
        if call.attribute("exclude_outside", 0):
            weight = torch.where((place < 0) | (place > last), torch.zeros_like(weight), weight)
        at = place.clamp(min=0).minimum(last).long().unsqueeze(1)  # beyond the edge, the edge
        total = total + torch.where(columns == at, weight.unsqueeze(1), 0.0)
    return total / total.sum(1, keepdim=True)


def _beyond(call: NodeCall, value: Tensor, *, axis: _Axis, places: Tensor) -> Tensor:
    """Put the extrapolation's number where a region reaches out of the input."""
    if call.attribute("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return value
    outside = (places < 0) | (places > axis.size - 1)
    shape = [1] * value.ndim
    shape[axis.axis] = -1
    number = call.attribute("extrapolation_value", 0.0)
    return torch.where(outside.reshape(shape), torch.full_like(value, number), value)


_GRID_MODES: Final = {"linear": "bilinear", "cubic": "bicubic"}


def _grid_sample(call: NodeCall) -> Tensor:
    mode = call.attribute("mode", "linear")
    return functional.grid_sample(
        call.tensor(0),
        call.tensor(1),
        mode=_GRID_MODES.get(mode, mode),
        padding_mode=call.attribute("padding_mode", "zeros"),
        align_corners=bool(call.attribute("align_corners", 0)),
    )


def _column_to_image(call: NodeCall) -> Tensor:
    value, sizes, kernel = call.tensor(0), call.integers(1), call.integers(2)
    rank = len(sizes)
    pads = list(call.attribute("pads", (0,) * (2 * rank)))
    strides = list(call.attribute("strides", (1,) * rank))
    dilations = list(call.attribute("dilations", (1,) * rank))
    if rank != 2 or pads[:rank] != pads[rank:]:  # noqa: PLR2004 - what torch folds
        raise call.wrong(f"folds {rank} dimensions with padding {pads}", "2, padded evenly")
    return functional.fold(
        value, tuple(sizes), tuple(kernel), tuple(dilations), tuple(pads[:rank]), tuple(strides)
    )


RESIZING: Final[Operators] = {
    "Col2Im": _column_to_image,
    "GridSample": _grid_sample,
    "Resize": _resize,
    "Upsample": _resize,
}
