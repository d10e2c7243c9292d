"""Products of two activations, such as the two of attention, as layers without a weight."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from mpsearch.core.graph import Op, product_name
from mpsearch.tracing.layers import FoundLayer, NameOf
from mpsearch.tracing.operators import LayerOperator, argument, operator_name

PRODUCTS: Final = frozenset({"aten.matmul", "aten.bmm", "aten.mm"})
_ATTENTION: Final = "aten.scaled_dot_product_attention"
_SECOND: Final = 1
_OPERATOR: Final = LayerOperator(op=Op.PRODUCT, weight=_SECOND)
_MATRIX: Final = 2  # dimensions
_HEADS: Final = -3  # axis

# Whether a node that multiplies two activations is to be a layer.
Takes: TypeAlias = Callable[[fx.Node], bool]


def take_all(node: fx.Node) -> bool:  # noqa: ARG001 - one of several choices
    """Return True: every product of two activations is a layer."""
    return True


def attention_apart(program: ExportedProgram) -> ExportedProgram:
    """Return the program with attention as two products around a softmax, where it has any."""
    targets = {node.target for node in program.graph.nodes if operator_name(node) == _ATTENTION}
    if not targets:
        return program
    apart: ExportedProgram = program.run_decompositions(dict.fromkeys(targets, _attention))
    return apart


def find_products(
    module: fx.GraphModule, *, layers: Iterable[FoundLayer], takes: Takes, name_of: NameOf
) -> list[FoundLayer]:
    """Return the products of two tensors that both follow from the model's inputs.

    Each is a layer of its own, also where its module is called several times. Those that
    `layers` run already are left alone.
    """
    known = {node for layer in layers for node in layer.nodes}
    computed = _computed(module)
    counts: Counter[str] = Counter()
    found: list[FoundLayer] = []
    for node in module.graph.nodes:
        if node in known or not _multiplies(node, computed=computed) or not takes(node):
            continue
        owner = name_of(node, _module_of(node))
        name = product_name(owner, number=counts[owner])
        counts[owner] += 1
        found.append(FoundLayer(name=name, operator=_OPERATOR, weight="", nodes=[node]))
    return found


def in_order(module: fx.GraphModule, layers: Iterable[FoundLayer]) -> list[FoundLayer]:
    """Return layers in order of execution, by the first node of each."""
    place = {node: number for number, node in enumerate(module.graph.nodes)}
    return sorted(layers, key=lambda layer: place[layer.nodes[0]])


def _computed(module: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes whose numbers follow from the model's inputs."""
    found: set[fx.Node] = set()
    for node in module.graph.nodes:
        # Sizes are numbers: a position counted from them is the same for every input.
        sources = [each for each in node.all_input_nodes if _is_tensor(each)]
        if node.op == "placeholder" or any(each in found for each in sources):
            found.add(node)
    return found


def _is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor | tuple | list)


def _multiplies(node: fx.Node, *, computed: set[fx.Node]) -> bool:
    if operator_name(node) not in PRODUCTS:
        return False
    sides = [argument(node, 0), argument(node, _SECOND)]
    return all(
        each is not None and each in computed and _is_of_floats(each.meta.get("val"))
        for each in sides
    )


def _is_of_floats(value: object) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.ndim >= _MATRIX


def _module_of(node: fx.Node) -> str:
    """Return the path of the module that was running."""
    paths = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return paths[-1].removeprefix("L['self']").lstrip(".") if paths else ""


def _attention(  # noqa: PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,  # noqa: ARG001 - a model in eval mode drops nothing
    is_causal: bool = False,  # noqa: FBT001, FBT002 - torch's own signature
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(query @ key.T x scale + mask) @ value, as torch documents it."""
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    if enable_gqa:
        repeats = query.shape[_HEADS] // key.shape[_HEADS]
        key, value = (each.repeat_interleave(repeats, dim=_HEADS) for each in (key, value))
    # Queries are fewer numbers than scores are.
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    if is_causal:
        rows, columns = scores.shape[-2:]
        attn_mask = torch.ones(rows, columns, dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # Finite, so that a row without any open place gives a mean and no NaN.
        scores = torch.where(attn_mask, scores, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)
