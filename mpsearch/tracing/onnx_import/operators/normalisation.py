"""Operators that bring numbers to mean 0 and variance 1, or to length 1."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.tensors import torch_type


def _batch_normalisation(call: NodeCall) -> list[Tensor]:
    value, scale, bias, mean, variance = (call.tensor(place) for place in range(5))
    epsilon, momentum = call.attribute("epsilon", 1e-5), call.attribute("momentum", 0.9)
    if not call.attribute("training_mode", 0):
        mean, variance, scale, bias = (
            each if each.dtype == value.dtype else each.to(value.dtype)
            for each in (mean, variance, scale, bias)
        )
        return [functional.batch_norm(value, mean, variance, scale, bias, eps=epsilon)]
    axes = [axis for axis in range(value.ndim) if axis != 1]
    own_mean, own_variance = value.mean(axes), value.var(axes, unbiased=False)
    done = _standardised(value, own_mean, variance=own_variance, epsilon=epsilon)
    new_mean = mean * momentum + own_mean * (1 - momentum)
    new_variance = variance * momentum + own_variance * (1 - momentum)
    return [_per_channel(scale, value) * done + _per_channel(bias, value), new_mean, new_variance]


def _standardised(value: Tensor, mean: Tensor, *, variance: Tensor, epsilon: float) -> Tensor:
    deviation = (_per_channel(variance, value) + epsilon).sqrt()
    return (value - _per_channel(mean, value)) / deviation


def _per_channel(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.reshape(1, -1, *([1] * (like.ndim - 2)))


def _instance_normalisation(call: NodeCall) -> Tensor:
    value, scale, bias = (call.tensor(place) for place in range(3))
    axes = list(range(2, value.ndim))
    variance, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
    done = (value - mean) / (variance + call.attribute("epsilon", 1e-5)).sqrt()
    return done * _per_channel(scale, value) + _per_channel(bias, value)


def _group_normalisation(call: NodeCall) -> Tensor:
    value, scale, bias = (call.tensor(place) for place in range(3))
    groups = call.needed("num_groups", int)
    epsilon = call.attribute("epsilon", 1e-5)
    if scale.shape[0] == groups != value.shape[1]:  # operator set 18: one scale per group
        repeats = int(value.shape[1]) // groups
        scale, bias = scale.repeat_interleave(repeats), bias.repeat_interleave(repeats)
    return functional.group_norm(value, groups, scale, bias, eps=epsilon)


def _layer_normalisation(call: NodeCall) -> list[Tensor | None]:
    value, scale, bias = call.tensor(0), call.tensor(1), call.optional(2)
    axis, epsilon = call.attribute("axis", -1), call.attribute("epsilon", 1e-5)
    axes = list(range(axis % value.ndim, value.ndim))
    if not call.wants(1) and not call.wants(2) and _fits(scale, value, axes=axes):
        sizes = [value.shape[each] for each in axes]
        return [functional.layer_norm(value, sizes, scale, bias, eps=epsilon)]
    variance, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
    inverse = (variance + epsilon).rsqrt()
    done = (value - mean) * inverse * scale
    return [done if bias is None else done + bias, mean, inverse]


def _fits(scale: Tensor, value: Tensor, *, axes: Sequence[int]) -> bool:
    sizes = [value.shape[axis] for axis in axes]
    return all(isinstance(size, int) for size in sizes) and list(scale.shape) == sizes


def _rms_normalisation(call: NodeCall) -> Tensor:
    value, scale = call.tensor(0), call.tensor(1)
    axis, epsilon = call.attribute("axis", -1), call.attribute("epsilon", 1e-5)
    axes = list(range(axis % value.ndim, value.ndim))
    stash = torch_type(call.attribute("stash_type", 1), name=call.node.title)
    wide = value.to(stash)
    inverse = (wide.square().mean(axes, keepdim=True) + epsilon).rsqrt()
    return (wide * inverse).to(value.dtype) * scale


def _lp_normalisation(call: NodeCall) -> Tensor:
    value, axis, power = call.tensor(0), call.attribute("axis", -1), call.attribute("p", 2)
    length = torch.linalg.vector_norm(value, power, dim=axis, keepdim=True)
    return torch.where(length == 0, torch.zeros_like(value), value / length)


def _mean_variance_normalisation(call: NodeCall) -> Tensor:
    value = call.tensor(0)
    axes = list(call.attribute("axes", (0, 2, 3)))
    variance, mean = torch.var_mean(value, axes, correction=0, keepdim=True)
    # The function that defines the operator adds this under the root's result.
    return (value - mean) / (variance.sqrt() + 1e-9)


def _local_response(call: NodeCall) -> Tensor:
    value, size = call.tensor(0), call.needed("size", int)
    alpha, beta = call.attribute("alpha", 1e-4), call.attribute("beta", 0.75)
    squares = value.square().unsqueeze(1)
    pads = [0, 0] * (value.ndim - 2) + [(size - 1) // 2, size // 2]
    padded = functional.pad(squares, pads)
    total = sum(padded.narrow(2, place, value.shape[1]) for place in range(size))
    assert isinstance(total, Tensor)
    return value / (call.attribute("bias", 1.0) + alpha / size * total.squeeze(1)) ** beta


NORMALISATION: Final[Operators] = {
    "BatchNormalization": _batch_normalisation,
    "GroupNormalization": _group_normalisation,
    "InstanceNormalization": _instance_normalisation,
    "LRN": _local_response,
    "LayerNormalization": _layer_normalisation,
    "LpNormalization": _lp_normalisation,
    "MeanVarianceNormalization": _mean_variance_normalisation,
    "RMSNormalization": _rms_normalisation,
}
