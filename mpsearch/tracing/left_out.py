"""What multiplies by weights and is no layer, with the reason: it stays at full precision."""

from collections.abc import Iterable
from typing import Final

from torch import fx, nn

from mpsearch.tracing.layers import constant_lookups
from mpsearch.tracing.operators import argument, layer_operator, operator_name
from mpsearch.tracing.recurrent import MOST_STEPS, SEQUENCES, steps_of

_MATRIX: Final = 2  # dimensions
# They multiply by weights, and no format is known for them.
_WITHOUT_FORMATS: Final = frozenset(
    {"aten.conv3d", "aten.conv_transpose3d", "aten.bilinear", "aten.embedding_bag"}
)
_FIXED: Final = "its rows are the same for every input, and are looked up once"
_PRODUCTS: Final = frozenset({"aten.matmul", "aten.mm", "aten.bmm", "aten.einsum"})


def left_out(module: fx.GraphModule, layers: Iterable[fx.Node]) -> dict[str, str]:
    """Return {path of a parameter: why what it is multiplied by is no layer}.

    Only parameters with two dimensions or more are told: the others are biases and scales.
    """
    weights = _weights_behind(module)
    taken = set(layers)
    fixed = constant_lookups(module)
    found: dict[str, str] = {}
    for node in module.graph.nodes:
        if node in taken:
            continue
        for path in _multiplied(node, weights):
            found.setdefault(path, _FIXED if node in fixed else _reason(node))
    return found


def _multiplied(node: fx.Node, weights: dict[fx.Node, frozenset[str] | None]) -> list[str]:
    """Return the parameters that the node multiplies its input by."""
    name = operator_name(node)
    operator = layer_operator(node)
    sources = list(node.all_input_nodes)
    if operator is not None and name not in _PRODUCTS:
        weight = argument(node, operator.weight)
        sources = [] if weight is None else [weight]
    elif name not in _PRODUCTS | _WITHOUT_FORMATS | SEQUENCES:
        return []
    if name in _PRODUCTS and all(weights[each] is not None for each in sources):
        return []  # no input meets them: a part of computing a weight
    return sorted(path for each in sources for path in weights[each] or ())


def _reason(node: fx.Node) -> str:
    name = operator_name(node)
    if name in SEQUENCES:
        steps = steps_of(node)
        length = "of a length that varies" if steps is None else f"of {steps} steps"
        return f"{name} over a sequence {length}; at most {MOST_STEPS} fixed ones are unrolled"
    if name in _WITHOUT_FORMATS:
        return f"no formats are known for {name}"
    return f"the weight of {name} is computed while the model runs"


def _weights_behind(module: fx.GraphModule) -> dict[fx.Node, frozenset[str] | None]:
    """Return, for nodes that follow from parameters alone, which; None for the others."""
    behind: dict[fx.Node, frozenset[str] | None] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            behind[node] = _own_path(module, str(node.target))
            continue
        sources = [behind[each] for each in node.all_input_nodes]
        if node.op != "call_function" or not sources or None in sources:
            behind[node] = None
        else:
            behind[node] = frozenset().union(*(each for each in sources if each is not None))
    return behind


def _own_path(module: fx.GraphModule, path: str) -> frozenset[str]:
    found: object = module
    for part in path.split("."):
        found = getattr(found, part)
    is_weight = isinstance(found, nn.Parameter) and found.ndim >= _MATRIX
    return frozenset({path}) if is_weight else frozenset()
