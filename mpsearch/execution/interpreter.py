"""Runs a graph node by node, with chosen nodes computed in another way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, fx

from mpsearch.core.graph import Op
from mpsearch.tracing.traced_model import TracedModel

# Called with a node's arguments instead of its operator.
Override: TypeAlias = Callable[..., Tensor]
# Called with each node and its value; returns what the nodes behind it see.
Afterwards: TypeAlias = Callable[[fx.Node, Any], Any]

NO_OVERRIDES: Final[Mapping[str, Override]] = {}


def evaluate(
    traced: TracedModel,
    batch: Mapping[str, Tensor],
    *,
    overrides: Mapping[str, Override] = NO_OVERRIDES,
    after: Afterwards | None = None,
) -> Any:  # noqa: ANN401 - models return tensors, tuples, dicts
    """Run the whole graph and return the model's raw output; values go when last used."""
    values: dict[fx.Node, Any] = {}
    inputs = iter(traced.inputs(batch))
    for node, spent in with_last_uses(tuple(traced.module.graph.nodes)):
        if node.op == "output":
            return raw_output(traced, node, values=values)
        value = (
            next(inputs)
            if node.op == "placeholder"
            else node_value(traced, node, values=values, override=overrides.get(node.name))
        )
        values[node] = value if after is None else after(node, value)
        for each in spent:
            del values[each]
    raise AssertionError("a graph ends with its output")


def node_value(
    traced: TracedModel,
    node: fx.Node,
    *,
    values: Mapping[fx.Node, Any],
    override: Override | None = None,
) -> Any:  # noqa: ANN401 - nodes give tensors, sizes, tuples
    """Compute one node from the values of its inputs."""
    if node.op == "get_attr":
        return _attribute(traced.module, str(node.target))
    args = fx.node.map_arg(node.args, values.__getitem__)
    kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
    if override is not None:
        return override(*args, **kwargs)
    if node.op == "call_function":
        assert callable(node.target)
        return node.target(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert node.op == "call_module", node.op
    return _attribute(traced.module, str(node.target))(*args, **kwargs)


def raw_output(
    traced: TracedModel,
    node: fx.Node,
    *,
    values: Mapping[fx.Node, Any],
) -> Any:  # noqa: ANN401 - as in `evaluate`
    """Return what the model returns, in the structure that it returns it in."""
    flat = fx.node.map_arg(node.args[0], values.__getitem__)
    return traced.module.graph.process_outputs(flat)


def with_last_uses(
    nodes: Sequence[fx.Node],
) -> Iterator[tuple[fx.Node, tuple[fx.Node, ...]]]:
    """Yield each node with those that no later node of the sequence reads."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        last[node] = node
        for source in node.all_input_nodes:
            last[source] = node
    known = set(nodes)
    spent: dict[fx.Node, list[fx.Node]] = {}
    for node, user in last.items():
        if node in known:
            spent.setdefault(user, []).append(node)
    for node in nodes:
        yield node, tuple(spent.get(node, ()))


def weight_shapes(traced: TracedModel) -> dict[str, tuple[Op, tuple[int, ...]]]:
    """Return, for each node that runs a layer, its operator and weight (outputs, inputs, ...)."""
    return {
        node: (layer.op, layer.weight_shape)
        for layer in traced.graph.layers
        for node in traced.nodes[layer.name]
    }


def on_device_of(traced: TracedModel, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the batch on the device of the model's weights."""
    device = next((each.device for each in traced.module.parameters()), torch.device("cpu"))
    return {name: value.to(device) for name, value in batch.items()}


def _attribute(module: fx.GraphModule, path: str) -> Any:  # noqa: ANN401 - tensor or submodule
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    return found
