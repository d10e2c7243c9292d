"""A layer of evened out channels computes what its codes say, wherever they are divided."""

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import format_named
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.execution import quantised, run
from mpsearch.execution.smoothed import stored_weight
from mpsearch.execution.weight_changes import WeightChanges
from mpsearch.export import export_plan
from mpsearch.quant.fake_torch import (
    fake_float8_activation,
    fake_quantise_activation,
    fake_quantise_weight,
)
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.tracing import base_onnx, trace_model
from mpsearch.workflow.apply import apply

EXPONENTS = (0, 5, -2, 0, 1, 0, 7, 0)
STATIC = {"w8a8": fake_quantise_activation, "fp8": fake_float8_activation}


@pytest.fixture(scope="module")
def layer() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(8, 16)


@pytest.fixture(scope="module")
def model(layer: nn.Linear) -> nn.Module:
    return nn.Sequential(layer)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    return torch.randn(6, 8, generator=torch.Generator().manual_seed(1)) * 2.0 ** torch.tensor(
        EXPONENTS
    )


@pytest.fixture(scope="module")
def quantizer() -> ActivationQuantizer:
    return dataclasses.replace(quantizer_of_range(-3.0, 3.0), exponents=EXPONENTS)


@pytest.mark.parametrize("name", STATIC)
def test_codes_are_those_of_the_divided_input_and_the_multiplied_weight(
    model: nn.Module,
    layer: nn.Linear,
    inputs: Tensor,
    quantizer: ActivationQuantizer,
    name: str,
) -> None:
    factors = 2.0 ** torch.tensor(EXPONENTS)
    plain = dataclasses.replace(quantizer, exponents=())
    expected = nn.functional.linear(
        STATIC[name](inputs / factors, plain),
        fake_quantise_weight(layer.weight * factors, format_named(name).weight),
        layer.bias,
    )
    plan = Plan(assignment={"0": name}, quantizers={"0": quantizer}, runtime="simulation")
    traced = trace_model(model, [inputs])
    with quantised(traced, plan) as deployed:
        simulated = run(deployed, {traced.input_names[0]: inputs})
    torch.testing.assert_close(simulated, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(apply(model, plan)(inputs), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["w8", "w4", "w8a8-dynamic"])
def test_formats_without_a_range_know_of_no_exponents(
    layer: nn.Linear, quantizer: ActivationQuantizer, name: str
) -> None:
    weight, number = layer.weight, format_named(name)
    stored = stored_weight(weight, number, quantizer=quantizer, name="0")
    assert torch.equal(stored, fake_quantise_weight(weight, number.weight))


def test_what_a_format_adds_to_a_weight_is_seen_without_the_exponents(
    model: nn.Module, layer: nn.Linear, inputs: Tensor, quantizer: ActivationQuantizer
) -> None:
    traced = trace_model(model, [inputs])
    formats = {"w8a8": format_named("w8a8")}
    changes = WeightChanges(traced, formats, quantizers={"0": quantizer}, dynamic_group=None)
    weight, factors = layer.weight.detach(), 2.0 ** torch.tensor(EXPONENTS)
    scale = (weight * factors).abs().amax(1, keepdim=True) / 127
    assert bool((changes.change("0", "w8a8").abs() <= scale / factors / 2 * 1.0001).all())
    assert float(changes.change("0", "w8a8").abs().max()) > 0


def test_the_file_computes_what_the_simulation_does(
    model: nn.Module, inputs: Tensor, quantizer: ActivationQuantizer
) -> None:
    traced = trace_model(model, [inputs])
    plan = Plan(assignment={"0": "w8a8"}, quantizers={"0": quantizer})
    exported = export_plan(base_onnx(traced), plan)
    onnx.checker.check_model(exported)
    session = onnxruntime.InferenceSession(exported.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    with quantised(traced, plan) as deployed:
        simulated = run(deployed, {traced.input_names[0]: inputs})
    np.testing.assert_allclose(found, simulated.detach().numpy(), rtol=1e-4, atol=1e-3)
