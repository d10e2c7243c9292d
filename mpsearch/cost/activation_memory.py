"""How many bytes of activations a model holds at once: liveness over the nodes in their order."""

import importlib
from collections import Counter
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
# Runtimes fuse these into what makes their input, which is then never written by itself.
_FUSED: Final = frozenset(
    {"QuantizeLinear", "Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSwish", "Gelu"}
)
# The result of these takes the place of an input of its size that nothing reads later.
_IN_PLACE: Final = frozenset(
    {"Add", "Sub", "Mul", "Div", "Pow", "Erf", "Sqrt", "Exp", "Neg", "Where", *_FUSED}
)
_BF16: Final = "bf16"
_BITS_PER_BYTE: Final = 8
_NARROW: Final[Mapping[int, int]] = {onnx.TensorProto.INT4: 4, onnx.TensorProto.UINT4: 4}
_SHOWN: Final = 3


def peak_activation_bytes(model: onnx.ModelProto, workload: Workload, *, base: str = "fp32") -> int:
    """Return the most bytes that inputs and results of nodes take at one moment.

    A tensor lives from the node that makes it to the last that reads it, the model's inputs
    from the start and its outputs to the end; views share the bytes of what they look at. A
    nonlinearity or quantiser that alone reads a result is fused into what makes it, and sums
    and products take the place of an input that ends there, as runtimes do.
    Weights do not count, nor does what a kernel needs for itself.

    Args:
        model: A base file or an exported plan; nodes run in the file's order.
        workload: The shape of each input.
        base: What plain numbers are kept in; bf16 takes half of what the file says.

    Raises:
        MeasurementError: The shape of a tensor does not follow from those of the inputs.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    home = _homes(model, constants=constants)
    known = _bytes_of_tensors(model, workload, needed=set(home.values()), base=base)
    last = _last_uses(model, home=home)
    alive: dict[str, int] = {
        home[value.name]: known[home[value.name]]
        for value in model.graph.input
        if value.name not in constants
    }
    peak = sum(alive.values())
    for place, node in enumerate(model.graph.node):
        ending = [each for each in alive if last.get(each, place) <= place]
        for name in node.output:
            owner = home.get(name)
            if name and owner is not None and owner not in alive:
                _give_place_(alive, node, owner=owner, known=known, home=home, ending=ending)
        peak = max(peak, sum(alive.values()))
        for name in [each for each in alive if last.get(each, place) <= place]:
            del alive[name]
    return peak


def _give_place_(
    alive: dict[str, int],
    node: onnx.NodeProto,
    *,
    owner: str,
    known: Mapping[str, int],
    home: Mapping[str, str],
    ending: list[str],
) -> None:
    """Put a result among the living: where it may, over an input that ends at this node."""
    if node.op_type in _IN_PLACE:
        for name in node.input:
            given = home.get(name)
            if given in ending and given in alive and known[given] == known[owner]:
                del alive[given]
                break
    alive[owner] = known[owner]


def _homes(model: onnx.ModelProto, *, constants: set[str]) -> dict[str, str]:
    """Return {tensor: the tensor whose bytes it uses}, without what follows from constants."""
    home = {value.name: value.name for value in model.graph.input if value.name not in constants}
    fused = _fused(model)
    for node in model.graph.node:
        varies = any(name in home for name in node.input)
        for name in node.output:
            if node.op_type in _VIEWS and node.input[0] in home:
                home[name] = home[node.input[0]]
            elif varies:
                home[name] = fused.get(name, name)
    return home


def _fused(model: onnx.ModelProto) -> dict[str, str]:
    """Return {result that is never written: what is written in its place}."""
    readers = Counter(name for node in model.graph.node for name in node.input)
    outputs = {value.name for value in model.graph.output}
    makers = {name: node for node in model.graph.node for name in node.output}
    found: dict[str, str] = {}
    for node in reversed(model.graph.node):
        source, result = (node.input[0] if node.input else ""), node.output[0]
        is_made = source in makers and makers[source].op_type not in _VIEWS
        if node.op_type in _FUSED and is_made and readers[source] == 1 and source not in outputs:
            found[source] = found.get(result, result)
    return found


def _last_uses(model: onnx.ModelProto, *, home: Mapping[str, str]) -> dict[str, int]:
    last: dict[str, int] = {}
    for place, node in enumerate(model.graph.node):
        for name in (*node.input, *node.output):
            if name in home:
                last[home[name]] = place
    end = len(model.graph.node)
    return last | {home[value.name]: end for value in model.graph.output if value.name in home}


def _bytes_of_tensors(
    model: onnx.ModelProto, workload: Workload, *, needed: set[str], base: str
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
    return {name: _bytes(shapes[name], types[name], base=base) for name in needed}


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


def _bytes(shape: tuple[int, ...], kind: int, *, base: str) -> int:
    if kind == onnx.TensorProto.FLOAT and base == _BF16:
        kind = onnx.TensorProto.BFLOAT16
    bits = _NARROW.get(kind)
    if bits is None:
        item = int(onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize)
        bits = _BITS_PER_BYTE * item
    return -(-prod(shape) * bits // _BITS_PER_BYTE)
