"""From a model read from an ONNX file to its graph, with the layers named as in the file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from torch import Tensor, fx

from mpsearch.errors import DataError
from mpsearch.tracing.layers import NameOf
from mpsearch.tracing.onnx_base import onnx_output_of
from mpsearch.tracing.onnx_import.model import OnnxModel
from mpsearch.tracing.onnx_import.tensors import torch_type
from mpsearch.tracing.program import Call
from mpsearch.tracing.trace import trace_call
from mpsearch.tracing.traced_model import TracedModel

_SUFFIX: Final = ".weight"


def trace_onnx(model: OnnxModel, example: Mapping[str, Tensor]) -> TracedModel:
    """Turn a model of an ONNX file into a graph of ATen operators, as `trace_model` does.

    Sizes that the file names, or leaves open, stay dynamic. A layer is called after its
    node; where that has no name, or not one of its own, after its weight.

    Raises:
        ModelError: It cannot be traced, or has no layers.
        DataError: The example lacks an input, or has the wrong type or shape.
    """
    tensors = {each.name: _fitted(model, each.name, example=example) for each in model.inputs}
    free = tuple(
        frozenset(place for place, size in enumerate(each.sizes) if not isinstance(size, int))
        for each in model.inputs
    )
    call = Call(args=(tensors,), kwargs={}, names=model.input_names, free=free)
    traced = trace_call(model.module, call, name_of=_naming(model))
    return replace(traced, output_names=model.module.graph.outputs, origin=model)


def _fitted(model: OnnxModel, name: str, *, example: Mapping[str, Tensor]) -> Tensor:
    given = next(each for each in model.inputs if each.name == name)
    if name not in example:
        raise DataError(
            f"The example lacks the input {name!r} and holds {sorted(example)}. Expected "
            f"{list(model.input_names)}. Name the inputs in the data."
        )
    tensor = example[name]
    wanted = torch_type(given.element_type, name=name)
    if tensor.dtype != wanted:
        raise DataError(
            f"Input {name!r} has numbers of {str(tensor.dtype).removeprefix('torch.')}. Expected "
            f"{str(wanted).removeprefix('torch.')}, as the ONNX file says. Convert the data."
        )
    fits = len(given.sizes) == tensor.ndim and all(
        not isinstance(size, int) or size == found
        for size, found in zip(given.sizes, tensor.shape, strict=True)
    )
    if given.sizes and not fits:
        shown = ", ".join("any" if size is None else str(size) for size in given.sizes)
        raise DataError(
            f"Input {name!r} has shape {tuple(tensor.shape)}. Expected ({shown}), as the ONNX "
            "file says. Change the data, or export the model with sizes that may vary."
        )
    return tensor


def _naming(model: OnnxModel) -> NameOf:
    """Return the naming by the node of the file, where it has a name and that is its own."""
    nodes = tuple(model.module.graph.walk())
    node_of = {output: node.name for node in nodes for output in node.outputs}
    counts = Counter(node.name for node in nodes)
    weight_of = {path: name for name, path in model.module.paths.items()}

    def name_of(node: fx.Node, path: str) -> str:
        name = node_of.get(onnx_output_of(node), "")
        own = bool(name) and counts[name] == 1
        return name if own else weight_of[path].removesuffix(_SUFFIX)

    return name_of
