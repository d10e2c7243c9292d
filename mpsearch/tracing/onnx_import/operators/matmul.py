"""Products of matrices."""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from mpsearch.tracing.onnx_import.call import NodeCall, Operators

_MATRIX: Final = 2  # dimensions


def _matmul(call: NodeCall) -> Tensor:
    first, second = call.tensor(0), call.tensor(1)
    if not first.is_floating_point():
        return torch.matmul(first.long(), second.long()).to(first.dtype)
    return torch.matmul(first, second)


def _gemm(call: NodeCall) -> Tensor:
    first, second, third = call.tensor(0), call.tensor(1), call.optional(2)
    alpha, beta = call.attribute("alpha", 1.0), call.attribute("beta", 1.0)
    if not first.is_floating_point():
        return _whole_gemm(call)
    if call.attribute("transA", 0):
        first = first.t()
    if alpha != 1:
        first = first * alpha
    if third is not None and beta != 1:
        third = third * beta
    if call.attribute("transB", 0):
        # A bias of one row goes into the layer; any other is added behind it.
        if third is None or _is_bias(third, second.shape[0]):
            return functional.linear(first, second, third)
        return functional.linear(first, second) + third
    product = torch.matmul(first, second)
    return product if third is None else product + third


def _is_bias(value: Tensor, outputs: object) -> bool:
    return value.ndim == 1 and value.shape[0] == outputs


def _whole_gemm(call: NodeCall) -> Tensor:
    first, second, third = call.tensor(0), call.tensor(1), call.optional(2)
    first = first.t() if call.attribute("transA", 0) else first
    second = second.t() if call.attribute("transB", 0) else second
    product = torch.matmul(first.long(), second.long()) * int(call.attribute("alpha", 1.0))
    if third is not None:
        product = product + third.long() * int(call.attribute("beta", 1.0))
    return product.to(first.dtype)


def _einsum(call: NodeCall) -> Tensor:
    product: Tensor = torch.einsum(call.needed("equation", str), *call.tensors())
    return product


def _det(call: NodeCall) -> Tensor:
    found: Tensor = torch.linalg.det(call.tensor(0))
    return found


MATMUL: Final[Operators] = {
    "Det": _det,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
