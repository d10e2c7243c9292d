"""Models that take a dict, and exported programs, are searched as other models are."""

from pathlib import Path

import pytest
import torch
from torch import nn

import mpsearch
from mpsearch.errors import DataError
from mpsearch.testing.networks import wrapped


def _data() -> list[dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    return [{"left": torch.randn(8, 4), "right": torch.randn(8, 4)} for _ in range(2)]


def test_a_model_of_a_dict_is_measured_on_dicts(tmp_path: Path) -> None:
    found = mpsearch.measure(
        wrapped()[0], _data(), task="embedding", runtime="simulation", cache=tmp_path
    )
    assert found.graph.names == ("model.0", "model.2")


def test_data_without_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="takes a dict"):
        mpsearch.measure(
            wrapped()[0], torch.randn(8, 4), task="embedding", runtime="simulation", cache=tmp_path
        )


def test_an_exported_program_is_searched_as_its_module(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).eval()
    data = [torch.randn(8, 4) for _ in range(2)]
    batch = {0: torch.export.Dim.AUTO}
    program = torch.export.export(model, (data[0],), dynamic_shapes=(batch,))
    tables = [
        mpsearch.measure(each, data, task="embedding", runtime="simulation", cache=tmp_path / name)
        for name, each in (("module", model), ("program", program))
    ]
    assert tables[0].graph.layers == tables[1].graph.layers
    assert (tables[0].sensitivity.loss == tables[1].sensitivity.loss).all()
