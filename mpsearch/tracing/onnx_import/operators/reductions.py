"""Operators that reduce axes to one number, and those that run along an axis."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from mpsearch.tracing.onnx_import.call import NodeCall, Operator, Operators


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(call: NodeCall) -> Tensor:
        value, axes = call.tensor(0), call.integers_of("axes", 1)
        if not axes:
            if call.attribute("noop_with_empty_axes", 0):
                return function(value, [], keep=True)
            axes = list(range(value.ndim))
        keep = bool(call.attribute("keepdims", 1))
        return function(
            value, [axis % value.ndim for axis in axes] if value.ndim else [], keep=keep
        )

    return run


def _sum(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    return value.sum(axes, keepdim=keep).to(value.dtype) if axes else value


def _mean(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    if not axes:
        return value
    if value.is_floating_point():
        return value.mean(axes, keepdim=keep)
    return value.double().mean(axes, keepdim=keep).to(value.dtype)


def _extreme(*, largest: bool) -> Callable[..., Tensor]:
    def run(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
        if not axes:
            return value
        if any(isinstance(value.shape[axis], int) and value.shape[axis] == 0 for axis in axes):
            return _of_nothing(value, axes, keep=keep, largest=largest)
        if value.dtype is torch.bool:
            return run(value.to(torch.uint8), axes, keep=keep).bool()
        return (torch.amax if largest else torch.amin)(value, axes, keepdim=keep)

    return run


def _of_nothing(value: Tensor, axes: list[int], *, keep: bool, largest: bool) -> Tensor:
    """Return what the largest of no number is: the smallest there is."""
    if value.is_floating_point():
        number: float | int | bool = float("-inf" if largest else "inf")
    elif value.dtype is torch.bool:
        number = not largest
    else:
        info = torch.iinfo(value.dtype)
        number = info.min if largest else info.max
    sizes = [1 if axis in axes else size for axis, size in enumerate(value.shape)]
    kept = [size for axis, size in enumerate(value.shape) if axis not in axes]
    return torch.full(sizes if keep else kept, number, dtype=value.dtype)


def _prod(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    for axis in sorted(axes, reverse=True):
        value = value.prod(axis, keepdim=keep).to(value.dtype)
    return value


def _l1(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    return _sum(value.abs(), axes, keep=keep)


def _l2(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    total = _sum(value * value, axes, keep=keep)
    return total.sqrt() if total.is_floating_point() else total.double().sqrt().to(value.dtype)


def _log_sum(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    return _sum(value, axes, keep=keep).log()


def _log_sum_exp(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    return value.logsumexp(axes, keepdim=keep) if axes else value.exp().log()


def _sum_square(value: Tensor, axes: list[int], *, keep: bool) -> Tensor:
    return _sum(value * value, axes, keep=keep)


def _arg(*, largest: bool) -> Operator:
    def run(call: NodeCall) -> Tensor:
        value, axis = call.tensor(0), call.attribute("axis", 0)
        keep = bool(call.attribute("keepdims", 1))
        function = torch.argmax if largest else torch.argmin
        if call.attribute("select_last_index", 0):
            size = value.shape[axis]
            return size - 1 - function(value.flip(axis), dim=axis, keepdim=keep)
        return function(value, dim=axis, keepdim=keep)

    return run


def _cumulative(function: Callable[..., Tensor], *, first: int) -> Operator:
    def run(call: NodeCall) -> Tensor:
        value, axis = call.tensor(0), call.integers(1)[0]
        is_reversed = bool(call.attribute("reverse", 0))
        if is_reversed:
            value = value.flip(axis)
        if call.attribute("exclusive", 0):
            start = torch.full_like(value.narrow(axis, 0, 1), first)
            value = torch.cat([start, value.narrow(axis, 0, value.shape[axis] - 1)], dim=axis)
        found = function(value, dim=axis).to(value.dtype)
        return found.flip(axis) if is_reversed else found

    return run


def _top_k(call: NodeCall) -> list[Tensor]:
    value, axis = call.tensor(0), call.attribute("axis", -1)
    count = call.scalar(1) if call.has(1) else call.needed("k", int)
    is_largest = bool(call.attribute("largest", 1))
    if value.dtype in (torch.uint16, torch.uint32, torch.uint64):
        numbers, places = value.long().sort(dim=axis, descending=is_largest, stable=True)
        numbers = numbers.to(value.dtype)
    else:
        numbers, places = value.sort(dim=axis, descending=is_largest, stable=True)
    return [numbers.narrow(axis, 0, count), places.narrow(axis, 0, count)]


REDUCTIONS: Final[Operators] = {
    "ArgMax": _arg(largest=True),
    "ArgMin": _arg(largest=False),
    "CumProd": _cumulative(torch.cumprod, first=1),
    "CumSum": _cumulative(torch.cumsum, first=0),
    "ReduceL1": _reduce(_l1),
    "ReduceL2": _reduce(_l2),
    "ReduceLogSum": _reduce(_log_sum),
    "ReduceLogSumExp": _reduce(_log_sum_exp),
    "ReduceMax": _reduce(_extreme(largest=True)),
    "ReduceMean": _reduce(_mean),
    "ReduceMin": _reduce(_extreme(largest=False)),
    "ReduceProd": _reduce(_prod),
    "ReduceSum": _reduce(_sum),
    "ReduceSumSquare": _reduce(_sum_square),
    "TopK": _top_k,
}
