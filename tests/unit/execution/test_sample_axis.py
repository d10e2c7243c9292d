"""Samples are found wherever a model puts them, and models that mix them are refused."""

import pytest
import torch
from torch import Tensor, nn

from mpsearch.errors import MeasurementError
from mpsearch.execution.sample_axis import SampleAxis, bytes_per_sample, find_sample_axes
from mpsearch.testing import networks
from mpsearch.tracing import trace_model


class Layouts(nn.Module):
    """One layer per layout, and a table that all samples share."""

    def __init__(self) -> None:
        super().__init__()
        self.plain, self.inner = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second, self.outer = nn.Linear(4, 4), nn.Linear(4, 4)
        self.table = nn.Embedding(5, 4)
        self.register_buffer("order", torch.arange(5)[None])

    def forward(self, x: Tensor) -> Tensor:
        """Run the network on (samples, 5, 4)."""
        samples, length = x.shape[:2]
        x = self.plain(x) + self.table(self.order)
        x = self.second(x.transpose(0, 1))
        x = self.inner(x.reshape(length * samples, 4)).reshape(length, samples, 4)
        x = self.outer(x.transpose(0, 1).reshape(samples * length, 4))
        return x.reshape(samples, length, 4)


def test_each_layout_is_found_as_it_is() -> None:
    torch.manual_seed(0)
    traced = trace_model(Layouts(), {"x": torch.randn(2, 5, 4)})
    found = find_sample_axes(traced, {"x": torch.randn(4, 5, 4)})
    axes = {layer: found.axes[nodes[0]] for layer, nodes in traced.nodes.items()}
    assert axes["plain"] == SampleAxis(axis=0)
    assert axes["second"] == SampleAxis(axis=1)
    assert axes["inner"] == SampleAxis(axis=0, is_inner=True)
    assert axes["outer"] == SampleAxis(axis=0)
    assert found.shared == set(traced.nodes["table"])
    assert not found.is_one_by_one


def test_a_shared_table_that_cannot_be_repeated_makes_samples_run_alone() -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 4)
            self.register_buffer("order", torch.arange(5)[None])

        def forward(self, x: Tensor) -> Tensor:
            places = self.table(self.order).reshape(5, 4)
            result = self.head(x + places)
            assert isinstance(result, Tensor)
            return result

    traced = trace_model(Fixed(), {"x": torch.randn(2, 5, 4)})
    found = find_sample_axes(traced, {"x": torch.randn(3, 5, 4)})
    assert found.is_one_by_one
    assert found.shared == frozenset()


@pytest.mark.parametrize("axis", [SampleAxis(), SampleAxis(axis=1), SampleAxis(is_inner=True)])
def test_samples_come_first_with_all_that_is_theirs(axis: SampleAxis) -> None:
    samples = torch.arange(24.0).reshape(4, 3, 2)  # 4 samples of 3 rows
    stored = {
        SampleAxis(): samples.reshape(12, 2),
        SampleAxis(axis=1): samples.transpose(0, 1),
        SampleAxis(is_inner=True): samples.transpose(0, 1).reshape(12, 2),
    }[axis]
    assert torch.equal(axis.samples_first(stored, 4), samples)


def test_a_single_sample_runs_alone() -> None:
    traced = trace_model(*networks.convolutions())
    found = find_sample_axes(traced, {"image": torch.randn(1, 3, 8, 8)})
    assert found.is_one_by_one


def test_samples_that_see_each_other_are_refused() -> None:
    class Ranked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(self.head(x), dim=0)

    traced = trace_model(Ranked(), {"x": torch.randn(3, 4)})
    with pytest.raises(MeasurementError, match="depends on which other samples"):
        find_sample_axes(traced, {"x": torch.randn(3, 4)})


def test_bytes_count_every_value_of_one_sample() -> None:
    traced = trace_model(nn.Sequential(nn.Linear(4, 6)), {"input": torch.randn(2, 4)})
    assert bytes_per_sample(traced, {"input": torch.randn(3, 4)}) == 4 * (4 + 6)
