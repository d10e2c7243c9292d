"""Operators that move numbers about, or make tensors of a given shape."""

import math
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators, Result
from mpsearch.tracing.onnx_import.tensors import torch_type
from mpsearch.tracing.onnx_import.values import Size, first_number, known, known_constant


def _constant(call: NodeCall) -> Result:
    given = call.node.attributes
    if "value" in given:
        return known_constant(call.needed("value", Tensor))
    for name in ("value_float", "value_floats"):
        if name in given:
            return known_constant(torch.tensor(given[name], dtype=torch.float32))
    for name in ("value_int", "value_ints"):
        if name in given:
            return known_constant(torch.tensor(given[name], dtype=torch.int64))
    raise call.wrong(f"has the attributes {sorted(given)}", "numbers")


def _shape(call: NodeCall) -> Result:
    return known(list(call.tensor(0).shape))


def _reshape(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    sizes: list[Size] = call.sizes(1) if call.has(1) else list(call.needed("shape", tuple))
    if not call.attribute("allowzero", 0):
        sizes = [
            value.shape[i] if isinstance(size, int) and size == 0 else size
            for i, size in enumerate(sizes)
        ]
    return value.reshape(sizes)


def _transpose(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    order = call.attribute("perm", tuple(reversed(range(value.ndim))))
    if value.ndim == 2 and order == (1, 0):  # noqa: PLR2004 - a matrix: layers know its transpose
        return value.t()
    return value.permute(order)


def _flatten(call: NodeCall) -> Tensor:
    value, axis = call.tensor(0), call.attribute("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    if axis == 0:
        return value.reshape(1, -1)
    if axis == value.ndim:
        return value.reshape(-1, 1)
    # By sizes of both sides, so that a dynamic batch stays one.
    return value.reshape([math.prod(value.shape[:axis]), math.prod(value.shape[axis:])])


def _squeeze(call: NodeCall) -> Tensor:
    value, axes = call.tensor(0), call.integers_of("axes", 1)
    return value.squeeze() if axes is None else value.squeeze(tuple(axes))


def _unsqueeze(call: NodeCall) -> Tensor:
    value, axes = call.tensor(0), call.integers_of("axes", 1) or []
    rank = value.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _concat(call: NodeCall) -> Tensor:
    return torch.cat(call.tensors(), dim=call.attribute("axis", 1))


def _split(call: NodeCall) -> list[Tensor]:
    value, axis = call.tensor(0), call.attribute("axis", 0)
    lengths = call.integers_of("split", 1)
    if lengths is None:
        count = call.attribute("num_outputs", call.outputs)
        # The last part is shorter where the size is not divisible.
        size = int(value.shape[axis])
        each = -(-size // count)
        lengths = [each] * (count - 1) + [size - each * (count - 1)]
    return list(torch.split(value, lengths, dim=axis))


def _expand(call: NodeCall) -> Tensor:
    value, sizes = call.tensor(0), call.checked(call.sizes(1))
    have: list[Any] = [1] * (len(sizes) - value.ndim) + list(value.shape)
    sizes = [*([1] * (len(have) - len(sizes))), *sizes]
    wanted = [
        own if isinstance(size, int) and size == 1 else size
        for own, size in zip(have, sizes, strict=True)
    ]
    return value.expand(call.checked(wanted))


def _tile(call: NodeCall) -> Tensor:
    value, repeats = call.tensor(0), call.sizes(1)
    call.checked([size * times for size, times in zip(value.shape, repeats, strict=True)])
    return value.repeat(repeats)


def _constant_of_shape(call: NodeCall) -> Tensor:
    sizes = call.checked(call.sizes(0))
    filled = call.node.attributes.get("value")
    if isinstance(filled, Tensor):
        return torch.full(sizes, first_number(filled), dtype=filled.dtype)
    return torch.zeros(sizes)


def _range(call: NodeCall) -> Tensor:
    dtype = call.tensor(0).dtype
    start, end, step = (call.scalar(place) for place in range(3))
    if isinstance(step, int | float) and step == 0:
        raise call.wrong("counts in steps of 0", "a step that is not 0")
    if all(isinstance(each, int | float) for each in (start, end, step)):
        count = max(0, math.ceil((end - start) / step))
        call.checked([count])
        numbers: Tensor = torch.arange(count) * step + start
        return numbers.to(dtype)
    return torch.arange(start, end, step, dtype=dtype)


def _eye_like(call: NodeCall) -> Tensor:
    value, offset = call.tensor(0), call.attribute("k", 0)
    to = call.node.attributes.get("dtype")
    dtype = value.dtype if to is None else torch_type(to, name=call.node.title)
    rows = torch.arange(value.shape[0]).unsqueeze(1)
    columns = torch.arange(value.shape[1]).unsqueeze(0)
    return (columns - rows == offset).to(dtype)


def _trilu(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    diagonal = call.integers(1)[0] if call.has(1) else 0
    if call.attribute("upper", 1):
        return torch.triu(value, diagonal)
    return torch.tril(value, diagonal)


def _pad(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    pads = call.sizes(1) if call.has(1) else list(call.attribute("pads", ()))
    axes = call.integers(3) if call.has(3) else list(range(value.ndim))
    number = call.scalar(2) if call.has(2) else call.attribute("value", 0.0)
    before, after = pads[: len(axes)], pads[len(axes) :]
    pairs: list[tuple[Size, Size]] = [(0, 0)] * value.ndim
    for axis, low, high in zip(axes, before, after, strict=True):
        pairs[axis % value.ndim] = (low, high)
    call.checked([size + low + high for size, (low, high) in zip(value.shape, pairs, strict=True)])
    mode = call.attribute("mode", "constant")
    if mode == "constant":
        flat = [each for pair in reversed(pairs) for each in pair]
        return functional.pad(value, flat, value=number)  # type: ignore[arg-type]  # symbols are sizes too
    return _padded_by_index(value, pairs, mode=mode)


def _padded_by_index(value: Tensor, pairs: list[tuple[Any, Any]], *, mode: str) -> Tensor:
    """Return the tensor with numbers of its own beyond each edge, axis by axis."""
    for axis, (low, high) in enumerate(pairs):
        if isinstance(low, int) and isinstance(high, int) and low == high == 0:
            continue
        size = value.shape[axis]
        places = torch.arange(-low, size + high)
        if mode == "edge":
            places = places.clamp(0, size - 1)
        elif mode == "wrap":
            places = torch.remainder(places, size)
        else:  # reflect: there and back without the edge twice
            period = max(2 * (size - 1), 1)
            places = torch.remainder(places, period)
            places = torch.where(places < size, places, period - places)
        value = value.index_select(axis, places)
    return value


def _depth_to_space(call: NodeCall) -> Tensor:
    value, block = call.tensor(0), call.needed("blocksize", int)
    batch, channels, *sizes = value.shape
    inner = channels // block**2
    if call.attribute("mode", "DCR") == "CRD":
        parts = value.reshape(batch, inner, block, block, *sizes)
        parts = parts.permute(0, 1, 4, 2, 5, 3)
    else:
        parts = value.reshape(batch, block, block, inner, *sizes)
        parts = parts.permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, inner, sizes[0] * block, sizes[1] * block)


def _space_to_depth(call: NodeCall) -> Tensor:
    value, block = call.tensor(0), call.needed("blocksize", int)
    batch, channels, height, width = value.shape
    parts = value.reshape(batch, channels, height // block, block, width // block, block)
    # Channels last within a block, as ONNX counts by default, or first.
    is_first = call.attribute("mode", "DCR") == "CRD"
    parts = parts.permute(0, 1, 3, 5, 2, 4) if is_first else parts.permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(batch, channels * block**2, height // block, width // block)


SHAPES: Final[Operators] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "EyeLike": _eye_like,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda call: known(math.prod(call.tensor(0).shape)),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
