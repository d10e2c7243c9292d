"""Find and change parts of an ONNX graph; no knowledge of formats."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, final

import onnx

from mpsearch.core.graph import is_product_name
from mpsearch.errors import ModelError

LAYER_KEY: Final = "mpsearch.layer"
PART_KEY: Final = "mpsearch.part"  # marks nodes that an exporter adds to do a layer's work
_WEIGHT_INPUT: Final = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "Gather": 0}

_SHAPES: Final = frozenset({"Shape", "Size"})  # read the shape of a tensor, not its numbers


@final
@dataclass(frozen=True, kw_only=True)
class LayerNode:
    """One node that runs a layer, with the initialiser that holds its weight.

    `transposed` tells that a Transpose stands between the initialiser and the node. A product
    of two activations has no initialiser: "".
    """

    layer: str
    node: onnx.NodeProto
    initializer: str
    transposed: bool

    @property
    def weight_slot(self) -> int:
        """Return which input of the node is the weight."""
        return _WEIGHT_INPUT[self.node.op_type]

    @property
    def is_product(self) -> bool:
        """Return whether it multiplies two activations."""
        return not self.initializer

    @property
    def input_slot(self) -> int:
        """Return which input of the node is the layer's input."""
        return 1 - self.weight_slot


def metadata(properties: Iterable[onnx.StringStringEntryProto]) -> dict[str, str]:
    """Return metadata properties of a node or model as a dictionary."""
    return {entry.key: entry.value for entry in properties}


def layer_nodes(model: onnx.ModelProto) -> list[LayerNode]:
    """Return the nodes that carry a layer's name in their metadata, in the file's order.

    Raises:
        ModelError: There is none, or one of them has no weight among the initialisers.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    found = [
        _layer_node(layer, node, initializers=initializers, producers=producers)
        for layer, node in _marked(model, LAYER_KEY)
    ]
    if not found:
        raise ModelError(
            f"None of the {len(model.graph.node)} nodes of the ONNX graph carries the property "
            f"{LAYER_KEY!r}. Expected it at every layer. Export the model with "
            "`mpsearch.tracing.base_onnx`."
        )
    return found


def _marked(model: onnx.ModelProto, key: str) -> Iterator[tuple[str, onnx.NodeProto]]:
    for node in model.graph.node:
        layer = metadata(node.metadata_props).get(key)
        if layer is not None:
            yield layer, node


def _layer_node(
    layer: str,
    node: onnx.NodeProto,
    *,
    initializers: set[str],
    producers: dict[str, onnx.NodeProto],
) -> LayerNode:
    if node.op_type not in _WEIGHT_INPUT:
        raise ModelError(
            f"Layer {layer!r} is a node of type {node.op_type!r}. Expected one of "
            f"{', '.join(_WEIGHT_INPUT)}. Export the model with `mpsearch.tracing.base_onnx`."
        )
    name = node.input[_WEIGHT_INPUT[node.op_type]]
    transposed = name in producers and producers[name].op_type == "Transpose"
    if transposed:
        name = producers[name].input[0]
    if name not in initializers and is_product_name(layer):
        return LayerNode(layer=layer, node=node, initializer="", transposed=False)
    if name not in initializers:
        raise ModelError(
            f"The weight {name!r} of layer {layer!r} is computed in the graph. Expected an "
            "initialiser, as it is or transposed. Fold the constants of the model first."
        )
    return LayerNode(layer=layer, node=node, initializer=name, transposed=transposed)


def fused_names(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return {layer: names a runtime may give the node that runs it}.

    A runtime that fuses a layer with the addition of its bias keeps the name of either, and
    calls a node after its tensor where that is an output of the model.
    """
    initializers = {tensor.name for tensor in model.graph.initializer}
    uses = Counter(name for node in model.graph.node for name in node.input)
    consumers = {name: node for node in model.graph.node for name in node.input}
    names: dict[str, tuple[str, ...]] = {}
    for layer, node in _marked(model, LAYER_KEY):
        output = node.output[0]
        own = [node.name, output]
        follower = consumers.get(output)
        if (
            uses[output] == 1
            and follower is not None
            and follower.op_type == "Add"
            and any(name in initializers for name in follower.input)
        ):
            own.extend([follower.name, follower.output[0]])
        names[layer] = (*names.get(layer, ()), *own)
    return names


def part_names(model: onnx.ModelProto) -> dict[str, tuple[str, ...]]:
    """Return {layer: names of the nodes that an exporter added to do its work}."""
    names: dict[str, tuple[str, ...]] = {}
    for layer, node in _marked(model, PART_KEY):
        names[layer] = (*names.get(layer, ()), node.name)
    return names


def constant_layers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return the layers whose input follows from the shapes of the model's inputs alone.

    A runtime that knows the shapes computes them once, while building.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    varying = {value.name for value in model.graph.input} - constants
    for node in model.graph.node:  # in order of execution, as ONNX demands
        read = varying.intersection((*node.input, *_outer_names(node)))
        if read and node.op_type not in _SHAPES:
            varying.update(node.output)
    return tuple(
        layer for layer, node in _marked(model, LAYER_KEY) if not varying.intersection(node.output)
    )


def remove_unused_(model: onnx.ModelProto) -> None:
    """Remove nodes and initialisers that no output of the graph needs."""
    graph = model.graph
    needed = {output.name for output in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
            needed.update(_outer_names(node))
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend(tensors)
    values = {name for node in graph.node for name in node.output}
    infos = [info for info in graph.value_info if info.name in values]
    del graph.value_info[:]
    graph.value_info.extend(infos)


def _outer_names(node: onnx.NodeProto) -> set[str]:
    """Return every name that a subgraph of the node reads."""
    return {
        name
        for attribute in node.attribute
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        for child in inner.node
        for name in (*child.input, *_outer_names(child))
    } | {
        output.name
        for attribute in node.attribute
        for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
        for output in inner.output
    }
