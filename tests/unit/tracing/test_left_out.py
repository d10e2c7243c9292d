"""Every weight that is multiplied is a layer's, or told with the reason why not."""

import logging

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from mpsearch.testing import networks
from mpsearch.tracing import base_onnx, trace_model


class Computed(nn.Module):
    """Weights that are sliced, masked, on the left, and of a form without formats."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.randn(16, 8))
        self.masked = nn.Parameter(torch.randn(8, 8))
        self.left = nn.Parameter(torch.randn(8, 8))
        self.both = nn.Bilinear(8, 8, 5)
        self.place = nn.Parameter(torch.randn(3, 8))  # added, not multiplied
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on (samples, 3, 8)."""
        one, other = (
            functional.linear(x + self.place, part) for part in (self.fused[:8], self.fused[8:])
        )
        other = functional.linear(other, self.masked.tril())
        one = self.left @ one.transpose(1, 2)
        return _tensor(self.head(self.both(one.transpose(1, 2), other)))


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def test_weights_that_are_no_layers_are_told(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    with caplog.at_level(logging.WARNING, logger="mpsearch.tracing"):
        traced = trace_model(Computed(), [torch.randn(2, 3, 8)])
    assert traced.graph.names == ("head",)
    reasons = dict(traced.graph.left_out)
    assert set(reasons) == {"fused", "masked", "left", "both.weight"}
    assert "computed" in reasons["fused"]
    assert "aten.bilinear" in reasons["both.weight"]
    assert "fused stays at full precision" in caplog.text


class Placed(nn.Module):
    """A table of words, and one of places whose rows are the same for every input."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.places = nn.Embedding(3, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, words: Tensor) -> Tensor:
        """Run the network on (samples, 3)."""
        return _tensor(self.head(self.words(words) + self.places(torch.arange(3))))


def test_rows_that_no_input_decides_are_no_layer() -> None:
    traced = trace_model(Placed(), [torch.randint(20, (2, 3))])
    assert traced.graph.names == ("words", "head")
    assert "the same for every input" in traced.graph.left_out["places.weight"]
    file = base_onnx(traced)
    assert file.graph.output


def test_weight_norm_is_told() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 4))
    traced = trace_model(model, [torch.randn(2, 8)])
    assert traced.graph.names == ("1",)
    assert any(path.startswith("0.parametrizations") for path in traced.graph.left_out)


@pytest.mark.parametrize(
    "network",
    [
        networks.forms, networks.convolutions, networks.upscaling, networks.transformer,
        networks.wrapped,
    ],
)  # fmt: skip
def test_nothing_is_left_out_where_all_weights_are_layers(network: networks.Network) -> None:
    assert not trace_model(*network()).graph.left_out
