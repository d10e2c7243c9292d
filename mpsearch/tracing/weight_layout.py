"""How weights lie in a model, and the one layout that formats and costs count in."""

from typing import Any, Final

from jaxtyping import Float
from torch import Tensor, fx

from mpsearch.core.graph import Op
from mpsearch.tracing.operators import LayerOperator, layer_operator

# Of aten.conv_transpose1d and 2d: input, weight, bias, stride, padding, output_padding, groups.
_GROUPS: Final = 6


def outputs_first(node: fx.Node, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the weight of a layer's node as (outputs, inputs of each output, ...).

    Example:
        >>> import torch
        >>> from mpsearch.tracing.trace import trace_model
        >>> layer = torch.nn.ConvTranspose1d(4, 6, 5, groups=2)
        >>> traced = trace_model(layer, [torch.zeros(1, 4, 8)])
        >>> node = next(n for n in traced.module.graph.nodes if n.op == "call_function")
        >>> tuple(layer.weight.shape), tuple(outputs_first(node, layer.weight).shape)
        ((4, 3, 5), (6, 2, 5))
    """
    operator = _operator(node)
    if operator.op is Op.CONV_TRANSPOSE:
        return _swapped(weight, groups=groups_of(node))
    return weight.t() if operator.is_transposed else weight


def as_in_model(node: fx.Node, weight: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return the inverse of `outputs_first`: the weight as the node's operator reads it."""
    return outputs_first(node, weight)  # both layouts swap two axes, which undoes itself


def groups_of(node: fx.Node) -> int:
    """Return into how many parts a transposed convolution splits its channels."""
    given: Any = node.kwargs.get("groups", node.args[_GROUPS] if len(node.args) > _GROUPS else 1)
    return int(given)


def _operator(node: fx.Node) -> LayerOperator:
    operator = layer_operator(node)
    assert operator is not None
    return operator


def _swapped(weight: Tensor, *, groups: int) -> Tensor:
    """Swap the two axes of channels within each group."""
    rows, columns, *kernel = weight.shape
    parts = weight.reshape(groups, rows // groups, columns, *kernel).transpose(1, 2)
    return parts.reshape(groups * columns, rows // groups, *kernel)
