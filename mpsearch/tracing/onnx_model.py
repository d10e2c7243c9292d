"""From a model read from an ONNX file to its graph, with the layers named as in the file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from torch import Tensor, fx

from mpsearch.errors import DataError
from mpsearch.tracing.call import Call
from mpsearch.tracing.layers import NameOf
from mpsearch.tracing.onnx_base import onnx_output_of
from mpsearch.tracing.onnx_import.model import OnnxInput, OnnxModel, load_onnx
from mpsearch.tracing.onnx_import.tensors import torch_type
from mpsearch.tracing.products import Takes
from mpsearch.tracing.trace import trace_call
from mpsearch.tracing.traced_model import TracedModel

_SUFFIX: Final = ".weight"


def trace_onnx(
    model: OnnxModel, example: Mapping[str, Tensor], *, has_products: bool = False
) -> TracedModel:
    """Turn a model of an ONNX file into a graph of ATen operators, as `trace_model` does.

    Inputs of a single number are fixed at that of the example. Batch (first size of every
    input) and the sizes of integer inputs stay dynamic where the file leaves them open. A
    layer is called after its node; where that has no name, or not one of its own, after its
    weight. With `has_products`, nodes `MatMul` of two activations are layers too.

    Raises:
        ModelError: It cannot be traced, or has no layers.
        DataError: The example lacks an input, or has the wrong type or shape.
    """
    tensors = {each.name: _fitted(model, each, example=example) for each in model.inputs}
    settings = {each.name: tensors.pop(each.name) for each in model.inputs if each.is_setting}
    if settings and model.path is not None:
        # Known numbers decide about branches, so the file is read anew with them.
        known = load_onnx(model.path, settings=settings)
        return trace_onnx(known, tensors, has_products=has_products)
    free = tuple(_free_sizes(each, tensors[each.name]) for each in model.inputs)
    call = Call(args=(tensors,), kwargs={}, names=model.input_names, free=free)
    products = _multiplying(model) if has_products else None
    traced = trace_call(model.module, call, name_of=_naming(model), products=products)
    return replace(traced, output_names=model.module.graph.outputs, origin=model)


def _free_sizes(given: OnnxInput, tensor: Tensor) -> frozenset[int]:
    sizes = (None,) * tensor.ndim if given.sizes is None else given.sizes
    left_open = {place for place, size in enumerate(sizes) if not isinstance(size, int)}
    # Each further symbol (height, width) makes tracing slower by seconds.
    return frozenset(left_open & {0} if tensor.is_floating_point() else left_open)


def _fitted(model: OnnxModel, given: OnnxInput, *, example: Mapping[str, Tensor]) -> Tensor:
    name = given.name
    if name not in example:
        raise DataError(
            f"The example lacks the input {name!r} and holds {sorted(example)}. Expected "
            f"{list(model.input_names)}. Name the inputs in the data."
        )
    tensor = example[name]
    wanted = torch_type(given.element_type, name=name)
    if tensor.is_floating_point() != wanted.is_floating_point:
        raise DataError(
            f"Input {name!r} has numbers of {str(tensor.dtype).removeprefix('torch.')}. Expected "
            f"{str(wanted).removeprefix('torch.')}, as the ONNX file says. Convert the data."
        )
    if given.is_setting:
        return _setting(name, tensor)
    _check_sizes(given, tensor)
    return tensor


def _setting(name: str, tensor: Tensor) -> Tensor:
    """Return the one number of an input that has no samples, of which data gives one each."""
    values = sorted(set(tensor.reshape(-1).tolist()))
    if len(values) != 1:
        raise DataError(
            f"Input {name!r} is a single number in the ONNX file and has the values "
            f"{values[:5]} in the data. Expected the same for all samples. "
            "Search once for each value."
        )
    return tensor.reshape(-1)[0]


def _check_sizes(given: OnnxInput, tensor: Tensor) -> None:
    if given.sizes is None:
        return
    fits = len(given.sizes) == tensor.ndim and all(
        not isinstance(size, int) or size == found
        for size, found in zip(given.sizes, tensor.shape, strict=True)
    )
    if not fits:
        shown = ", ".join("any" if size is None else str(size) for size in given.sizes)
        raise DataError(
            f"Input {given.name!r} has shape {tuple(tensor.shape)}. Expected ({shown}), as the "
            "ONNX file says. Change the data, or export the model with sizes that may vary."
        )


def _naming(model: OnnxModel) -> NameOf:
    """Return the naming by the node of the file, where it has a name and that is its own."""
    nodes = tuple(model.module.graph.walk())
    node_of = {output: node.name for node in nodes for output in node.outputs}
    counts = Counter(node.name for node in nodes)
    weight_of = {path: name for name, path in model.module.paths.items()}

    def name_of(node: fx.Node, path: str) -> str:
        name = node_of.get(onnx_output_of(node), "")
        own = bool(name) and counts[name] == 1
        # What has no weight is called after its tensor.
        unnamed = onnx_output_of(node) if path not in weight_of else weight_of[path]
        return name if own else unnamed.removesuffix(_SUFFIX)

    return name_of


def _multiplying(model: OnnxModel) -> Takes:
    """Return whether a product is a node of the file, and not a part of another operator."""
    outputs = {
        output
        for node in model.module.graph.walk()
        if node.op == "MatMul"
        for output in node.outputs
    }
    return lambda node: onnx_output_of(node) in outputs
