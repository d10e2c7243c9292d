"""The base file of a model that came as an ONNX file: its own nodes, with the layers marked."""

from collections import Counter
from typing import Final

import onnx
import torch

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.model import OnnxModel
from mpsearch.tracing.onnx_import.module import OUTPUT_KEY
from mpsearch.tracing.onnx_import.tensors import ONNX_TYPES, to_proto
from mpsearch.tracing.traced_model import TracedModel, tensor_at

LAYER_KEY: Final = "mpsearch.layer"
COMPUTING: Final = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Gather"})
_LARGEST_FILE: Final = 2**31 - 2**24  # protobuf's limit, less room for the structure


def own_file(traced: TracedModel, origin: OnnxModel) -> onnx.ModelProto:
    """Return the file that the model was read from, simplified, with its layers marked.

    Raises:
        ModelError: It is larger than a file of ONNX can be.
    """
    model = onnx.ModelProto()
    model.CopyFrom(origin.structure)
    _name_nodes_(model.graph)
    _mark_layers_(model.graph, traced)
    _give_shapes_(model.graph, traced)
    _add_weights_(model.graph, origin)
    return model


def onnx_output_of(node: torch.fx.Node) -> str:
    """Return the tensor of the ONNX file whose node a node of the graph is part of, or ""."""
    return str(node.meta.get("custom", {}).get(OUTPUT_KEY, ""))


def _name_nodes_(graph: onnx.GraphProto) -> None:
    """Give each node a name of its own, since runtimes report by them."""
    counts = Counter(node.name for node in graph.node)
    for node in graph.node:
        if not node.name or counts[node.name] > 1:
            node.name = next(name for name in node.output if name)


def _mark_layers_(graph: onnx.GraphProto, traced: TracedModel) -> None:
    producers = {name: node for node in graph.node for name in node.output}
    nodes = {node.name: node for node in traced.module.graph.nodes}
    for layer, names in traced.nodes.items():
        for name in names:
            node = producers.get(onnx_output_of(nodes[name]))
            if node is None or node.op_type not in COMPUTING:
                kind = "no node" if node is None else f"a node of type {node.op_type}"
                raise ModelError(
                    f"Layer {layer!r} is {kind} in the ONNX file. Expected one of "
                    f"{', '.join(sorted(COMPUTING))}. Export the model with such nodes."
                )
            del node.metadata_props[:]
            node.metadata_props.add(key=LAYER_KEY, value=layer)


def _give_shapes_(graph: onnx.GraphProto, traced: TracedModel) -> None:
    """Give outputs without a shape the traced one: onnx's checker and runtimes ask for it."""
    (result,) = (node for node in traced.module.graph.nodes if node.op == "output")
    for described, node in zip(graph.output, result.all_input_nodes, strict=False):
        kind = described.type.tensor_type
        if kind.HasField("shape"):
            continue
        kind.shape.Clear()
        for size in node.meta["val"].shape:
            dimension = kind.shape.dim.add()
            if isinstance(size, int):
                dimension.dim_value = size


def _add_weights_(graph: onnx.GraphProto, origin: OnnxModel) -> None:
    total = 0
    for name, path in origin.module.paths.items():
        tensor = tensor_at(origin.module, path)
        total += tensor.numel() * tensor.dtype.itemsize
        if total > _LARGEST_FILE:
            raise ModelError(
                f"The model has more than {_LARGEST_FILE} bytes of weights. Expected less, the "
                "most that one ONNX file holds. Choose the runtime 'simulation'."
            )
        kind = origin.types.get(name, ONNX_TYPES[tensor.dtype])
        graph.initializer.append(to_proto(tensor, name=name, data_type=kind))
