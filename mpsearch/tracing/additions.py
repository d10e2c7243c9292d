"""Residual additions: where a stream of activations is added to what a layer made of it.

Both addends come from layers, and not from the same one last; they have one shape. The
addition belongs to the layer that feeds it last. A mask or a bias is none, nor is a sum
within an activation function.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import onnx
from torch import Tensor, fx

from mpsearch.core.graph import Layer, Op
from mpsearch.core.placement import ADDITION_KEY, OWN_SLOT_KEY
from mpsearch.tracing.onnx_base import LAYER_KEY
from mpsearch.tracing.operators import operator_name
from mpsearch.tracing.traced_model import TracedModel

_ADDITIONS: Final = frozenset({"aten.add", "aten.add_"})
_SIDES: Final = 2
_NONE: Final = -1  # no layer comes before
_SHAPES: Final = frozenset({"Shape", "Size"})  # read the shape of a tensor, not its numbers


@final
@dataclass(frozen=True, kw_only=True)
class Addition:
    """A residual addition: its node, its layer, and which argument comes from that layer.

    `last` are the places of the layers that feed its two sides last, its own layer's second.
    """

    name: str
    layer: str
    node: fx.Node
    own_slot: int
    last: tuple[int, int]


def find_additions(traced: TracedModel) -> tuple[Addition, ...]:
    """Return the residual additions of a traced model, in order of execution."""
    runs = {name: i for i, layer in enumerate(traced.graph.names) for name in traced.nodes[layer]}
    nodes = traced.module.graph.nodes
    place = {node: runs[node.name] for node in nodes if node.name in runs}
    return residual_additions(traced.module, place, layers=traced.graph.layers)


def residual_additions(
    module: fx.GraphModule, place: Mapping[fx.Node, int], *, layers: Sequence[Layer]
) -> tuple[Addition, ...]:
    """Return the residual additions of a graph; `place` is that of the layer a node runs."""
    found: list[Addition] = []
    counts: dict[str, int] = {}
    for node, sides in _sums(module, place):
        layer = layers[max(sides)]
        if layer.op is Op.EMBEDDING:
            continue
        counts[layer.name] = counts.get(layer.name, 0) + 1
        number = f"#{counts[layer.name]}" if counts[layer.name] > 1 else ""
        found.append(
            Addition(
                name=layer.name + number,
                layer=layer.name,
                node=node,
                own_slot=sides.index(max(sides)),
                last=(min(sides), max(sides)),
            )
        )
    return tuple(found)


def mark_additions_(model: onnx.ModelProto, traced: TracedModel) -> None:
    """Mark the Add nodes of a base file that are residual additions of the graph.

    They are told by the layers before them; where the file has more or fewer such nodes than
    the graph, none of them is marked.
    """
    wanted: dict[tuple[int, int], list[Addition]] = {}
    for addition in find_additions(traced):
        wanted.setdefault(addition.last, []).append(addition)
    nodes: dict[tuple[int, int], list[tuple[onnx.NodeProto, int]]] = {}
    for node, sides in _onnx_sums(model, names=traced.graph.names):
        last = (min(sides), max(sides))
        nodes.setdefault(last, []).append((node, sides.index(max(sides))))
    for last, additions in wanted.items():
        if len(nodes.get(last, ())) != len(additions):
            continue
        for addition, (node, own_slot) in zip(additions, nodes[last], strict=True):
            node.metadata_props.add(key=ADDITION_KEY, value=addition.name)
            node.metadata_props.add(key=OWN_SLOT_KEY, value=str(own_slot))


def _sums(
    module: fx.GraphModule, place: Mapping[fx.Node, int]
) -> Iterator[tuple[fx.Node, tuple[int, int]]]:
    """Yield additions of two activations, with the layers that feed their sides last."""
    last: dict[fx.Node, int] = {}
    for node in module.graph.nodes:
        before = [last[each] for each in node.all_input_nodes if _is_tensor(each)]
        last[node] = place.get(node, max(before, default=_NONE))
        if not _adds_alike(node):
            continue
        one, other = (last[each] for each in node.args[:_SIDES] if isinstance(each, fx.Node))
        if one != other and _NONE not in {one, other}:
            yield node, (one, other)


def _adds_alike(node: fx.Node) -> bool:
    """Return whether a node adds two tensors of floats and of one shape, each once."""
    if operator_name(node) not in _ADDITIONS or node.kwargs.get("alpha", 1) != 1:
        return False
    sides = node.args[:_SIDES]
    values = [each.meta.get("val") for each in sides if isinstance(each, fx.Node)]
    tensors = [each for each in values if isinstance(each, Tensor) and each.is_floating_point()]
    if len(tensors) < _SIDES or str(tensors[0].shape) != str(tensors[1].shape):
        return False
    return operator_name(node) == "aten.add" or _is_read_last_by(node)


def _is_read_last_by(node: fx.Node) -> bool:
    """Return whether nothing sees what an addition in place does to its first argument."""
    changed = node.args[0]
    assert isinstance(changed, fx.Node)
    order = {each: place for place, each in enumerate(node.graph.nodes)}
    return all(order[user] <= order[node] for user in changed.users)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | tuple | list)


def _onnx_sums(
    model: onnx.ModelProto, *, names: Sequence[str]
) -> Iterator[tuple[onnx.NodeProto, tuple[int, int]]]:
    """Yield the same of an ONNX file, whose layers are marked."""
    place = {name: i for i, name in enumerate(names)}
    last: dict[str, int] = {}
    for node in model.graph.node:  # in order of execution, as ONNX demands
        marks = {each.key: each.value for each in node.metadata_props}
        sides = [last.get(name, _NONE) for name in node.input]
        own = _NONE if node.op_type in _SHAPES else max(sides, default=_NONE)
        own = place[marks[LAYER_KEY]] if LAYER_KEY in marks else own
        last.update(dict.fromkeys(node.output, own))
        if node.op_type == "Add" and sides[0] != sides[1] and _NONE not in sides:
            yield node, (sides[0], sides[1])
