"""Operators on one number at a time."""

from collections.abc import Callable
from functools import reduce
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operator, Operators, Result
from mpsearch.tracing.onnx_import.values import Known, as_tensor


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda call: function(call.tensor(0))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda call: function(*aligned(call, call.tensor(0), second=call.tensor(1)))


def _folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Return an operator over any number of inputs, two at a time."""
    return lambda call: reduce(function, call.tensors())


def aligned(call: NodeCall, first: Tensor, *, second: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, the second moved to the `axis` where operator sets below 7 put it."""
    axis = call.node.attributes.get("axis")
    if not call.node.attributes.get("broadcast") or axis is None:
        return first, second
    missing = first.ndim - axis % first.ndim - second.ndim
    return first, second.reshape(*second.shape, *([1] * missing))


def _add(call: NodeCall) -> Tensor:
    return torch.add(*aligned(call, call.tensor(0), second=call.tensor(1)))


def _div(call: NodeCall) -> Tensor:
    first, second = aligned(call, call.tensor(0), second=call.tensor(1))
    if first.is_floating_point() or first.is_complex():
        return torch.div(first, second)
    return torch.div(first, second, rounding_mode="trunc")


def _pow(call: NodeCall) -> Tensor:
    base, exponent = aligned(call, call.tensor(0), second=call.tensor(1))
    if not base.is_floating_point() and exponent.is_floating_point():
        return torch.pow(base.double(), exponent).to(base.dtype)
    return torch.pow(base, exponent).to(base.dtype)


def _mod(call: NodeCall) -> Tensor:
    function = torch.fmod if call.attribute("fmod", 0) else torch.remainder
    return function(call.tensor(0), call.tensor(1))


def _clip(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    low, high = _limit(call, "min", place=1), _limit(call, "max", place=2)
    if not isinstance(low, Tensor) and not isinstance(high, Tensor):
        return value if low is None and high is None else value.clamp(low, high)
    # In this order: where the limits cross, the upper one counts.
    if low is not None:
        value = torch.maximum(value, torch.as_tensor(low, dtype=value.dtype))
    if high is not None:
        value = torch.minimum(value, torch.as_tensor(high, dtype=value.dtype))
    return value


def _limit(call: NodeCall, name: str, *, place: int) -> Any:  # noqa: ANN401 - a number, a tensor or none
    if call.version < 11:  # noqa: PLR2004 - since then limits are inputs
        return call.node.attributes.get(name)
    if not call.has(place):
        return None
    given = call.value(place)
    return given.array.item() if isinstance(given, Known) else given


def _leaky_relu(call: NodeCall) -> Tensor:
    return functional.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


def _elu(call: NodeCall) -> Tensor:
    return functional.elu(call.tensor(0), call.attribute("alpha", 1.0))


def _celu(call: NodeCall) -> Tensor:
    return functional.celu(call.tensor(0), call.attribute("alpha", 1.0))


def _selu(call: NodeCall) -> Tensor:
    alpha = call.attribute("alpha", 1.67326319217681884765625)
    gamma = call.attribute("gamma", 1.05070102214813232421875)
    value = call.tensor(0)
    negative = alpha * torch.expm1(torch.minimum(value, torch.zeros_like(value)))
    return gamma * torch.where(value > 0, value, negative)


def _gelu(call: NodeCall) -> Tensor:
    return functional.gelu(call.tensor(0), approximate=call.attribute("approximate", "none"))


def _prelu(call: NodeCall) -> Tensor:
    value, slope = call.tensor(0), call.tensor(1)
    return torch.where(value >= 0, value, value * slope)


def _hard_sigmoid(call: NodeCall) -> Tensor:
    alpha, beta = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    return torch.clamp(alpha * call.tensor(0) + beta, 0, 1)


def _thresholded_relu(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    return torch.where(value > call.attribute("alpha", 1.0), value, torch.zeros_like(value))


def _shrink(call: NodeCall) -> Tensor:
    value, limit, bias = call.tensor(0), call.attribute("lambd", 0.5), call.attribute("bias", 0.0)
    zero = torch.zeros_like(value)
    return torch.where(value < -limit, value + bias, torch.where(value > limit, value - bias, zero))


def _swish(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    return value * torch.sigmoid(call.attribute("alpha", 1.0) * value)


def _hard_swish(call: NodeCall) -> Tensor:
    return functional.hardswish(call.tensor(0))


def _round(call: NodeCall) -> Tensor:
    return torch.round(call.tensor(0))  # half to even, as ONNX says


def _is_inf(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    found = torch.isinf(value)
    if not call.attribute("detect_negative", 1):
        found = found & (value > 0)
    if not call.attribute("detect_positive", 1):
        found = found & (value < 0)
    return found


def _bit_shift(call: NodeCall) -> Tensor:
    left = call.needed("direction", str) == "LEFT"
    function = torch.bitwise_left_shift if left else torch.bitwise_right_shift
    return function(call.tensor(0), call.tensor(1))


def _where(call: NodeCall) -> Tensor:
    return torch.where(call.tensor(0), call.tensor(1), call.tensor(2))


def _identity(call: NodeCall) -> Any:  # noqa: ANN401 - whatever came in
    return call.value(0)


def _dropout(call: NodeCall) -> list[Tensor | None]:
    value = call.tensor(0)
    if call.has(2) and bool(call.scalar(2)) and (not call.has(1) or call.scalar(1) != 0):
        raise call.wrong("drops numbers at random, as in training", "a model for inference")
    return [value, torch.ones_like(value, dtype=torch.bool) if call.wants(1) else None]


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(call: NodeCall) -> Tensor:
        value = call.tensor(0)
        if call.version >= 13:  # noqa: PLR2004 - before, all axes from `axis` on were one
            return function(value, dim=call.attribute("axis", -1))
        axis = call.attribute("axis", 1)
        axis = axis + value.ndim if axis < 0 else axis
        rows = value.flatten(start_dim=axis) if axis < value.ndim else value.unsqueeze(-1)
        return function(rows, dim=axis).reshape(value.shape)

    return run


def _hardmax(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    axis = call.attribute("axis", -1 if call.version >= 13 else 1)  # noqa: PLR2004 - as in `_softmax`
    places = value.argmax(dim=axis, keepdim=True)
    return torch.zeros_like(value).scatter(axis, places, 1)


_UNSIGNED: Final = frozenset({torch.uint16, torch.uint32, torch.uint64})

_PLAIN: Final[Operators] = {
    "Abs": _unary(torch.abs),
    "Acos": _unary(torch.acos),
    "Acosh": _unary(torch.acosh),
    "Add": _add,
    "And": _binary(torch.logical_and),
    "Asin": _unary(torch.asin),
    "Asinh": _unary(torch.asinh),
    "Atan": _unary(torch.atan),
    "Atanh": _unary(torch.atanh),
    "BitShift": _bit_shift,
    "BitwiseAnd": _binary(torch.bitwise_and),
    "BitwiseNot": _unary(torch.bitwise_not),
    "BitwiseOr": _binary(torch.bitwise_or),
    "BitwiseXor": _binary(torch.bitwise_xor),
    "Ceil": _unary(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "Cosh": _unary(torch.cosh),
    "Div": _div,
    "Dropout": _dropout,
    "Elu": _elu,
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gelu": _gelu,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Hardmax": _hardmax,
    "Identity": _identity,
    "IsInf": _is_inf,
    "IsNaN": _unary(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(functional.log_softmax),
    "Max": _folded(torch.maximum),
    "Mean": lambda call: reduce(torch.add, call.tensors()) / len(call.values),
    "Min": _folded(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mod": _mod,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Round": _round,
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Sinh": _unary(torch.sinh),
    "Softmax": _softmax(functional.softmax),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _binary(torch.sub),
    "Sum": _folded(torch.add),
    "Swish": _swish,
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _binary(torch.logical_xor),
}


def _widened(operator: Operator) -> Operator:
    """Return an operator that also takes unsigned numbers for which torch has no kernels."""

    def run(call: NodeCall) -> Result:
        given = [as_tensor(value) if value is not None else None for value in call.values]
        narrow = {value.dtype for value in given if value is not None} & _UNSIGNED
        if not narrow:
            return operator(call)
        wide = [
            value.long() if value is not None and value.dtype in _UNSIGNED else value
            for value in given
        ]
        found = operator(NodeCall(call.node, wide))
        (dtype,) = narrow
        is_whole = isinstance(found, Tensor) and found.dtype is torch.int64
        return found.to(dtype) if isinstance(found, Tensor) and is_whole else found

    return run


ELEMENTWISE: Final[Operators] = {name: _widened(each) for name, each in _PLAIN.items()}
