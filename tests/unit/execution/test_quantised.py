"""A quantised model computes what its formats say, and leaving it restores every bit."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.formats import FORMATS
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DataError, FormatError, MeasurementError, PlanError
from mpsearch.execution import quantised, run, takes
from mpsearch.quant.fake_torch import fake_quantise_activation, fake_quantise_weight
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.testing import networks
from mpsearch.tracing import TracedModel, trace_model


def _plan(traced: TracedModel, **changes: object) -> Plan:
    return dataclasses.replace(
        Plan(assignment=dict.fromkeys(traced.graph.names, "fp32"), runtime="simulation"),
        **changes,  # type: ignore[arg-type]  # fields of Plan by name
    )


def _linear(inputs: int = 4, outputs: int = 3) -> tuple[TracedModel, nn.Linear, Tensor]:
    torch.manual_seed(0)
    layer = nn.Linear(inputs, outputs)
    x = torch.randn(5, inputs)
    return trace_model(nn.Sequential(layer), [x]), layer, x


def _output(traced: TracedModel, plan: Plan, x: Tensor) -> Tensor:
    with quantised(traced, plan) as model:
        result = run(model, {traced.input_names[0]: x})
    assert isinstance(result, Tensor)
    return result


def test_weight_only_formats_change_the_weight_alone() -> None:
    traced, layer, x = _linear()
    stored = fake_quantise_weight(layer.weight, FORMATS["w4"].weight)
    wanted = nn.functional.linear(x, stored, layer.bias)
    assert torch.equal(_output(traced, _plan(traced, assignment={"0": "w4"}), x), wanted)


def test_static_activations_are_quantised_before_the_layer() -> None:
    traced, layer, x = _linear()
    quantizer = quantizer_of_range(-1.0, 1.5)
    plan = _plan(traced, assignment={"0": "w8a8"}, quantizers={"0": quantizer})
    stored = fake_quantise_weight(layer.weight, FORMATS["w8a8"].weight)
    wanted = nn.functional.linear(fake_quantise_activation(x, quantizer), stored, layer.bias)
    assert torch.equal(_output(traced, plan, x), wanted)


@pytest.mark.parametrize("inputs", [64, 96, 32, 31])
def test_openvino_quantises_inputs_of_weight_only_layers_in_groups(inputs: int) -> None:
    traced, layer, x = _linear(inputs)
    plan = _plan(traced, assignment={"0": "w8"}, runtime="openvino")
    grouped = x.clone()
    for start in range(0, inputs if inputs >= 32 else 0, 32):
        block = x[:, start : start + 32]
        scale = block.abs().max(dim=1, keepdim=True).values / 127
        grouped[:, start : start + 32] = (block / scale).round() * scale
    stored = fake_quantise_weight(layer.weight, FORMATS["w8"].weight)
    wanted = nn.functional.linear(grouped, stored, layer.bias)
    torch.testing.assert_close(_output(traced, plan, x), wanted, rtol=0, atol=1e-6)


def test_base_bf16_multiplies_rounded_numbers_and_sums_in_float32() -> None:
    traced, layer, x = _linear()
    plan = _plan(traced, base="bf16", assignment={"0": "bf16"})
    exact = nn.functional.linear(
        x.bfloat16().float(), layer.weight.bfloat16().float(), layer.bias.bfloat16().float()
    )
    assert torch.equal(_output(traced, plan, x), exact.bfloat16().float())


def test_base_bf16_keeps_masked_attention_finite() -> None:
    traced = trace_model(*networks.transformer())
    plan = _plan(traced, base="bf16", assignment=dict.fromkeys(traced.graph.names, "bf16"))
    with quantised(traced, plan) as model:
        logits = run(model, traced.example)["logits"]
    reference = run(traced, traced.example)["logits"]
    assert torch.isfinite(logits).all()
    assert 0 < (logits - reference).norm() / reference.norm() < 0.03


def test_base_bf16_keeps_the_most_negative_number_finite() -> None:
    """Masks add it; rounded to minus infinity, a row of it would turn softmax into NaN."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            hidden: Tensor = self.layer(x)
            return hidden.new_full(hidden.shape, torch.finfo(torch.float32).min).softmax(1) + hidden

    traced = trace_model(Masked(), [torch.randn(2, 4)])
    plan = _plan(traced, base="bf16", assignment={"layer": "bf16"})
    with quantised(traced, plan) as model:
        assert torch.isfinite(run(model, traced.example)).all()


def test_a_plan_of_the_reference_changes_nothing() -> None:
    for network in (networks.forms, networks.convolutions):
        traced = trace_model(*network())
        with quantised(traced, _plan(traced)) as model:
            assert torch.equal(run(model, traced.example), run(traced, traced.example))


def test_every_form_of_a_weight_is_quantised_along_its_output_channels() -> None:
    """The same numbers as a copy of the module whose parameters were replaced by hand."""
    model, example = networks.forms()
    assert isinstance(model, networks.Forms)
    traced = trace_model(model, example)
    by_hand = copy.deepcopy(model)
    number = FORMATS["w3"].weight
    with torch.no_grad():
        # One storage for both: rows of the embedding are output channels of the head.
        by_hand.emb.weight.copy_(fake_quantise_weight(model.emb.weight, number))
        by_hand.twice.weight.copy_(fake_quantise_weight(model.twice.weight, number))
        by_hand.free.weight.copy_(fake_quantise_weight(model.free.weight, number))
        by_hand.turned.copy_(fake_quantise_weight(model.turned, number))
        by_hand.matrix.copy_(fake_quantise_weight(model.matrix, number, axis=1))
        by_hand.back.copy_(fake_quantise_weight(model.back, number, axis=1))
        wanted = by_hand(**example)
    plan = _plan(traced, assignment=dict.fromkeys(traced.graph.names, "w3"))
    with quantised(traced, plan) as deployed:
        torch.testing.assert_close(run(deployed, example), wanted)


def test_leaving_restores_every_bit() -> None:
    model, example = networks.convolutions()
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    traced = trace_model(model, example)
    reference = run(traced, example)
    attributes = set(vars(model))
    plan = _plan(traced, assignment=dict.fromkeys(traced.graph.names, "w2"))
    with quantised(model, plan, example=example):
        changed = model(**example)
    assert not torch.equal(changed, reference)
    assert set(vars(model)) == attributes
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(run(traced, example), reference)


def test_a_module_is_restored_after_an_error_inside() -> None:
    model, example = networks.wrapped()
    model.eval()
    reference = model(example)
    plan = Plan(assignment={"model.0": "w2", "model.2": "w2"}, runtime="simulation")
    with pytest.raises(DataError, match="lacks"), quantised(model, plan, example=example):
        model({"left": example["left"]})
    assert torch.equal(model(example), reference)


def test_calling_the_quantised_model_is_running_it() -> None:
    traced = trace_model(*networks.convolutions())
    image = traced.example["image"]
    with quantised(traced, _plan(traced)) as model:
        assert torch.equal(model(image), model(image=image))


def test_plans_of_other_models_are_refused() -> None:
    traced, _, _ = _linear()
    for assignment, message in (({"0": "w8", "1": "w8"}, "'1'"), ({}, "lacks the layer '0'")):
        with (
            pytest.raises(PlanError, match=message),
            quantised(traced, _plan(traced, assignment=assignment)),
        ):
            pass


def test_a_missing_quantiser_is_named() -> None:
    traced, _, _ = _linear()
    with (
        pytest.raises(MeasurementError, match="Layer '0' has no quantiser"),
        quantised(traced, _plan(traced, assignment={"0": "w8a8"})),
    ):
        pass


def test_formats_that_a_layer_cannot_take_are_refused() -> None:
    traced = trace_model(*networks.transformer())
    tokens = traced.graph.layers[0]
    quantizer: ActivationQuantizer = quantizer_of_range(0.0, 1.0)
    for name in ("w8a8", "w4g128"):
        assert not takes(tokens, FORMATS[name])
        plan = _plan(
            traced,
            assignment=dict.fromkeys(traced.graph.names, "fp32") | {tokens.name: name},
            quantizers={tokens.name: quantizer},
        )
        with pytest.raises(FormatError, match="cannot take"), quantised(traced, plan):
            pass
    assert takes(tokens, FORMATS["w8"])
    assert not takes(trace_model(*networks.convolutions()).graph.layers[0], FORMATS["w4g128"])
