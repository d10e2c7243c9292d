"""From explicit QDQ to layers that kernels of torch run: constants are taken out of the graph.

Each matrix product and convolution with a constant weight becomes a node that reads its input
alone; what it multiplies by is handed on beside the graph, for torch to pack as its kernels
want it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx
from jaxtyping import Float32, Int8
from ml_dtypes import bfloat16
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.export.graph_edit import LAYER_KEY, metadata, remove_unused_
from mpsearch.runtimes.lowering_graph import Graph, QuantisedWeight

_TAKEN_OUT: Final = frozenset({"MatMul", "Gemm", "Conv"})
_QUANTIZE: Final = "QuantizeLinear"
_SCALES: Final = frozenset({_QUANTIZE, "DequantizeLinear"})
_NAMING_TYPES: Final = frozenset({"to", "dtype"})  # attributes that say what is made
_LARGEST: Final = (2 - 2**-7) * 2.0**127  # of bfloat16


@final
@dataclass(frozen=True, kw_only=True)
class InputCodes:
    """How the codes that a layer reads stand for real numbers: (code - zero_point) x scale.

    They are whole numbers of 8 bits without sign, or floats of 8 bits, whose zero is 0.
    """

    scale: float
    zero_point: int
    is_float8: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """What a layer's node multiplies its input by, outputs first, and adds.

    `weight` holds real numbers, or codes of one `scale` per output where `given` says that
    the layer reads codes too. `stored` is how the file holds a quantised one.
    """

    layer: str
    is_convolution: bool
    weight: Float32[ndarray, "..."] | Int8[ndarray, "..."]
    bias: Float32[ndarray, " O"] | None
    scale: Float32[ndarray, " O"] | None = None
    given: InputCodes | None = None
    stored: QuantisedWeight | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Lowered:
    """The graph without the layers' constants, which are in `works` by output tensor.

    `quantizers` are the nodes that make codes, by output tensor.
    """

    model: onnx.ModelProto
    works: Mapping[str, LayerWork]
    quantizers: Mapping[str, InputCodes]


def lowered(model: onnx.ModelProto, *, base: str) -> Lowered:
    """Return the same computation with the layers' constants beside the graph.

    Args:
        model: A base file or an exported plan.
        base: What everything outside of the layers is computed in: "fp32" or "bf16".
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = Graph.of(result)
    graph.merge_quantizers_()
    works = dict(item for node in graph.nodes for item in _taken_out(graph, node))
    graph.write_()
    remove_unused_(result)
    quantizers = {
        node.output[0]: _input_codes(graph, scale=node.input[1], zero_point=node.input[2])
        for node in result.graph.node
        if node.op_type == _QUANTIZE and _is_single(graph, node.input[1])
    }
    if base == "bf16":
        _to_bfloat16_(result.graph)
    return Lowered(model=result, works=works, quantizers=quantizers)


def _taken_out(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, LayerWork]]:
    """Make a layer's node read its input alone, where what it computes can be told."""
    layer = metadata(node.metadata_props).get(LAYER_KEY)
    if layer is None or node.op_type not in _TAKEN_OUT:
        return
    stored = graph.quantised_weight(node)
    plain = _wide(stored) if stored is not None else graph.plain_weight(node)
    if plain is None or not graph.is_plain_product(node, outputs=len(plain)):
        return  # it runs as it stands in the file, which the check of kernels tells
    given = graph.quantised_input(node)
    if given is not None and graph.array(given.scale) is None:
        return  # a range that is found at run time, for which oneDNN is not called
    bias, output = graph.take_bias_(node, outputs=len(plain))
    shift = graph.array(bias) if bias else None
    if bias and shift is None:
        return
    codes, source, weight, scale = None, node.input[0], plain, None
    if given is not None and stored is not None:
        codes = _input_codes(graph, scale=given.scale, zero_point=given.zero_point)
        source, weight = given.codes, stored.codes
        scale = np.broadcast_to(stored.scale.reshape(-1), len(plain)).astype(np.float32)
    made = helper.make_node(node.op_type, [source], [output])
    made.attribute.extend(node.attribute)
    graph.replace_(node, made)
    yield (
        output,
        LayerWork(
            layer=layer,
            is_convolution=node.op_type == "Conv",
            weight=np.ascontiguousarray(weight),
            bias=shift,
            scale=scale,
            given=codes,
            stored=stored,
        ),
    )


def _wide(stored: QuantisedWeight) -> Float32[ndarray, "..."]:
    scale = stored.scale
    if stored.group_size is not None:
        scale = np.repeat(scale, stored.group_size, axis=1)
    else:
        scale = scale.reshape(-1, *[1] * (stored.codes.ndim - 1))
    wide: ndarray = stored.codes.astype(np.float32) * scale.astype(np.float32)
    return wide


def _input_codes(graph: Graph, *, scale: str, zero_point: str) -> InputCodes:
    step, zero = graph.array(scale), graph.array(zero_point)
    assert step is not None
    assert zero is not None
    return InputCodes(
        scale=float(step.item()),
        zero_point=int(zero.item()),
        is_float8=zero.dtype.name.startswith("float8"),
    )


def _is_single(graph: Graph, name: str) -> bool:
    array = graph.array(name)
    return array is not None and array.size == 1


def _to_bfloat16_(graph: onnx.GraphProto) -> None:
    """Make every float of a graph a bfloat16, those of its inputs, outputs and subgraphs too."""
    exact = {name for node in graph.node if node.op_type in _SCALES for name in node.input[1:2]}
    for tensor in graph.initializer:
        if tensor.name not in exact:
            _round_(tensor)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.BFLOAT16
    for node in graph.node:
        for attribute in node.attribute:
            _narrow_(attribute)


def _narrow_(attribute: onnx.AttributeProto) -> None:
    if attribute.name in _NAMING_TYPES and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.BFLOAT16
    if attribute.HasField("t"):
        _round_(attribute.t)
    for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
        _to_bfloat16_(inner)


def _round_(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    # The most negative float32, a mask, would round to minus infinity, and a row of it to NaN.
    numbers = numpy_helper.to_array(tensor)
    cut = np.where(np.isfinite(numbers), numbers.clip(-_LARGEST, _LARGEST), numbers)
    tensor.CopyFrom(numpy_helper.from_array(cut.astype(bfloat16), tensor.name))
