"""How many bytes of activations a model holds at once: liveness over the nodes in their order."""

import importlib
from collections.abc import Mapping
from math import prod
from typing import Final

import onnx

from mpsearch.core.hardware import Workload
from mpsearch.errors import MeasurementError

# These only look at their input in another shape: runtimes make no copy.
# Kernels read codes, so what DequantizeLinear stands for is never written.
_VIEWS: Final = frozenset(
    {"Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten", "DequantizeLinear"}
)
_KEEP_SHAPE: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})
_BITS_PER_BYTE: Final = 8
_NARROW: Final[Mapping[int, int]] = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}
_SHOWN: Final = 3


def peak_activation_bytes(model: onnx.ModelProto, workload: Workload) -> int:
    """Return the most bytes that inputs and results of nodes take at one moment.

    A tensor lives from the node that makes it to the last that reads it, the model's inputs
    from the start and its outputs to the end; views share the bytes of what they look at.
    Weights do not count, nor does what a kernel needs for itself. A runtime that fuses nodes
    or works in place needs less, one that packs its inputs more.

    Args:
        model: A base file or an exported plan; nodes run in the file's order.
        workload: The shape of each input.

    Raises:
        MeasurementError: The shape of a tensor does not follow from those of the inputs.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    home = _homes(model, constants=constants)
    known = _bytes_of_tensors(model, workload, needed=set(home.values()))
    last = _last_uses(model, home=home)
    alive: dict[str, int] = {
        value.name: known[value.name] for value in model.graph.input if value.name not in constants
    }
    peak = sum(alive.values())
    for place, node in enumerate(model.graph.node):
        for name in node.output:
            owner = home.get(name)
            if name and owner is not None and owner not in alive:
                alive[owner] = known[owner]
        peak = max(peak, sum(alive.values()))
        for name in [each for each in alive if last.get(each, place) <= place]:
            del alive[name]
    return peak


def _homes(model: onnx.ModelProto, *, constants: set[str]) -> dict[str, str]:
    """Return {tensor: the tensor whose bytes it uses}, without what follows from constants."""
    home = {value.name: value.name for value in model.graph.input if value.name not in constants}
    for node in model.graph.node:
        varies = any(name in home for name in node.input)
        for name in node.output:
            if node.op_type in _VIEWS and node.input[0] in home:
                home[name] = home[node.input[0]]
            elif varies:
                home[name] = name
    return home


def _last_uses(model: onnx.ModelProto, *, home: Mapping[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for place, node in enumerate(model.graph.node):
        for name in (*node.input, *node.output):
            if name in home:
                last[home[name]] = place
    end = len(model.graph.node)
    return last | {home[value.name]: end for value in model.graph.output if value.name in home}


def _bytes_of_tensors(
    model: onnx.ModelProto, workload: Workload, *, needed: set[str]
) -> dict[str, int]:
    types = _types(model)
    shapes = _shapes(model, workload)
    for node in model.graph.node:
        if node.op_type in _KEEP_SHAPE and node.input[0] in shapes:
            shapes.setdefault(node.output[0], shapes[node.input[0]])
    missing = sorted(name for name in needed if name not in shapes or name not in types)
    if missing:
        raise MeasurementError(
            f"The shapes of {len(missing)} tensors, such as {', '.join(missing[:_SHOWN])}, do not "
            f"follow from {dict(workload.shapes)}. Expected a model whose shapes do. Measure its "
            "memory in the runtime."
        )
    return {name: _bytes(shapes[name], types[name]) for name in needed}


def _types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return {value.name: int(value.type.tensor_type.elem_type) for value in values}


def _shapes(model: onnx.ModelProto, workload: Workload) -> dict[str, tuple[int, ...]]:
    """Return the shapes that OpenVINO finds: it follows them through computed shapes too."""
    network = importlib.import_module("openvino").Core().read_model(model.SerializeToString())
    network.reshape({name: list(shape) for name, shape in workload.shapes.items()})
    return {
        name: tuple(output.get_shape())
        for operation in network.get_ordered_ops()
        for output in operation.outputs()
        if output.get_partial_shape().is_static
        for name in output.get_names()
    }


def _bytes(shape: tuple[int, ...], kind: int) -> int:
    bits = _NARROW.get(kind)
    if bits is None:
        item = int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
        bits = _BITS_PER_BYTE * item
    return -(-prod(shape) * bits // _BITS_PER_BYTE)
