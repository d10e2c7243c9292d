"""Give a torch model the numbers of a plan, as a module that can be run, saved and trained on."""

import copy
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from mpsearch.core.formats import BASES, format_named
from mpsearch.core.graph import Op, is_product_name
from mpsearch.core.placement import LAYER_INPUTS, additions_with
from mpsearch.core.plan import Plan
from mpsearch.errors import PlanError
from mpsearch.execution.dynamic import dynamic_group_of
from mpsearch.execution.inputs import rounded_input
from mpsearch.execution.smoothed import stored_weight

_InputHook: TypeAlias = Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]


def apply(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of the model whose weights and activations take the plan's values.

    Weights are rounded to what the executable stores, quantised inputs on the way into their
    layers. Under base bf16 the copy runs in autocast. The model itself is not changed. Layers
    are found by the path of their weight, at the end of which a plan of a wrapped model may
    have been cut (`encoder.0` finds `model.encoder.0`).

    Raises:
        PlanError: A layer of the plan is not in the model, or lacks its quantiser; or the plan
            quantises residual additions, which are no modules.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 2))
        >>> rounded = apply(model, Plan(assignment={"0": "w2"}, runtime="simulation"))
        >>> rounded[0].weight.unique().numel() <= 6
        True
    """
    _refuse_additions(plan)
    result = copy.deepcopy(model).eval()
    for layer, name in plan.assignment.items():
        if is_product_name(layer):
            _refuse_product(layer, name, base=plan.base)
            continue
        format_ = format_named(name)
        owner = _owner(result, layer)
        weight = owner.get_parameter("weight")
        if not format_.weight.is_plain:
            quantizer = plan.quantizers.get(layer)
            rounded = stored_weight(weight, format_, quantizer=quantizer, name=layer)
            owner.weight = nn.Parameter(rounded, requires_grad=weight.requires_grad)
        group = dynamic_group_of(plan.runtime, plan.settings)
        is_dynamic = group is not None and isinstance(owner, nn.Linear)
        if name not in BASES and (format_.activation is not None or is_dynamic):
            owner.register_forward_pre_hook(_rounded_inputs(plan, layer, owner=owner))
    if plan.base == "bf16":
        _run_in_bfloat16_(result)
    return result


def _refuse_additions(plan: Plan) -> None:
    additions = additions_with(plan.quantizers) if plan.placement != LAYER_INPUTS else ()
    if additions:
        raise PlanError(
            f"The plan quantises {len(additions)} residual additions, such as that of "
            f"{additions[0]!r}. Expected quantisers on the inputs of layers alone, as sums are no "
            "modules. Run the plan by `mpsearch.execution.quantised`, or its ONNX file."
        )


def _refuse_product(layer: str, name: str, *, base: str) -> None:
    """Refuse a product in a format of its own: it is no module whose inputs could be rounded."""
    if name != base:
        raise PlanError(
            f"The plan has the product {layer!r} in {name!r}. Expected it in the base {base!r}: a "
            "module cannot say it. Use mpsearch.execution.quantised, or run the exported file."
        )


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


def _rounded_inputs(plan: Plan, layer: str, *, owner: nn.Module) -> _InputHook:
    format_ = format_named(plan.assignment[layer])
    quantizer = plan.quantizers.get(layer)
    if format_.is_static and quantizer is None:
        raise PlanError(
            f"Layer {layer!r} is in {format_.name!r} but the plan has no quantiser for its input. "
            f"Expected one among its {len(plan.quantizers)} quantisers. Search again with "
            "calibration data."
        )
    op = Op.LINEAR if isinstance(owner, nn.Linear) else Op.CONV
    group = dynamic_group_of(plan.runtime, plan.settings)

    def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:  # noqa: ARG001 - torch passes it
        first, *others = inputs
        rounded = rounded_input(first, format_, op=op, quantizer=quantizer, dynamic_group=group)
        return (rounded, *others)

    return hook


def _run_in_bfloat16_(model: nn.Module) -> None:
    # An attribute of the instance comes before the method of the class.
    model.forward = torch.autocast("cpu", dtype=torch.bfloat16)(model.forward)
