"""A model behaving as if a plan were deployed, without touching one bit of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, fx, nn

from mpsearch.core.formats import BASES, format_named
from mpsearch.core.graph import is_product_name
from mpsearch.core.placement import LAYER_INPUTS
from mpsearch.core.plan import Plan
from mpsearch.errors import PlanError
from mpsearch.execution.additions import addition_overrides
from mpsearch.execution.dynamic import dynamic_group_of
from mpsearch.execution.interpreter import Afterwards, Override, evaluate, on_device_of
from mpsearch.execution.overrides import layer_override
from mpsearch.quant.fake_torch import round_to_bfloat16
from mpsearch.tracing.call import call_of
from mpsearch.tracing.trace import trace_model
from mpsearch.tracing.traced_model import TracedModel

_BFLOAT16: Final = torch.finfo(torch.bfloat16)


@final
@dataclass(frozen=True, kw_only=True)
class QuantisedModel:
    """A traced model with the plan's arithmetic; run it with `run` or by calling it.

    Under base bf16 every floating tensor between operators, and every parameter, is rounded
    to bfloat16 and computed on in float32: matrix products then equal those of bf16 kernels
    that sum in float32, and softmax and norms those that compute inside in float32.
    """

    traced: TracedModel
    plan: Plan
    overrides: Mapping[str, Override] = field(default_factory=dict)

    def __call__(self, *args: Tensor, **kwargs: Tensor) -> Any:  # noqa: ANN401 - as the model
        """Return the raw output for inputs by position or by name."""
        return run(self, dict(zip(self.traced.input_names, args, strict=False)) | kwargs)


def run(model: TracedModel | QuantisedModel, batch: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - models return tensors, tuples, dicts
    """Return the raw output for a batch, without gradients; further keys are ignored.

    Raises:
        DataError: An input is missing or has another shape than the graph takes.
    """
    with torch.no_grad():
        if isinstance(model, TracedModel):
            return evaluate(model, on_device_of(model, batch))
        return evaluate(
            model.traced,
            on_device_of(model.traced, batch),
            overrides=model.overrides,
            after=_after(model.plan.base),
        )


@contextmanager
def quantised(
    model: TracedModel | nn.Module,
    plan: Plan,
    *,
    example: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    root: str = "",
) -> Iterator[QuantisedModel]:
    """Make a model behave as the plan deploys it, for as long as the context lasts.

    Weights are quantised into copies, so leaving restores every bit. A module that is not
    traced yet needs `example`; inside the context, calling it gives quantised outputs too.
    Runtime `openvino` quantises the inputs of weight-only linear layers on the fly, and so
    does this; runtime `simulation` does not.

    Raises:
        PlanError: The plan names other layers than the model has, or another base.
        FormatError: A layer cannot take its format.
    """
    if isinstance(model, TracedModel):
        yield quantised_model(model, plan)
        return
    if example is None:
        raise PlanError(
            f"A plan cannot be applied to an untraced {type(model).__name__} without example "
            "inputs. Expected a TracedModel, or `example`. Pass a dict or tuple of tensors."
        )
    has_products = any(map(is_product_name, plan.assignment))
    traced = trace_model(model, example, root=root, has_products=has_products)
    deployed = quantised_model(traced, plan)
    with _calls_replaced(model, deployed):
        yield deployed


def quantised_model(traced: TracedModel, plan: Plan) -> QuantisedModel:
    """Return the traced model with the plan's arithmetic; see `quantised`."""
    _check_plan(traced, plan)
    group = dynamic_group_of(plan.runtime, plan.settings)
    overrides: dict[str, Override] = {}
    if plan.placement != LAYER_INPUTS:
        overrides |= addition_overrides(traced, plan.quantizers)
    for layer, name in plan.assignment.items():
        # The base's own rounding covers its layers.
        if name != plan.base:
            overrides |= layer_override(
                traced,
                layer,
                number=format_named(name),
                quantizers=plan.quantizers,
                dynamic_group=group,
            )
    return QuantisedModel(traced=traced, plan=plan, overrides=overrides)


@contextmanager
def _calls_replaced(model: nn.Module, deployed: QuantisedModel) -> Iterator[None]:
    """Let calls of the module run the deployed one; its own class stays untouched."""
    had_own = "forward" in vars(model)
    before = vars(model).get("forward")

    def forward(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the module's own
        inputs = kwargs or (args[0] if isinstance(args[0], Mapping) else args)
        call = call_of(model, inputs)
        return run(deployed, dict(zip(call.names, call.tensors, strict=True)))

    signature_of = model.forward
    forward.__wrapped__ = signature_of  # type: ignore[attr-defined]  # how inspect finds signatures
    model.forward = forward
    try:
        yield
    finally:
        del model.forward
        if had_own:
            assert callable(before)
            model.forward = before


def _check_plan(traced: TracedModel, plan: Plan) -> None:
    if plan.base not in BASES:
        raise PlanError(
            f"The plan's base is {plan.base!r}. Expected one of {', '.join(BASES)}. Search again."
        )
    names = set(traced.graph.names)
    unknown, missing = sorted(set(plan.assignment) - names), sorted(names - set(plan.assignment))
    if unknown or missing:
        which = (
            f"names the layer {unknown[0]!r}, which the model lacks"
            if unknown
            else f"lacks the layer {missing[0]!r}"
        )
        raise PlanError(
            f"The plan {which}. Expected a format for each of the model's {len(names)} layers. "
            "Use the plan with the model it was made for, or search again."
        )


def _after(base: str) -> Afterwards | None:
    return _rounded if format_named(base).weight.bits == _BFLOAT16.bits else None


def _rounded(node: fx.Node, value: Any) -> Any:  # noqa: ANN401 - any node's value
    if isinstance(value, tuple | list):
        return type(value)(_rounded(node, each) for each in value)
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return value
    # The most negative float32, a mask, would round to minus infinity, and a row of it to NaN.
    return round_to_bfloat16(value).where(
        torch.isinf(value) | (value.abs() <= _BFLOAT16.max), value.sign() * _BFLOAT16.max
    )
