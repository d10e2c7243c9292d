"""What stands around layers: additions that join them, and operators that kernels take in."""

from collections.abc import Mapping, Sequence
from typing import Final

from torch import Tensor, fx

from mpsearch.tracing.operators import operator_name

# What runtimes compute in the kernel of the layer before, where nothing else reads between.
_FUSED: Final = frozenset(
    {
        *("relu", "relu6", "hardtanh", "clamp", "leaky_relu", "elu", "sigmoid", "tanh"),
        *("gelu", "silu", "hardswish", "hardsigmoid", "mish", "softplus", "batch_norm"),
    }
)
_ADDITIONS: Final = frozenset({"aten.add", "aten.add_"})
_SIDES: Final = 2


def fused_operators(nodes: Sequence[fx.Node]) -> tuple[str, ...]:
    """Return what may run within the kernel of a layer, in order: a norm, an activation.

    `nodes` run the layer; where calls differ, only what follows all of them counts.
    """
    chains = [_chain(node) for node in nodes]
    common: list[str] = []
    for names in zip(*chains, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return tuple(common)


def residual_groups(
    module: fx.GraphModule, place: Mapping[fx.Node, int]
) -> tuple[tuple[int, ...], ...]:
    """Return layers whose outputs are added to each other, one group for each addition.

    `place` is that of the layer which a node runs. Outputs reach the addition through
    operators without a weight, or through earlier additions.
    """
    reaching: dict[fx.Node, frozenset[int]] = {}
    groups: dict[tuple[int, ...], None] = {}
    for node in module.graph.nodes:
        sources = [reaching[each] for each in node.all_input_nodes if _is_tensor(each)]
        arriving = frozenset[int]().union(*sources)
        reaching[node] = frozenset({place[node]}) if node in place else arriving
        is_addition = operator_name(node) in _ADDITIONS and len(node.all_input_nodes) == _SIDES
        if is_addition and len(arriving) > 1 and all(sources):
            groups[tuple(sorted(arriving))] = None
    return tuple(groups)


def _chain(node: fx.Node) -> tuple[str, ...]:
    found: list[str] = []
    while len(node.users) == 1:
        (node,) = node.users
        name = operator_name(node).removeprefix("aten.").removesuffix("_")
        if name not in _FUSED:
            break
        found.append(name)
    return tuple(found)


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | tuple | list)
