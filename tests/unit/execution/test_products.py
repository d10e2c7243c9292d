"""A product of two activations in codes of 8 bits is a product of whole numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mpsearch.core.formats import format_named
from mpsearch.core.graph import second_input
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import FormatError, MeasurementError
from mpsearch.execution import layer_override, observe_ranges, quantised, run
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.tasks import TASKS, read_data
from mpsearch.testing import networks
from mpsearch.tracing import trace_model
from mpsearch.tracing.traced_model import TracedModel, tensor_at

NAME = "@matmul"


class Product(nn.Module):
    """Weights of a softmax by values; the layer before them makes it a model."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Linear(5, 5)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.softmax(self.before(left), dim=-1) @ right


def _case() -> tuple[TracedModel, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    batch = {
        "left": torch.randn(4, 3, 5, generator=generator),
        "right": torch.randn(4, 5, 2, generator=generator) - 0.5,
    }
    return trace_model(Product(), batch, has_products=True), batch


def _weights(traced: TracedModel, batch: dict[str, Tensor]) -> Tensor:
    """Return what the product reads first."""
    bias = tensor_at(traced.module, "before.bias")
    with torch.no_grad():
        logits = functional.linear(batch["left"], traced.weight("before"), bias)
        return torch.softmax(logits, dim=-1)


def _ranges(
    traced: TracedModel, batch: dict[str, Tensor], folder: Path
) -> dict[str, ActivationQuantizer]:
    data = read_data([batch], input_names=traced.input_names, batch_size=4, folder=folder)
    return observe_ranges(traced, data, method="minmax")


def test_ranges_have_no_offset_and_reach_what_was_seen(tmp_path: Path) -> None:
    traced, batch = _case()
    found = _ranges(traced, batch, tmp_path)
    weights = _weights(traced, batch)
    first, second = found[NAME], found[second_input(NAME)]
    assert (first.zero_point, second.zero_point) == (0, 128)
    assert first.scale == pytest.approx(float(weights.max()) / 255, rel=1e-6)
    assert second.scale == pytest.approx(float(batch["right"].abs().max()) / 127, rel=1e-6)


def test_a_product_of_codes_is_that_of_whole_numbers(tmp_path: Path) -> None:
    traced, batch = _case()
    found = _ranges(traced, batch, tmp_path)
    plan = Plan(assignment={"before": "fp32", NAME: "a8"}, quantizers=found, runtime="simulation")
    weights = _weights(traced, batch).numpy()
    first, second = found[NAME], found[second_input(NAME)]
    left = np.clip(np.rint(weights / np.float32(first.scale)), 0, 255).astype(np.int32)
    right = np.rint(batch["right"].numpy() / np.float32(second.scale)).clip(-128, 127)
    whole = left @ right.astype(np.int32)
    with quantised(traced, plan) as deployed:
        output = run(deployed, batch).numpy()
    np.testing.assert_allclose(output, whole * (first.scale * second.scale), rtol=1e-5, atol=1e-6)
    assert np.abs(output - run(traced, batch).numpy()).max() > 1e-4


def test_every_product_of_a_network_runs_in_its_formats(tmp_path: Path) -> None:
    model, example = networks.transformer()
    traced = trace_model(model, example, has_products=True)
    found = _ranges(traced, example, tmp_path)
    plain = run(traced, example)["logits"]
    errors = []
    for ends in (("",), ("_1",), ("", "_1")):
        chosen = {f"block.self_attn@matmul{end}": "a8" for end in ends}
        assignment = dict.fromkeys(traced.graph.names, "fp32") | chosen
        with quantised(traced, Plan(assignment=assignment, quantizers=found)) as deployed:
            errors.append(float((run(deployed, example)["logits"] - plain).square().sum()))
    assert min(errors) > 0
    # Independent errors add; signs make them differ from the sum.
    assert errors[2] < 2 * (errors[0] + errors[1])


def test_only_formats_without_a_weight_fit(tmp_path: Path) -> None:
    traced, batch = _case()
    found = _ranges(traced, batch, tmp_path)
    for name in ("w8a8", "w8", "w4g128", "fp8", "a8-token"):
        with pytest.raises(FormatError, match="cannot take"):
            layer_override(traced, NAME, number=format_named(name), quantizers=found)
    assert layer_override(traced, NAME, number=format_named("fp32")) == {}
    rounded = layer_override(traced, NAME, number=format_named("bf16"))
    (compute,) = rounded.values()
    one = torch.full((2, 2), 1 + 2**-9)  # nearer to 1 than to the next bfloat16
    torch.testing.assert_close(compute(one, one), torch.full((2, 2), 2.0))


def test_one_quantiser_of_two_is_refused() -> None:
    traced, _ = _case()
    one = {NAME: quantizer_of_range(0.0, 1.0)}
    with pytest.raises(MeasurementError, match="has 1 quantisers"):
        layer_override(traced, NAME, number=format_named("a8"), quantizers=one)


def test_the_second_range_is_part_of_what_a_format_is(tmp_path: Path) -> None:
    traced, batch = _case()
    found = _ranges(traced, batch, tmp_path)
    data = read_data([batch], input_names=traced.input_names, batch_size=4, folder=tmp_path)
    key = second_input(NAME)
    other = {**found, key: replace(found[key], scale=2 * found[key].scale)}
    keys = {
        ChangeRequest(
            traced=traced, task=TASKS["embedding"], data=data, pairs={}, quantizers=each
        ).format_key(NAME, "a8")
        for each in (found, other)
    }
    assert len(keys) == 2
