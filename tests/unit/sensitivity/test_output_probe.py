"""Probes equal closed forms of linear models, and keep what they measured."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.core.formats import FORMATS
from mpsearch.errors import MeasurementError, UsageError
from mpsearch.quant.fake_torch import fake_quantise_activation, fake_quantise_weight
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.sensitivity import METRICS, OutputProbe, Work
from mpsearch.sensitivity.draws import random_signs
from mpsearch.tasks import TASKS, Batch, CallableTask, Dataset, read_data
from mpsearch.tracing import TracedModel, trace_model


def _data(samples: Tensor, folder: Path) -> Dataset:
    return read_data(
        [{"input": rows} for rows in torch.split(samples, 4)],
        input_names=("input",),
        batch_size=4,
        folder=folder,
    )


def _change(traced: TracedModel, layer: str, name: str) -> Tensor:
    weight = traced.weight(layer).detach()
    return fake_quantise_weight(weight, FORMATS[name].weight) - weight


def _linear(folder: Path, *, rows: int = 6) -> tuple[nn.Linear, Tensor, TracedModel, Dataset]:
    torch.manual_seed(1)
    layer, samples = nn.Linear(5, 4), torch.randn(rows, 5)
    traced = trace_model(nn.Sequential(layer), {"input": samples[:2]})
    return layer, samples, traced, _data(samples, folder)


def test_probes_of_a_linear_model_average_to_the_exact_error(tmp_path: Path) -> None:
    """E[u^2] is exact there; the mean of 200 draws lies within 5 of its standard errors.

    u is a sum of independent signs, so a miss has a probability below 1e-6 per entry.
    """
    _, _, traced, data = _linear(tmp_path)
    draws, formats = 200, ("w4", "w2")
    arguments: dict[str, Any] = {
        "task": TASKS["classification"],
        "data": data,
        "formats": formats,
    }
    exact = METRICS["output_error"].measure(traced, **arguments)
    table = OutputProbe(draws=draws).measure(traced, **arguments)
    assert table.numbers is not None
    squares = table.numbers.astype(np.float64).reshape(6, draws, 1, 2) ** 2
    error = squares.mean(axis=0).std(axis=0, ddof=1) / math.sqrt(draws)
    assert (np.abs(table.loss - exact.loss) < 5 * error).all()
    assert (error < 0.2 * exact.loss).all()


def test_numbers_hold_the_cross_terms_of_a_plan(tmp_path: Path) -> None:
    """Two linear layers in a row: the squared error of both changed, to first order."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 3, bias=False))
    samples = torch.randn(5, 4)
    traced = trace_model(model, {"input": samples[:2]})
    table = OutputProbe(draws=300).measure(
        traced,
        task=TASKS["classification"],
        data=_data(samples, tmp_path),
        formats=["w3"],
    )
    first, second = (traced.weight(name).detach() for name in traced.graph.names)
    changes = [_change(traced, name, "w3") for name in traced.graph.names]
    moved = samples @ (changes[0].t() @ second.t() + first.t() @ changes[1].t())
    exact = float(moved.square().sum(dim=1).mean())
    assert table.numbers is not None
    sums = table.numbers.astype(np.float64)[:, :, 0].sum(axis=1).reshape(5, 300) ** 2
    error = sums.mean(axis=0).std(ddof=1) / math.sqrt(300)
    assert abs(sums.mean() - exact) < 5 * error
    assert abs(table.loss.sum() - exact) > 5 * error  # the terms alone are not enough


def test_quantised_activations_are_in_the_numbers(tmp_path: Path) -> None:
    layer, samples, traced, data = _linear(tmp_path)
    ranges = {"0": quantizer_of_range(-2.0, 2.0)}
    arguments: dict[str, Any] = {
        "task": TASKS["classification"],
        "data": data,
        "formats": ["w8a8", "bf16"],
        "quantizers": ranges,
    }
    table = OutputProbe(draws=1).measure(traced, **arguments)
    weight = layer.weight.detach()
    moved = (
        fake_quantise_activation(samples, ranges["0"])
        @ fake_quantise_weight(weight, FORMATS["w8a8"].weight).t(),
        samples.bfloat16().float() @ weight.bfloat16().float().t(),
    )
    signs = random_signs(torch.zeros(6, 4), seed=0, draw=0, places=range(6))
    assert table.numbers is not None
    for column, other in enumerate(moved):
        wanted = (signs * (other - samples @ weight.t())).sum(dim=1)
        np.testing.assert_allclose(table.numbers[:, 0, column], wanted, rtol=1e-3, atol=1e-6)


def test_inputs_quantised_on_the_fly_are_in_the_numbers(tmp_path: Path) -> None:
    _, _, traced, data = _linear(tmp_path)
    tables = [
        OutputProbe(draws=1).measure(
            traced, task=TASKS["classification"], data=data, formats=["w8"], dynamic_group=group
        )
        for group in (None, 5)
    ]
    assert not np.array_equal(tables[0].loss, tables[1].loss)


def test_squares_first_equals_its_definition(tmp_path: Path) -> None:
    layer, samples, traced, _ = _linear(tmp_path)
    labels = torch.tensor([0, 3, 1, 1, 2, 0])
    data = read_data(
        [{"input": samples, "label": labels}],
        input_names=("input",),
        batch_size=6,
        folder=tmp_path / "labelled",
    )
    table = METRICS["gradient_output_error"].measure(
        traced, task=TASKS["classification"], data=data, formats=["w3"]
    )
    logits = layer(samples).detach().requires_grad_()
    loss = nn.functional.cross_entropy(logits, labels, reduction="sum")
    (slope,) = torch.autograd.grad(loss, logits)
    moved = samples @ _change(traced, "0", "w3").t()
    wanted = (slope * moved).square().sum(dim=1).mean()
    assert table.loss[0, 0] == pytest.approx(float(wanted), rel=1e-4)
    assert table.numbers is None


def test_more_draws_add_only_theirs_and_a_new_format_only_itself(tmp_path: Path) -> None:
    _, _, traced, data = _linear(tmp_path)
    works: list[Work] = []
    arguments: dict[str, Any] = {
        "task": TASKS["classification"],
        "data": data,
        "cache": Cache(folder=tmp_path / "cache"),
        "report": works.append,
    }
    two = OutputProbe(draws=2).measure(traced, formats=["w4"], **arguments)
    three = OutputProbe(draws=3).measure(traced, formats=["w4", "w2"], **arguments)
    again = OutputProbe(draws=3).measure(traced, formats=["w4", "w2"], **arguments)
    assert [(work.measured_pairs, work.cached_pairs) for work in works] == [
        (4, 0),
        (8, 4),
        (0, 12),
    ]
    assert works[2].macs == 0
    assert two.numbers is not None
    assert three.numbers is not None
    kept = three.numbers.reshape(6, 3, 1, 2)[:, :2, :, 0]
    np.testing.assert_array_equal(two.numbers.reshape(6, 2, 1), kept)
    np.testing.assert_array_equal(again.numbers, three.numbers)


def test_another_seed_draws_other_signs(tmp_path: Path) -> None:
    _, _, traced, data = _linear(tmp_path)
    tables = [
        OutputProbe(draws=1).measure(
            traced,
            task=TASKS["classification"],
            data=data,
            formats=["w3"],
            seed=seed,
            cache=Cache(folder=tmp_path / "cache"),
        )
        for seed in (0, 1)
    ]
    assert not np.array_equal(tables[0].loss, tables[1].loss)


def test_outputs_without_gradient_are_refused(tmp_path: Path) -> None:
    _, _, traced, data = _linear(tmp_path)
    with pytest.raises(MeasurementError, match=r"without a gradient.*'output_error'"):
        OutputProbe().measure(
            traced, task=CallableTask(function=_likeliest), data=data, formats=["w4"]
        )


def _likeliest(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw.argmax(dim=1, keepdim=True)


def test_samples_that_see_each_other_are_refused(tmp_path: Path) -> None:
    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(5, 4)

        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name of the data's key
            y = self.inner(input)
            result = y - y[:1]
            assert isinstance(result, Tensor)
            return result

    _, samples, _, data = _linear(tmp_path)
    traced = trace_model(Centred(), {"input": samples[:2]})
    with pytest.raises(MeasurementError, match="depends on which other samples"):
        OutputProbe().measure(traced, task=TASKS["classification"], data=data, formats=["w4"])


def test_no_draws_are_refused(tmp_path: Path) -> None:
    _, _, traced, data = _linear(tmp_path)
    with pytest.raises(UsageError, match="0 draws"):
        OutputProbe(draws=0).measure(
            traced, task=TASKS["classification"], data=data, formats=["w4"]
        )
