"""Convolutions of 8-bit inputs in ONNX Runtime: QLinearConv where the output is quantised too."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx
from onnx import helper

from mpsearch.runtimes.lowering_graph import (
    Graph,
    QuantisedInput,
    QuantisedWeight,
    attributes,
)

_CODES: Final = 255
_BIAS_SLOT: Final = 2
_LARGEST_SUM: Final = 2**30  # half of what 32 bits hold, so that products fit on top
# A range that ends at the bound of a Clip may exceed it by the rounding of its scale.
_ROUNDING: Final = 1e-4


@final
@dataclass(frozen=True, kw_only=True)
class _Target:
    """The quantiser behind a convolution, and the bends between them that it makes needless."""

    quantize: onnx.NodeProto
    skipped: tuple[onnx.NodeProto, ...]


def lower_convolution_(
    graph: Graph,
    node: onnx.NodeProto,
    *,
    weight: QuantisedWeight,
    given: QuantisedInput | None,
) -> None:
    """Replace a convolution of 8-bit inputs; one of small weights alone stays as it is.

    QLinearConv makes codes, so it serves where nothing but one quantiser reads the output,
    past a ReLU at most. ConvInteger elsewhere makes exact sums, and is slow: 4 times an
    fp32 convolution of a CIFAR ResNet, where QLinearConv takes half of it.
    """
    if given is None:
        return
    target = _target(graph, node.output[0])
    if target is None:
        _sum_exactly_(graph, node, weight=weight, given=given)
    else:
        _make_codes_(graph, node, weight=weight, given=given, target=target)


def _make_codes_(
    graph: Graph,
    node: onnx.NodeProto,
    *,
    weight: QuantisedWeight,
    given: QuantisedInput,
    target: _Target,
) -> None:
    bias = _bias(graph, node)
    codes, scale = _with_room(weight, bias=bias, step=_number(graph, given.scale))
    zeros = graph.constant(f"{node.name}.zero_points", np.zeros(len(scale), dtype=np.int8))
    inputs = [
        given.codes, given.scale, given.zero_point,
        graph.constant(f"{node.name}.codes", codes),
        graph.constant(f"{node.name}.scale", scale), zeros,
        target.quantize.input[1], target.quantize.input[2],
    ]  # fmt: skip
    if bias is not None:
        step = np.float64(_number(graph, given.scale)) * scale
        whole = np.rint(bias / step).astype(np.int32)
        inputs.append(graph.constant(f"{node.name}.whole_bias", whole))
    made = helper.make_node("QLinearConv", inputs, [target.quantize.output[0]])
    made.attribute.extend(node.attribute)
    graph.replace_(node, made)
    for each in (*target.skipped, target.quantize):
        graph.remove_(each)


def _sum_exactly_(
    graph: Graph, node: onnx.NodeProto, *, weight: QuantisedWeight, given: QuantisedInput
) -> None:
    name, output = node.name, node.output[0]
    spread = (-1, *[1] * (weight.codes.ndim - 2))  # one number per channel, at every place
    step = (np.float32(_number(graph, given.scale)) * _scale(weight)).reshape(spread)
    codes = graph.constant(f"{name}.codes", weight.codes)
    product = helper.make_node(
        "ConvInteger", [given.codes, codes, given.zero_point], [f"{name}.sums"]
    )
    product.attribute.extend(node.attribute)
    bias = _bias(graph, node)
    scaled = output if bias is None else f"{name}.scaled"
    made = [
        product,
        helper.make_node("Cast", [f"{name}.sums"], [f"{name}.wide"], to=onnx.TensorProto.FLOAT),
        helper.make_node(
            "Mul", [f"{name}.wide", graph.constant(f"{name}.step", step)], [scaled]
        ),
    ]  # fmt: skip
    if bias is not None:
        shift = graph.constant(f"{name}.shift", bias.reshape(spread))
        made.append(helper.make_node("Add", [scaled, shift], [output]))
    graph.replace_(node, *made)


def _target(graph: Graph, tensor: str) -> _Target | None:
    """Return what quantises a tensor, where nothing else reads it."""
    skipped: list[onnx.NodeProto] = []
    reader = graph.only_consumer(tensor)
    while reader is not None and reader.op_type in ("Relu", "Clip"):
        skipped.append(reader)
        reader = graph.only_consumer(reader.output[0])
    if reader is None or reader.op_type != "QuantizeLinear":
        return None
    if not all(_is_needless(graph, bend, quantize=reader) for bend in skipped):
        return None
    return _Target(quantize=reader, skipped=tuple(skipped))


def _is_needless(graph: Graph, bend: onnx.NodeProto, *, quantize: onnx.NodeProto) -> bool:
    """Return whether the quantiser's own range cuts all that a Relu or Clip would."""
    scale, zero = (_number(graph, name) for name in quantize.input[1:3])
    low, high = -zero * scale, (_CODES - zero) * scale
    if bend.op_type == "Relu":
        return low >= 0
    bounds = [graph.array(name) for name in bend.input[1:]]
    if len(bounds) != 2 or any(each is None for each in bounds):  # noqa: PLR2004 - a lower and an upper bound
        return False
    least, most = (float(np.asarray(each).item()) for each in bounds)
    return low >= least - _ROUNDING * abs(least) and high <= most + _ROUNDING * abs(most)


def _scale(weight: QuantisedWeight) -> np.ndarray:
    return np.ascontiguousarray(weight.scale.reshape(-1))


def _with_room(
    weight: QuantisedWeight, *, bias: np.ndarray | None, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and scales with which the bias is a whole number of 32 bits.

    A channel of all but vanishing weights gets a larger scale and fewer codes: by 2^-31 of its
    bias per weight at most, which nothing shows.
    """
    scale = _scale(weight).astype(np.float64)
    least = np.zeros_like(scale) if bias is None else np.abs(bias) / (_LARGEST_SUM * step)
    raised = np.maximum(scale, least)
    raised = np.where(raised > 0, raised, 1.0)
    spread = (-1, *[1] * (weight.codes.ndim - 1))
    codes = np.rint(weight.codes * (scale / raised).reshape(spread)).astype(np.int8)
    return codes, raised.astype(np.float32)


def _number(graph: Graph, name: str) -> float:
    array = graph.array(name)
    assert array is not None
    return float(array.item())


def _bias(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    if len(node.input) <= _BIAS_SLOT or not node.input[_BIAS_SLOT]:
        return None
    array = graph.array(node.input[_BIAS_SLOT])
    assert array is not None, attributes(node)
    return array
