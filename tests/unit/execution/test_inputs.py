"""Inputs are rounded as the format says; runtimes' own rounding serves weight-only formats."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import format_named
from mpsearch.core.plan import Plan
from mpsearch.errors import PlanError
from mpsearch.execution import quantised, run, takes
from mpsearch.execution.dynamic import quantise_dynamically
from mpsearch.quant.fake_torch import fake_quantise_activation, fake_quantise_weight
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.testing import networks
from mpsearch.tracing import trace_model
from mpsearch.workflow.apply import apply


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 3))


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    values = torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(1))
    return values * torch.logspace(-3, 3, 5)[:, None]  # tokens of unlike size


def _simulated(model: nn.Module, inputs: Tensor, plan: Plan) -> Tensor:
    traced = trace_model(model, [inputs])
    named = dataclasses.replace(
        plan, assignment=dict.fromkeys(traced.graph.names, plan.assignment["0"])
    )
    with quantised(traced, named) as deployed:
        found = run(deployed, {traced.input_names[0]: inputs})
    assert isinstance(found, Tensor)
    return found


def _computed(model: nn.Sequential, inputs: Tensor, *, name: str) -> Tensor:
    layer = model[0]
    assert isinstance(layer, nn.Linear)
    stored = fake_quantise_weight(layer.weight, format_named(name).weight)
    return nn.functional.linear(inputs, stored, layer.bias)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_tokens_have_a_scale_each(model: nn.Sequential, inputs: Tensor, bits: int) -> None:
    """By hand: max|x| of a token over the largest code is its step."""
    largest = 2 ** (bits - 1) - 1
    rounded = torch.empty_like(inputs)
    for row, out in zip(inputs.reshape(-1, 6), rounded.reshape(-1, 6), strict=True):
        step = row.abs().max() / largest
        out.copy_((row / step).round() * step)
    assert torch.equal(quantise_dynamically(inputs, 6, bits=bits), rounded)
    expected = _computed(model, rounded, name="w4-mse")
    plan = Plan(assignment={"0": f"w4a{bits}-token-mse"}, runtime="simulation")
    assert torch.equal(_simulated(model, inputs, plan), expected)
    assert torch.equal(apply(model, plan)(inputs), expected)


def test_small_tokens_keep_their_digits_where_one_range_loses_them(
    model: nn.Sequential, inputs: Tensor
) -> None:
    """Per token the error is at most half of 1 / 127 of the token, static it is of them all."""
    quantizer = quantizer_of_range(float(inputs.min()), float(inputs.max()))
    plans = [
        Plan(assignment={"0": name}, runtime="simulation", quantizers={"0": quantizer})
        for name in ("a8", "a8-token")
    ]
    with torch.no_grad():
        exact = model(inputs)
    small = slice(0, 1)
    errors = [(_simulated(model, inputs, plan) - exact)[:, small].abs().max() for plan in plans]
    assert errors[1] < errors[0] / 50


def test_inputs_alone_leave_the_weight_as_it_is(model: nn.Sequential, inputs: Tensor) -> None:
    quantizer = quantizer_of_range(-2.0, 3.0)
    rounded = {
        "a8": fake_quantise_activation(inputs, quantizer),
        "a16": inputs.bfloat16().float(),
    }
    for name, values in rounded.items():
        plan = Plan(assignment={"0": name}, runtime="simulation", quantizers={"0": quantizer})
        assert torch.equal(_simulated(model, inputs, plan), model(values))
        assert torch.equal(apply(model, plan)(inputs), model(values))


def test_runtimes_round_inputs_of_weight_only_formats_alone(inputs: Tensor) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(64, 3))
    wide = inputs.repeat(1, 1, 11)[..., :64]
    settings = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "32"}
    for name, group in (("w8", 32), ("w8a8-token", 64)):
        plan = Plan(assignment={"0": name}, runtime="openvino", settings=settings)
        expected = _computed(model, quantise_dynamically(wide, group), name=name)
        assert torch.equal(_simulated(model, wide, plan), expected)
        assert torch.equal(apply(model, plan)(wide), expected)


def test_a_table_with_one_scale_is_quantised_whole_whichever_rows_are_read() -> None:
    table = nn.Embedding(10, 4)
    with torch.no_grad():
        table.weight[9] *= 100
    tokens = torch.tensor([[0, 1]])
    traced = trace_model(table, [tokens])
    for name in ("w4t", "w4t-mse", "w4-asymmetric"):
        plan = Plan(assignment=dict.fromkeys(traced.graph.names, name), runtime="simulation")
        with quantised(traced, plan) as deployed:
            found = run(deployed, {traced.input_names[0]: tokens})
        stored = fake_quantise_weight(table.weight, format_named(name).weight)
        assert torch.equal(found, stored[tokens])


def test_a_plan_without_the_quantiser_that_it_needs_is_refused(model: nn.Sequential) -> None:
    with pytest.raises(PlanError, match=r"'0' is in 'w4a8'.*no quantiser"):
        apply(model, Plan(assignment={"0": "w4a8"}, runtime="simulation"))


def test_tokens_are_of_linear_layers_only() -> None:
    convolution = trace_model(*networks.convolutions()).graph.layers[0]
    table, *others = trace_model(*networks.transformer()).graph.layers
    for name in ("w8a8-token", "a4-token"):
        assert not takes(convolution, format_named(name))
        assert not takes(table, format_named(name))
        assert any(takes(layer, format_named(name)) for layer in others)
