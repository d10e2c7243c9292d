"""Second derivatives of a task's loss along random directions in all weights at once."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from mpsearch.errors import MeasurementError
from mpsearch.execution.interpreter import Override, evaluate, on_device_of
from mpsearch.execution.overrides import with_weight
from mpsearch.sensitivity.losses import divergence
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch
from mpsearch.tracing import TracedModel
from mpsearch.tracing.operators import operator_name

_VIEWS: Final = frozenset({"aten.view", "aten._unsafe_view"})


def curvatures(
    request: Request, batch: Batch, *, directions: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, float]]:
    """Return v . (H v) of each layer, for each direction v, H of the loss summed over samples.

    A direction gives each layer a tensor of its weight's shape, or none. All layers share
    one product: H v is taken along all of them together.

    Raises:
        MeasurementError: The loss is not finite, or does not follow from the weights.
    """
    traced = request.traced
    weights = {layer: traced.weight(layer).detach().requires_grad_() for layer in traced.weights}
    # Only the plain form of attention has second derivatives.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        raw = evaluate(
            traced,
            on_device_of(traced, batch),
            overrides=_with_weights(traced, weights),
            after=_without_gradient,
        )
        loss = _loss(request, request.task.outputs(raw, batch), batch=batch)
        slopes = _gradients(loss, weights, create_graph=True)
        found = []
        for place, direction in enumerate(directions):
            terms = [
                (slopes[layer] * direction[layer]).sum() for layer in direction if layer in slopes
            ]
            along = torch.stack(terms).sum() if terms else loss.new_zeros(())
            is_last = place == len(directions) - 1
            products = _gradients(along, weights, keep=not is_last)
            found.append(
                {
                    layer: float((products[layer].double() * direction[layer]).sum())
                    if layer in products
                    else 0.0
                    for layer in direction
                }
            )
    return found


def _loss(request: Request, outputs: Tensor, *, batch: Batch) -> Tensor:
    """Return the labelled loss summed over samples, without labels the divergence from itself."""
    each = request.task.labelled_loss(outputs, batch)
    if each is None:
        each = divergence(request.task, reference=outputs.detach(), outputs=outputs, batch=batch)
    if not bool(torch.isfinite(each).all()):
        raise MeasurementError(
            f"The loss is NaN or infinite for {int((~torch.isfinite(each)).sum())} of {len(each)} "
            "samples. Expected finite numbers. Check the data, the labels and the weights."
        )
    if not each.requires_grad:
        raise MeasurementError(
            f"The loss of task {request.task.name!r} has no gradient: the outputs are whole "
            "numbers, or cut off from the layers. Expected an output that follows from the layers "
            "by operators with derivatives. Choose metric 'output_error', which needs none."
        )
    return each.sum()


def _gradients(
    scalar: Tensor, weights: Mapping[str, Tensor], *, create_graph: bool = False, keep: bool = False
) -> dict[str, Tensor]:
    """Return the gradients that exist: a layer may not reach the scalar, or only linearly."""
    if not scalar.requires_grad:
        return {}
    found = torch.autograd.grad(
        scalar,
        list(weights.values()),
        create_graph=create_graph,
        retain_graph=create_graph or keep,
        allow_unused=True,
    )
    pairs = zip(weights, found, strict=True)
    return {layer: slope for layer, slope in pairs if slope is not None}


def _with_weights(traced: TracedModel, weights: Mapping[str, Tensor]) -> dict[str, Override]:
    layer_of = {node: layer for layer in weights for node in traced.nodes[layer]}
    overrides: dict[str, Override] = {}
    for node in traced.module.graph.nodes:
        if node.name in layer_of:
            overrides[node.name] = with_weight(node, weights[layer_of[node.name]])
        elif operator_name(node) == "aten.detach":
            overrides[node.name] = _as_it_is
        elif operator_name(node) in _VIEWS:
            # The plain form of attention lays its output out otherwise.
            overrides[node.name] = Tensor.reshape
    return overrides


def _as_it_is(value: Tensor) -> Tensor:
    return value


def _without_gradient(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
    return value.detach() if node.op == "get_attr" and isinstance(value, Tensor) else value
