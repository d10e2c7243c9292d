"""The layers of a graph: which nodes run them, and how tensors flow between them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, final

import torch
from torch import Tensor, fx, nn

from mpsearch.core.graph import Op
from mpsearch.errors import ModelError
from mpsearch.tracing.operators import (
    LayerOperator,
    argument,
    layer_operator,
    operator_name,
    unreshaped,
)
from mpsearch.tracing.traced_model import tensor_at

_MATRIX: Final = 2  # dimensions
_SUFFIX: Final = ".weight"
_LOOKUP: Final = "aten.embedding"
_ROWS: Final = 1  # its argument that says which

# Names a layer: by the first node that runs it, and the path of its weight.
NameOf: TypeAlias = Callable[[fx.Node, str], str]


@final
@dataclass(frozen=True, kw_only=True)
class FoundLayer:
    """A layer before it is measured: its name, weight and the nodes that run it, in order.

    `weight` is the path of its parameter, "" where it has none.
    """

    name: str
    operator: LayerOperator
    weight: str
    nodes: list[fx.Node] = field(default_factory=list)


def find_layers(
    module: fx.GraphModule, *, aliases: Mapping[str, Sequence[str]], name_of: NameOf
) -> list[FoundLayer]:
    """Return the layers in order of execution.

    `aliases` maps each path of a weight to all paths of the same tensor in the model;
    `name_of` names a layer by the first node that runs it and the path of its weight.
    Modules that share a weight are layers of their own; so are an embedding and a linear
    use of one tensor. Further uses by the same module are calls of one layer. A table whose
    rows are the same for every input is none: it is computed once, when the model is compiled.

    Raises:
        ModelError: There is none, or a weight is not float32 or not finite.
    """
    found: dict[tuple[str, Op, bool], FoundLayer] = {}
    names: set[str] = set()
    fixed = constant_lookups(module)
    for node in module.graph.nodes:
        use = _weight_use(module, node)
        if use is None or node in fixed:
            continue
        operator, path = use
        owner = _owning_path(node, aliases.get(path, (path,)))
        key = (owner, operator.op, operator.is_transposed)
        if key not in found:
            name = _free_name(name_of(node, owner), operator, taken=names)
            names.add(name)
            _check_weight(name, tensor_at(module, path))
            found[key] = FoundLayer(name=name, operator=operator, weight=path)
        found[key].nodes.append(node)
    if not found:
        raise ModelError(
            "The model has no layer to quantise. Expected at least one Linear, Conv1d, Conv2d or "
            "Embedding whose weight is a parameter. Pass the module that holds the layers."
        )
    return list(found.values())


def constant_lookups(module: fx.GraphModule) -> set[fx.Node]:
    """Return the lookups of rows that are counted out: by no input, size or stored number."""
    counted: set[fx.Node] = set()
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        if node.op == "call_function" and counted.issuperset(node.all_input_nodes):
            counted.add(node)
        if operator_name(node) == _LOOKUP and node.args[_ROWS] in counted:
            found.add(node)
    return found


def name_by_path(root: str) -> NameOf:
    """Return the naming by the path of the weight, less a prefix and `.weight`."""
    return lambda _, path: path.removeprefix(root).removesuffix(_SUFFIX)


def tied_weights(layers: Sequence[FoundLayer]) -> tuple[tuple[int, ...], ...]:
    """Return the places of layers that hold one weight, each group with two or more."""
    groups: dict[str, list[int]] = {}
    for place, layer in enumerate(layers):
        if layer.weight:
            groups.setdefault(layer.weight, []).append(place)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def find_edges(module: fx.GraphModule, layers: Sequence[FoundLayer]) -> tuple[tuple[int, int], ...]:
    """Return (producer, consumer) of each tensor that flows through weightless operators."""
    place = {node: index for index, layer in enumerate(layers) for node in layer.nodes}
    reaching: dict[fx.Node, frozenset[int]] = {}
    edges: set[tuple[int, int]] = set()
    for node in module.graph.nodes:
        sources = [reaching[source] for source in node.all_input_nodes]
        arriving = frozenset[int]().union(*sources)
        if node in place:
            edges |= {(producer, place[node]) for producer in arriving}
            reaching[node] = frozenset({place[node]})
        else:
            # Sizes are numbers: what is computed from them carries no tensor.
            is_tensor = isinstance(node.meta.get("val"), Tensor | tuple | list)
            reaching[node] = arriving if is_tensor else frozenset()
    return tuple(sorted(edges))


def input_source(layer: FoundLayer) -> str:
    """Return the name of the node whose numbers the layer reads first."""
    node = layer.nodes[0]
    source = argument(node, layer.operator.input)
    return "" if source is None else unreshaped(source).name


def tensor_aliases(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, for each path of a parameter or buffer, all paths of the same tensor."""
    return same_tensors(
        [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
    )


def same_tensors(named: Iterable[tuple[str, Tensor]]) -> dict[str, tuple[str, ...]]:
    """Return, for each name, all names that go with the same tensor."""
    groups: dict[int, list[str]] = {}
    for path, tensor in named:
        groups.setdefault(id(tensor), []).append(path)
    return {path: tuple(group) for group in groups.values() for path in group}


def _weight_use(module: fx.GraphModule, node: fx.Node) -> tuple[LayerOperator, str] | None:
    operator = layer_operator(node)
    weight = None if operator is None else argument(node, operator.weight)
    if operator is None or weight is None or weight.op != "get_attr":
        return None
    path = str(weight.target)
    tensor = tensor_at(module, path)
    is_matrix = tensor.ndim == _MATRIX
    # A matrix product with a constant (rotary tables, pooling masks) is no layer.
    is_learned = operator.op is not Op.LINEAR or isinstance(tensor, nn.Parameter)
    fits = is_learned and (is_matrix or operator.op.is_convolution)
    return (operator, path) if fits else None


def _owning_path(node: fx.Node, aliases: Sequence[str]) -> str:
    """Return the path of the weight in the module that was running."""
    stack = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    for owner in reversed(stack):
        for path in aliases:
            if path.rpartition(".")[0] == owner.removeprefix("L['self']").lstrip("."):
                return path
    return aliases[0]


def _free_name(name: str, operator: LayerOperator, *, taken: set[str]) -> str:
    if name not in taken:
        return name
    # The second way to use one tensor: as the head of its own embedding, or transposed.
    turned = ".transposed" if operator.is_transposed else ""
    return f"{name}.{operator.op}{turned}"


def _check_weight(name: str, weight: Tensor) -> None:
    if weight.dtype != torch.float32:
        raise ModelError(
            f"Layer {name!r} has a weight of {str(weight.dtype).removeprefix('torch.')}. Expected "
            "float32, the reference that formats are compared with. Call model.float() first."
        )
    finite = torch.isfinite(weight)
    if not bool(finite.all()):
        raise ModelError(
            f"Layer {name!r} has {int((~finite).sum())} weights of {weight.numel()} that are NaN "
            "or infinite. Expected finite numbers. Load the model again, or repair the weights."
        )
