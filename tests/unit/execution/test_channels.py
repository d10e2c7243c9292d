"""Channels of inputs are evened out together where layers read one tensor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.plan import Plan
from mpsearch.execution import observe_ranges, run
from mpsearch.execution.channels import observe_exponents
from mpsearch.execution.quantised import quantised
from mpsearch.quant.smoothing import smoothing_exponents
from mpsearch.tasks import Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import trace_model

OUTLIERS = torch.tensor([1.0, 30.0, 1.0, 0.1, 1.0, 1.0, 200.0, 1.0])


def data_of(samples: Tensor, folder: Path) -> Dataset:
    return read_data(
        [{"x": rows} for rows in torch.split(samples, 2)],
        input_names=("x",),
        batch_size=2,
        folder=folder,
    )


class Fork(nn.Module):
    """Two layers read the input, a third one what they make of it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(8, 8), nn.Linear(8, 8)
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(torch.tanh(self.left(x)) * self.right(x))
        return found


@pytest.fixture
def samples() -> Tensor:
    return torch.randn(7, 5, 8, generator=torch.Generator().manual_seed(0)) * OUTLIERS


def test_exponents_are_those_of_all_samples_and_of_all_readers(
    samples: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Fork()
    with torch.no_grad():
        model.right.weight.mul_(4.0 ** torch.arange(-4, 4))  # columns unlike those on the left
    traced = trace_model(model, {"x": samples[:2]})
    found = observe_exponents(traced, data_of(samples, tmp_path), layers=traced.graph.names)
    with torch.no_grad():
        reach = samples.abs().amax((0, 1))
        columns = torch.maximum(model.left.weight.abs(), model.right.weight.abs()).amax(0)
        product = (torch.tanh(model.left(samples)) * model.right(samples)).abs().amax((0, 1))
        last = smoothing_exponents(product.numpy(), model.last.weight.abs().amax(0).numpy())
    assert found["left"] == found["right"]
    assert found["left"] == smoothing_exponents(reach.numpy(), columns.numpy())
    assert found["left"] != found["last"] == last


def test_layers_that_share_a_weight_and_convolutions_are_left_alone(tmp_path: Path) -> None:
    for network, evened in (
        (networks.forms(), {"twice", "free", "turned", "matrix", "back"}),
        (networks.convolutions(), {"head"}),
    ):
        traced = trace_model(*network)
        data = read_data(
            [traced.example], input_names=traced.input_names, batch_size=2, folder=tmp_path
        )
        assert set(observe_exponents(traced, data, layers=traced.graph.names)) == evened


def test_outliers_no_longer_cost_the_other_channels(samples: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    traced = trace_model(Fork(), {"x": samples[:2]})
    data = data_of(samples, tmp_path)
    exact = run(traced, {"x": samples})
    error = {}
    for method in ("mse", "smoothed"):
        plan = Plan(
            assignment=dict.fromkeys(traced.graph.names, "w8a8"),
            quantizers=observe_ranges(traced, data, method=method),
        )
        with quantised(traced, plan) as model:
            error[method] = float((run(model, {"x": samples}) - exact).square().mean())
    assert error["smoothed"] < error["mse"] / 2


def test_ranges_are_those_of_the_channels_after_they_were_evened_out(
    samples: Tensor, tmp_path: Path
) -> None:
    traced = trace_model(Fork(), {"x": samples[:2]})
    found = observe_ranges(traced, data_of(samples, tmp_path), method="smoothed")["left"]
    divided = samples.numpy() / np.exp2(found.exponents)
    assert divided.min() <= found.low < 0 < found.high <= divided.max()
    assert found.high - found.low > 0.3 * (divided.max() - divided.min())
