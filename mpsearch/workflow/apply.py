"""Give a torch model the numbers of a plan, as a module that can be run, saved and trained on."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mpsearch.core.formats import format_named
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import PlanError
from mpsearch.execution.dynamic import dynamic_group_of, quantise_dynamically
from mpsearch.quant.fake_torch import fake_quantise_activation, fake_quantise_weight

_InputHook: TypeAlias = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of the model whose weights and activations take the plan's values.

    Weights are rounded to what the executable stores; inputs of layers with static
    activations are rounded on the way in. Under base bf16 the copy runs in autocast. The
    model itself is not changed. Layers are found by the path of their weight, at the end of
    which a plan of a wrapped model may have been cut (`encoder.0` finds `model.encoder.0`).

    Raises:
        PlanError: A layer of the plan is not in the model.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> rounded = apply(model, Plan(assignment={"0": "w2"}, runtime="simulation"))
        >>> rounded[0].weight.unique().numel() <= 6
        True
    """
    result = copy.deepcopy(model).eval()
    for layer, name in plan.assignment.items():
        format_ = format_named(name)
        owner = _owner(result, layer)
        weight = owner.get_parameter("weight")
        if format_.weight.kind == "integer":
            rounded = fake_quantise_weight(weight, format_.weight, name=layer)
            owner.weight = nn.Parameter(rounded, requires_grad=weight.requires_grad)
        group = dynamic_group_of(plan.runtime, plan.settings)
        if layer in plan.quantizers and format_.activation is not None:
            owner.register_forward_pre_hook(_rounded_inputs(plan.quantizers[layer]))
        elif group and isinstance(owner, nn.Linear) and not format_.is_floating:
            owner.register_forward_pre_hook(_dynamic_inputs(group))
    if plan.base == "bf16":
        _run_in_bfloat16_(result)
    return result


def _owner(model: nn.Module, layer: str) -> nn.Module:
    """Return the submodule whose weight the layer is."""
    found: list[nn.Module] = [
        module
        for path, module in model.named_modules()
        if (path == layer or path.endswith(f".{layer}"))
        and isinstance(getattr(module, "weight", None), nn.Parameter)
    ]
    if len(found) != 1:
        raise PlanError(
            f"The plan's layer {layer!r} is the weight of {len(found)} submodules of the model. "
            "Expected one. Check that the plan was made for this model."
        )
    return found[0]


def _rounded_inputs(quantizer: ActivationQuantizer) -> _InputHook:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001 - torch passes it
        first, *others = inputs
        return (fake_quantise_activation(first, quantizer), *others)

    return hook


def _dynamic_inputs(group: int) -> _InputHook:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001 - torch passes it
        first, *others = inputs
        return (quantise_dynamically(first, group), *others)

    return hook


def _run_in_bfloat16_(model: nn.Module) -> None:
    # An attribute of the instance comes before the method of the class.
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
