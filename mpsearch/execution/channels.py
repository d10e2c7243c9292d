"""How far each channel of the inputs of linear layers reaches, and how to even them out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, fx

from mpsearch.core.graph import Op
from mpsearch.core.progress import Progress, tracked
from mpsearch.execution.interpreter import evaluate, on_device_of
from mpsearch.quant.smoothing import smoothing_exponents
from mpsearch.tasks.dataset import Dataset
from mpsearch.tracing.operators import argument, layer_operator
from mpsearch.tracing.traced_model import TracedModel
from mpsearch.tracing.weight_layout import outputs_first

_PHASE: Final = "observe channels"


def observe_exponents(
    traced: TracedModel,
    data: Dataset,
    *,
    layers: Sequence[str],
    progress: Progress | None = None,
) -> dict[str, tuple[int, ...]]:
    """Run the data once at full precision; return `smoothing_exponents` of each linear layer.

    Layers that read the same tensors are evened out together, so that their inputs are
    divided and quantised once. Convolutions have none: their kernels take one scale. Nor have
    layers that share a weight, which would then be stored once for each of them.

    Args:
        traced: The model.
        data: Calibration data.
        layers: Only these.
        progress: Told after each batch.
    """
    shared = {place for group in traced.graph.shared_weights for place in group}
    sources = {
        layer.name: _sources(traced, layer.name)
        for place, layer in enumerate(traced.graph.layers)
        if layer.op is Op.LINEAR and layer.name in layers and place not in shared
    }
    reaches: dict[str, Tensor] = {}
    for batch in tracked(data, _PHASE, total=len(data), progress=progress):
        _look(
            traced, batch, at={name for names in sources.values() for name in names}, into=reaches
        )
    together: dict[tuple[str, ...], list[str]] = {}
    for layer, names in sources.items():
        together.setdefault(names, []).append(layer)
    found: dict[str, tuple[int, ...]] = {}
    for names, members in together.items():
        inputs = torch.stack([reaches[name] for name in names]).amax(dim=0)
        weights = torch.stack([_columns(traced, layer) for layer in members]).amax(dim=0)
        exponents = smoothing_exponents(inputs.numpy(), weights.numpy())
        found |= dict.fromkeys(members, exponents)
    return found


def _sources(traced: TracedModel, layer: str) -> tuple[str, ...]:
    """Return the tensors that the layer's nodes read."""
    nodes = {node.name: node for node in traced.module.graph.nodes}
    found: set[str] = set()
    for name in traced.nodes[layer]:
        operator = layer_operator(nodes[name])
        assert operator is not None
        source = argument(nodes[name], operator.input)
        assert source is not None
        found.add(source.name)
    return tuple(sorted(found))


def _look(
    traced: TracedModel, batch: Mapping[str, Tensor], *, at: set[str], into: dict[str, Tensor]
) -> None:
    def look(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
        if node.name in at:
            reach = value.detach().abs().reshape(-1, value.shape[-1]).amax(dim=0).float().cpu()
            before = into.get(node.name)
            into[node.name] = reach if before is None else torch.maximum(before, reach)
        return value

    with torch.no_grad():
        evaluate(traced, on_device_of(traced, batch), after=look)


def _columns(traced: TracedModel, layer: str) -> Float[Tensor, " I"]:
    """Return the largest magnitude of each column of a weight."""
    nodes = {node.name: node for node in traced.module.graph.nodes}
    weight = outputs_first(nodes[traced.nodes[layer][0]], traced.weight(layer).detach())
    return weight.abs().amax(dim=0).float().cpu()
