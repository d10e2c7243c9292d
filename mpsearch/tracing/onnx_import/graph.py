"""The nodes of an ONNX graph as plain data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, final

import onnx
from onnx import AttributeProto
from torch import Tensor

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.tensors import read_tensor, torch_type

DEFAULT_DOMAIN: Final = ""
# Set on a QuantizeLinear whose codes only DequantizeLinear reads.
STRAIGHT_THROUGH: Final = "mpsearch.straight_through"
_NO_TYPES: Final[Mapping[str, int]] = {}
_SAME_AS_DEFAULT: Final = frozenset({"", "ai.onnx"})


@final
@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One node: names of its tensors ("" where left out) and its attributes as Python values.

    `name` is its own name, else "" : what a reader calls it is `title`. `version` is that of
    the operator set its domain was imported with; `types` are the element types of its inputs
    in ONNX, 0 where only the tensor says.
    """

    name: str
    op: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    types: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """Return what messages call the node."""
        first = next((name for name in self.outputs if name), "")
        return self.name or first or self.op


@final
@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """Nodes in order of execution, the inputs and outputs, and constants by name.

    `types` are the element types of inputs in ONNX, where the file declares them.
    """

    nodes: tuple[OnnxNode, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Tensor]
    types: Mapping[str, int]

    def walk(self) -> Iterator[OnnxNode]:
        """Yield every node, those of subgraphs too."""
        for node in self.nodes:
            yield node
            for value in node.attributes.values():
                for inner in value if isinstance(value, tuple) else (value,):
                    if isinstance(inner, OnnxGraph):
                        yield from inner.walk()


def plain_domain(domain: str) -> str:
    """Return the domain with the two names of the default one made equal."""
    return DEFAULT_DOMAIN if domain in _SAME_AS_DEFAULT else domain


def graph_of(
    proto: onnx.GraphProto,
    *,
    versions: Mapping[str, int],
    constants: Mapping[str, Tensor],
    types: Mapping[str, int],
) -> OnnxGraph:
    """Return a graph; `constants` stand for its initialisers, `types` are theirs by name."""
    given = {value.name for value in proto.input}
    known = dict(types) | _declared(proto)
    straight = _straight_through(proto)
    return OnnxGraph(
        nodes=tuple(
            node_of(node, versions=versions, types=known, straight=straight) for node in proto.node
        ),
        inputs=tuple(value.name for value in proto.input if value.name not in constants),
        outputs=tuple(value.name for value in proto.output),
        constants={name: value for name, value in constants.items() if name not in given}
        | {name: constants[name] for name in given if name in constants},
        types={value.name: value.type.tensor_type.elem_type for value in proto.input},
    )


def names_read(node: onnx.NodeProto) -> set[str]:
    """Return the names that a node reads, those that its subgraphs take from outside too."""
    found = {name for name in node.input if name}
    for inner in subgraphs(node):
        own = {each.name for each in (*inner.input, *inner.initializer)}
        own |= {name for child in inner.node for name in child.output}
        read = {name for child in inner.node for name in names_read(child)}
        found |= (read | {output.name for output in inner.output}) - own
    return found


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs that a node holds as attributes."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def node_of(
    proto: onnx.NodeProto,
    *,
    versions: Mapping[str, int],
    types: Mapping[str, int] = _NO_TYPES,
    straight: frozenset[str] = frozenset(),
    with_attributes: bool = True,
) -> OnnxNode:
    """Return a node as plain data.

    Raises:
        ModelError: An attribute is of a kind that is not read.
    """
    attributes = proto.attribute if with_attributes else ()
    domain = plain_domain(proto.domain)
    return OnnxNode(
        name=proto.name,
        op=proto.op_type,
        domain=domain,
        version=versions.get(domain, 1),
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        types=tuple(types.get(name, 0) for name in proto.input),
        attributes={
            each.name: _attribute(each, versions=versions, node=proto) for each in attributes
        }
        | ({STRAIGHT_THROUGH: 1} if straight.intersection(proto.output) else {}),
    )


def _attribute(proto: AttributeProto, *, versions: Mapping[str, int], node: onnx.NodeProto) -> Any:  # noqa: ANN401 - an attribute is a number, text, tensor, graph or a tuple of them
    kind = proto.type
    if kind == AttributeProto.GRAPH:
        inner = {each.name: read_tensor(each, extent=None) for each in proto.g.initializer}
        types = {each.name: each.data_type for each in proto.g.initializer}
        return graph_of(proto.g, versions=versions, constants=inner, types=types)
    if kind == AttributeProto.TENSOR:
        return read_tensor(proto.t, extent=None)
    if kind == AttributeProto.STRING:
        return proto.s.decode(errors="replace")
    if kind == AttributeProto.STRINGS:
        return tuple(each.decode(errors="replace") for each in proto.strings)
    if kind in (AttributeProto.FLOAT, AttributeProto.INT):
        return proto.f if kind == AttributeProto.FLOAT else proto.i
    if kind not in (AttributeProto.FLOATS, AttributeProto.INTS):
        raise ModelError(
            f"Node {node.name or node.output[:1]!r} ({node.op_type}) has the attribute "
            f"{proto.name!r} of kind {AttributeProto.AttributeType.Name(kind)}. Expected numbers, "
            "texts, a tensor or a graph. Export the model again."
        )
    return tuple(proto.floats if kind == AttributeProto.FLOATS else proto.ints)


def _declared(proto: onnx.GraphProto) -> dict[str, int]:
    """Return the element types that inputs and casts declare."""
    found = {value.name: value.type.tensor_type.elem_type for value in proto.input}
    for node in proto.node:
        if node.op_type == "Cast":
            found.update((node.output[0], each.i) for each in node.attribute if each.name == "to")
    return found


def _straight_through(proto: onnx.GraphProto) -> frozenset[str]:
    """Return the codes that only DequantizeLinear reads, as what is to be dequantised."""
    elsewhere = {value.name for value in proto.output}
    for node in proto.node:
        is_back = node.op_type == "DequantizeLinear"
        elsewhere.update(list(node.input)[1:] if is_back else names_read(node))
    codes = {
        name for node in proto.node if node.op_type == "QuantizeLinear" for name in node.output
    }
    return frozenset(codes - elsewhere)


def value_types(
    proto: onnx.GraphProto,
) -> dict[str, tuple[int, tuple[int | str | None, ...] | None]]:
    """Return (element type, sizes) of the graph's inputs.

    A size is a number, a name, or None; all are None where the file does not say how many.

    Raises:
        ModelError: An input is no tensor of numbers.
    """
    found = {}
    held = {tensor.name for tensor in proto.initializer}
    for value in proto.input:
        if value.name in held:
            continue
        if not value.type.HasField("tensor_type"):
            raise ModelError(
                f"Input {value.name!r} is a {value.type.WhichOneof('value') or 'thing'}. Expected "
                "a tensor. Export the model with tensors as inputs."
            )
        tensor = value.type.tensor_type
        torch_type(tensor.elem_type, name=value.name)
        sizes = tuple(_size(each) for each in tensor.shape.dim)
        found[value.name] = (tensor.elem_type, sizes if tensor.HasField("shape") else None)
    return found


def _size(dimension: onnx.TensorShapeProto.Dimension) -> int | str | None:
    # Some exporters write -1 where a size is open.
    if dimension.HasField("dim_value") and dimension.dim_value > 0:
        return int(dimension.dim_value)
    return dimension.dim_param or None
