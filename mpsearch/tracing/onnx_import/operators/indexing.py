"""Operators that read or write at places given by numbers."""

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.values import Known

_MATRIX: Final = 2  # dimensions


def _gather(call: NodeCall) -> Tensor:
    value, axis = call.tensor(0), call.attribute("axis", 0)
    given = call.value(1)
    if isinstance(given, Known) and given.array.ndim == 0:
        place = given.array.item()
        return value.select(axis, place)
    index = call.tensor(1)
    if axis == 0 and value.ndim == _MATRIX and value.is_floating_point():
        return functional.embedding(_from_the_front(index, value.shape[0]), value)
    index = _from_the_front(index, value.shape[axis])
    flat = value.index_select(axis, index.reshape(-1).long())
    if index.ndim == 1:
        return flat
    axis %= value.ndim
    return flat.reshape([*value.shape[:axis], *index.shape, *value.shape[axis + 1 :]])


def _from_the_front(index: Tensor, size: Any) -> Tensor:  # noqa: ANN401 - a number or a symbol
    """Return places that count from the front; ONNX takes negative ones too."""
    if index.dtype is torch.uint8:
        return index.long()
    return torch.where(index < 0, index + size, index)


def _gather_elements(call: NodeCall) -> Tensor:
    value, axis = call.tensor(0), call.attribute("axis", 0)
    return value.gather(axis, _from_the_front(call.tensor(1), value.shape[axis]).long())


def _gather_nd(call: NodeCall) -> Tensor:
    value, index = call.tensor(0), call.tensor(1).long()
    batched = call.attribute("batch_dims", 0)
    places = list(index.unbind(-1))
    for axis in reversed(range(batched)):
        shape = [1] * (index.ndim - 1)
        shape[axis] = -1
        places.insert(0, torch.arange(value.shape[axis]).reshape(shape))
    return value[tuple(places)]


def _slice(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    if call.has(1):
        starts, ends = call.sizes(1), call.sizes(2)
        axes = call.integers(3) if call.has(3) else list(range(len(starts)))
        steps = call.integers(4) if call.has(4) else [1] * len(starts)
    else:
        starts, ends = list(call.needed("starts", tuple)), list(call.needed("ends", tuple))
        axes = list(call.attribute("axes", tuple(range(len(starts)))))
        steps = [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        value = _sliced(value, start, end=end, axis=axis % value.ndim, step=step)
    return value


def _sliced(value: Tensor, start: Any, *, end: Any, axis: int, step: int) -> Tensor:  # noqa: ANN401 - numbers or symbols
    if step > 0:
        place = tuple([slice(None)] * axis + [slice(start, end, step)])
        return value[place]
    size = value.shape[axis]
    places = torch.arange(*slice(start, end, step).indices(int(size)))
    return value.index_select(axis, places)


def _scatter_elements(call: NodeCall) -> Tensor:
    value, axis = call.tensor(0), call.attribute("axis", 0)
    index = _from_the_front(call.tensor(1), value.shape[axis]).long()
    updates, kind = call.tensor(2), call.attribute("reduction", "none")
    if kind == "none":
        return value.scatter(axis, index, updates)
    return value.scatter_reduce(axis, index, updates, reduce=_REDUCTIONS[kind], include_self=True)


def _scatter_nd(call: NodeCall) -> Tensor:
    value, index, updates = call.tensor(0), call.tensor(1).long(), call.tensor(2)
    kind = call.attribute("reduction", "none")
    depth = index.shape[-1]
    sizes = [int(size) for size in value.shape[:depth]]
    flat = torch.zeros_like(index[..., 0])
    for place, size in enumerate(sizes):
        flat = flat * size + _from_the_front(index[..., place], size)
    rest = value.shape[depth:]
    rows = value.reshape(-1, *rest) if depth < value.ndim else value.reshape(-1)
    new = updates.reshape(-1, *rest) if depth < value.ndim else updates.reshape(-1)
    places = flat.reshape(-1)
    if kind == "none":
        return rows.index_copy(0, places, new).reshape(value.shape)
    wide = places.reshape(-1, *([1] * (rows.ndim - 1))).expand_as(new)
    done = rows.scatter_reduce(0, wide, new, reduce=_REDUCTIONS[kind], include_self=True)
    return done.reshape(value.shape)


_REDUCTIONS: Final = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _one_hot(call: NodeCall) -> Tensor:
    index, depth = call.tensor(0), call.integers(1)[0]
    low, high = call.tensor(2).unbind(0)
    axis = call.attribute("axis", -1)
    axis = axis + index.ndim + 1 if axis < 0 else axis
    call.checked([*index.shape, depth])
    places = torch.arange(depth)
    shape = [1] * (index.ndim + 1)
    shape[axis] = depth
    whole = torch.remainder(index.long(), depth)
    inside = (index >= -depth) & (index < depth)
    hit = (whole.unsqueeze(axis) == places.reshape(shape)) & inside.unsqueeze(axis)
    return torch.where(hit, high, low)


def _non_zero(call: NodeCall) -> Tensor:
    return call.tensor(0).nonzero().t()


def _compress(call: NodeCall) -> Tensor:
    value, chosen = call.tensor(0), call.known(1).array.astype(bool)
    places = torch.tensor([place for place, each in enumerate(chosen) if each], dtype=torch.int64)
    if "axis" in call.node.attributes:
        return value.index_select(call.needed("axis", int), places)
    return value.reshape(-1).index_select(0, places)


def _reverse_sequence(call: NodeCall) -> Tensor:
    value, lengths = call.tensor(0), call.tensor(1)
    time, batch = call.attribute("time_axis", 0), call.attribute("batch_axis", 1)
    steps = torch.arange(value.shape[time])
    rows = lengths.unsqueeze(1)
    places = torch.where(steps < rows, rows - 1 - steps, steps)  # (batch, time)
    places = places if batch < time else places.t()
    shape = [1] * value.ndim
    shape[time], shape[batch] = value.shape[time], value.shape[batch]
    return value.gather(time, places.reshape(shape).expand_as(value).long())


INDEXING: Final[Operators] = {
    "Compress": _compress,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "NonZero": _non_zero,
    "OneHot": _one_hot,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "Slice": _slice,
}
