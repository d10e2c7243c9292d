"""Ranges are those of the layers' inputs over all the data."""

from pathlib import Path

import pytest
import torch
from torch import nn

from mpsearch.core.cache import Cache
from mpsearch.errors import MeasurementError
from mpsearch.execution import observe_ranges
from mpsearch.tasks import Dataset, read_data
from mpsearch.testing import networks
from mpsearch.tracing import trace_model


def _data(samples: torch.Tensor, folder: Path) -> Dataset:
    return read_data(
        [{"input": rows} for rows in torch.split(samples, 2)],
        input_names=("input",),
        batch_size=2,
        folder=folder,
    )


def test_ranges_are_the_extremes_of_each_layers_input(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    samples = torch.randn(5, 4)
    traced = trace_model(model, {"input": samples[:2]})
    found = observe_ranges(traced, _data(samples, tmp_path), method="minmax")
    hidden = model[0](samples).relu()
    assert set(found) == {"0", "2"}
    assert found["0"].low == pytest.approx(samples.min().item())
    assert found["0"].high == pytest.approx(samples.max().item())
    assert found["2"].low == pytest.approx(0.0)
    assert found["2"].high == pytest.approx(hidden.max().item())
    assert found["0"].samples == 5


def test_embeddings_have_no_range_and_layers_can_be_chosen(tmp_path: Path) -> None:
    traced = trace_model(*networks.forms())
    data = read_data(
        [traced.example], input_names=traced.input_names, batch_size=2, folder=tmp_path
    )
    assert "emb" not in observe_ranges(traced, data)
    assert set(observe_ranges(traced, data, layers=["free"])) == {"free"}


def test_a_second_run_reads_the_cache_and_returns_the_same(tmp_path: Path) -> None:
    samples = torch.randn(4, 4)
    traced = trace_model(nn.Sequential(nn.Linear(4, 2)), {"input": samples[:2]})
    data, cache = _data(samples, tmp_path / "data"), Cache(folder=tmp_path / "cache")
    events: list[object] = []
    first = observe_ranges(traced, data, cache=cache)
    assert observe_ranges(traced, data, cache=cache, progress=events.append) == first
    assert not events
    wider = observe_ranges(traced, data, cache=cache, method="minmax")
    assert (wider["0"].method, first["0"].method) == ("minmax", "mse")


def test_broken_activations_name_the_layer(tmp_path: Path) -> None:
    samples = torch.full((2, 4), 3e38)
    first = nn.Linear(4, 4)
    with torch.no_grad():
        first.weight.fill_(2.0)
    traced = trace_model(nn.Sequential(first, nn.Linear(4, 2)), {"input": torch.zeros(2, 4)})
    with pytest.raises(MeasurementError, match="Input of layer '1'"):
        observe_ranges(traced, _data(samples, tmp_path))
