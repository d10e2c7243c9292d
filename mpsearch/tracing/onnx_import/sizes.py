"""Operators on known values: arithmetic on sizes, in Python numbers and symbols.

Each function returns None where the result would not be short, or its numbers would depend
on something that is not known; the tensor operator then runs.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Result
from mpsearch.tracing.onnx_import.tensors import torch_type
from mpsearch.tracing.onnx_import.values import (
    MOST_KNOWN,
    Known,
    Value,
    as_float,
    as_whole,
    first_number,
    known,
    larger,
    root,
    smaller,
)

_OnKnown: TypeAlias = Callable[[NodeCall], Result | None]


def on_known(call: NodeCall) -> Result | None:
    """Return the result of a node that computes with sizes, or None where it does not.

    Short weights and biases are known too, but stay tensors, with their gradients.
    """
    function = _FUNCTIONS.get(call.node.op)
    if function is None or call.node.domain:
        return None
    given = [value for value in call.values if value is not None]
    reads_shape = call.node.op in ("Shape", "Size")
    if not reads_shape and not all(_is_size(value) for value in given):
        return None
    found = function(call)
    if isinstance(found, Known) and found.array.size > MOST_KNOWN:
        return None
    return found


def _is_size(value: Value) -> bool:
    return isinstance(value, Known) and not (
        value.dtype.is_floating_point and value.tensor is not None and value.array.ndim
    )


def _array(call: NodeCall, place: int = 0) -> ndarray:
    return call.known(place).array


def _like(call: NodeCall, array: Any, *, place: int = 0) -> Known:  # noqa: ANN401 - an array or, of NumPy, a bare object
    return Known(array=_boxed(array), dtype=call.known(place).dtype)


def _boxed(array: Any) -> ndarray:  # noqa: ANN401 - as above
    if isinstance(array, ndarray):
        return array if array.dtype == object else array.astype(object)
    box = np.empty((), dtype=object)
    box[()] = array
    return box


def _shape(call: NodeCall) -> Known:
    value = call.value(0)
    sizes = list(value.shape if isinstance(value, Tensor) else value.array.shape)
    rank = len(sizes)
    start = call.attribute("start", 0)
    end = call.attribute("end", rank)
    return known(sizes[slice(_clamped(start, rank), _clamped(end, rank))])


def _clamped(place: int, rank: int) -> int:
    return min(max(place + rank if place < 0 else place, 0), rank)


def _size(call: NodeCall) -> Known:
    value = call.value(0)
    count: Any = 1
    for size in value.shape if isinstance(value, Tensor) else value.array.shape:
        count *= size
    return known(count)


def _identity(call: NodeCall) -> Result:
    return call.value(0)


def _cast(call: NodeCall) -> Known | None:
    dtype = torch_type(call.needed("to", int), name=call.node.title)
    convert = _converter(dtype)
    return None if convert is None else Known(array=_each(convert, _array(call)), dtype=dtype)


def _converter(dtype: torch.dtype) -> Callable[[Any], Any] | None:
    if dtype in (torch.int64, torch.int32):
        return as_whole
    if dtype in (torch.float32, torch.float64):
        return as_float
    if dtype is torch.bool:
        return bool
    return None


def _each(function: Callable[..., Any], *arrays: ndarray) -> ndarray:
    wide = np.broadcast_arrays(*arrays)
    found = np.empty(wide[0].shape, dtype=object)
    for place in np.ndindex(found.shape):
        found[place] = function(*(array[place] for array in wide))
    return found


def _elementwise(function: Callable[..., Any], *, dtype: torch.dtype | None = None) -> _OnKnown:
    def run(call: NodeCall) -> Known:
        arrays = [_array(call, place) for place in range(len(call.values))]
        return Known(array=_each(function, *arrays), dtype=dtype or call.known(0).dtype)

    return run


def _folded(function: Callable[[Any, Any], Any]) -> _OnKnown:
    """Return an operator over any number of inputs, two at a time."""

    def run(call: NodeCall) -> Known:
        found = _array(call)
        for place in range(1, len(call.values)):
            found = _each(function, found, _array(call, place))
        return _like(call, found)

    return run


def _div(call: NodeCall) -> Known | None:
    if call.known(0).dtype.is_floating_point:
        return _like(call, _each(operator.truediv, _array(call), _array(call, 1)))
    if any(isinstance(each, int) and each == 0 for each in _array(call, 1).flat):
        raise call.wrong("divides by zero", "a divisor that is not zero")
    return _like(call, _each(_truncated, _array(call), _array(call, 1)))


def _truncated(dividend: Any, divisor: Any) -> Any:  # noqa: ANN401 - numbers or symbols
    """Divide towards zero, as ONNX does; sizes are never negative."""
    plain = isinstance(dividend, int) and isinstance(divisor, int)
    if plain and (dividend < 0) != (divisor < 0):
        return -(-dividend // divisor)
    return dividend // divisor


def _mod(call: NodeCall) -> Known | None:
    if call.attribute("fmod", 0):
        return None
    return _like(call, _each(operator.mod, _array(call), _array(call, 1)))


def _gather(call: NodeCall) -> Known:
    index = np.asarray(_array(call, 1).astype(np.int64))
    return _like(call, np.take(_array(call), index, axis=call.attribute("axis", 0)))


def _slice(call: NodeCall) -> Known | None:
    if call.node.version < 10 or _array(call).ndim != 1:  # noqa: PLR2004 - since then slices are inputs
        return None
    start, end = call.scalar(1), call.scalar(2)
    step = call.scalar(4) if call.has(4) else 1
    if not all(isinstance(each, int) for each in (start, end, step)):
        return None
    array = _array(call)
    if step < 0 and end < -len(array):
        return _like(call, array[start::step])
    return _like(call, array[start:end:step])


def _concat(call: NodeCall) -> Known:
    arrays = [_array(call, place) for place in range(len(call.values))]
    return _like(call, np.concatenate(arrays, axis=call.needed("axis", int)))


def _unsqueeze(call: NodeCall) -> Known:
    axes = call.integers_of("axes", 1) or []
    rank = _array(call).ndim + len(axes)
    array = _array(call)
    for axis in sorted(axis % rank for axis in axes):
        array = np.expand_dims(array, axis)
    return _like(call, array)


def _squeeze(call: NodeCall) -> Known:
    axes = call.integers_of("axes", 1)
    return _like(call, np.squeeze(_array(call), axis=None if axes is None else tuple(axes)))


def _reshape(call: NodeCall) -> Known:
    array, sizes = _array(call), call.integers(1)
    if not call.attribute("allowzero", 0):
        sizes = [array.shape[i] if size == 0 else size for i, size in enumerate(sizes)]
    return _like(call, array.reshape(sizes))


def _where(call: NodeCall) -> Known:
    chosen = _each(
        lambda test, yes, no: yes if test else no, _array(call), _array(call, 1), _array(call, 2)
    )
    return _like(call, chosen, place=1)


def _constant_of_shape(call: NodeCall) -> Known | None:
    sizes = call.checked(call.sizes(0))
    if len(sizes) > 1 or not all(isinstance(each, int) for each in sizes):
        return None
    if math.prod(sizes) > MOST_KNOWN:
        return None
    filled = call.node.attributes.get("value")
    number = first_number(filled) if isinstance(filled, Tensor) else 0.0
    dtype = filled.dtype if isinstance(filled, Tensor) else torch.float32
    return known(np.full([int(each) for each in sizes], number, dtype=object), dtype=dtype)


def _range(call: NodeCall) -> Known | None:
    numbers = [call.scalar(place) for place in range(3)]
    if not all(isinstance(each, int) for each in numbers) or numbers[2] == 0:
        return None
    found = range(*numbers)
    return known(list(found), dtype=call.known(0).dtype) if len(found) <= MOST_KNOWN else None


def _expand(call: NodeCall) -> Known | None:
    sizes = call.sizes(1)
    if not all(isinstance(each, int) for each in sizes) or math.prod(sizes) > MOST_KNOWN:
        return None
    shape = np.broadcast_shapes(_array(call).shape, tuple(int(each) for each in sizes))
    return _like(call, np.broadcast_to(_array(call), shape).copy())


def _reduced(function: Callable[[Any, Any], Any]) -> _OnKnown:
    def run(call: NodeCall) -> Known | None:
        array, axes = _array(call), call.integers_of("axes", 1)
        if array.ndim != 1 or not array.size or (axes is not None and axes not in ([0], [-1])):
            return None
        if axes is None and call.attribute("noop_with_empty_axes", 0):
            return None
        total = array[0]
        for each in array[1:]:
            total = function(total, each)
        return known([total] if call.attribute("keepdims", 1) else total, dtype=call.known(0).dtype)

    return run


def _split(call: NodeCall) -> list[Known] | None:
    array = _array(call)
    if array.ndim != 1 or (not call.has(1) and "split" not in call.node.attributes):
        return None
    lengths = call.integers_of("split", 1) or []
    parts = np.split(array, np.cumsum(lengths)[:-1])
    return [_like(call, part) for part in parts]


_FUNCTIONS: Final[Mapping[str, _OnKnown]] = {
    "Shape": _shape,
    "Size": _size,
    "Identity": _identity,
    "Cast": _cast,
    "Add": _elementwise(operator.add),
    "Sub": _elementwise(operator.sub),
    "Mul": _elementwise(operator.mul),
    "Div": _div,
    "Mod": _mod,
    "Neg": _elementwise(operator.neg),
    "Abs": _elementwise(abs),
    "Floor": _elementwise(lambda x: as_float(math.floor(x))),
    "Ceil": _elementwise(lambda x: as_float(math.ceil(x))),
    "Sqrt": _elementwise(root),
    "Min": _folded(smaller),
    "Max": _folded(larger),
    "Equal": _elementwise(lambda a, b: bool(a == b), dtype=torch.bool),
    "Greater": _elementwise(lambda a, b: bool(a > b), dtype=torch.bool),
    "GreaterOrEqual": _elementwise(lambda a, b: bool(a >= b), dtype=torch.bool),
    "Less": _elementwise(lambda a, b: bool(a < b), dtype=torch.bool),
    "LessOrEqual": _elementwise(lambda a, b: bool(a <= b), dtype=torch.bool),
    "And": _elementwise(lambda a, b: a and b, dtype=torch.bool),
    "Or": _elementwise(lambda a, b: a or b, dtype=torch.bool),
    "Not": _elementwise(operator.not_, dtype=torch.bool),
    "Where": _where,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Split": _split,
    "ReduceProd": _reduced(operator.mul),
    "ReduceSum": _reduced(operator.add),
    "ReduceMax": _reduced(larger),
    "ReduceMin": _reduced(smaller),
}
