"""Which ATen operators are layers, where their weight and input stand, and which only look on."""

from dataclasses import dataclass
from typing import Final, final

from torch import fx

from mpsearch.core.graph import Op


@final
@dataclass(frozen=True, kw_only=True)
class LayerOperator:
    """An operator with a weight: places of weight, input and bias among its arguments.

    `is_transposed` says that the weight argument stands as (inputs, outputs).
    """

    op: Op
    weight: int = 1
    input: int = 0
    bias: int | None = None
    is_transposed: bool = False


LAYER_OPERATORS: Final[dict[str, LayerOperator]] = {
    "aten.linear": LayerOperator(op=Op.LINEAR, bias=2),
    "aten.matmul": LayerOperator(op=Op.LINEAR, is_transposed=True),
    "aten.mm": LayerOperator(op=Op.LINEAR, is_transposed=True),
    "aten.addmm": LayerOperator(op=Op.LINEAR, weight=2, input=1, bias=0, is_transposed=True),
    "aten.bmm": LayerOperator(op=Op.PRODUCT),
    "aten.conv1d": LayerOperator(op=Op.CONV, bias=2),
    "aten.conv2d": LayerOperator(op=Op.CONV, bias=2),
    "aten.conv_transpose1d": LayerOperator(op=Op.CONV_TRANSPOSE, bias=2),
    "aten.conv_transpose2d": LayerOperator(op=Op.CONV_TRANSPOSE, bias=2),
    "aten.embedding": LayerOperator(op=Op.EMBEDDING, weight=0, input=1),
}

# They swap the two axes of a matrix, or hand it on.
_TRANSPOSES: Final = frozenset({"aten.t", "aten.numpy_T", "aten.mT", "aten.matrix_H"})
_ALIASES: Final = frozenset({"aten.alias", "aten.detach", "aten.contiguous", "aten.clone"})
# A tensor stays the same numbers in the same rows under these.
_RESHAPES: Final = _ALIASES | {
    "aten.view",
    "aten.reshape",
    "aten._unsafe_view",
    "aten.dropout",
    "aten.flatten",
}


def operator_name(node: fx.Node) -> str:
    """Return `aten.linear` for a call of `aten.linear.default`, "" for no ATen call."""
    if node.op != "call_function":
        return ""
    packet = getattr(node.target, "overloadpacket", None)
    return "" if packet is None else str(packet)


def layer_operator(node: fx.Node) -> LayerOperator | None:
    """Return how the node is a layer, or None where its operator has no weight."""
    return LAYER_OPERATORS.get(operator_name(node))


def argument(node: fx.Node, place: int | None) -> fx.Node | None:
    """Return the node at a place among the positional arguments, if there is one."""
    if place is None or place >= len(node.args):
        return None
    found = node.args[place]
    return found if isinstance(found, fx.Node) else None


def weight_source(node: fx.Node) -> tuple[fx.Node, bool] | None:
    """Follow a weight argument to its parameter; return it and whether it was transposed."""
    is_transposed = False
    while node.op == "call_function":
        name = operator_name(node)
        if _swaps_axes(node):
            is_transposed = not is_transposed
        elif name not in _ALIASES:
            return None
        source = argument(node, 0)
        if source is None:
            return None
        node = source
    return node, is_transposed


def unreshaped(node: fx.Node) -> fx.Node:
    """Return the node whose numbers `node` only hands on in another shape."""
    while operator_name(node) in _RESHAPES:
        source = argument(node, 0)
        if source is None:
            break
        node = source
    return node


def _swaps_axes(node: fx.Node) -> bool:
    name = operator_name(node)
    if name in _TRANSPOSES:
        return True
    axes = node.args[1:]
    if name == "aten.transpose":
        return {int(str(axis)) % 2 for axis in axes[:2]} == {0, 1}
    return name == "aten.permute" and list(axes[0] if axes else ()) == [1, 0]  # type: ignore[arg-type]  # fx types every argument as a union
