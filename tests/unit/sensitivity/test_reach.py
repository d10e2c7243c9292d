"""A layer that cannot change the output is named and has no score."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.errors import DataError, MeasurementError
from mpsearch.sensitivity import METRICS, HessianTrace, OutputProbe
from mpsearch.sensitivity.hessian_trace import Probes
from mpsearch.tasks import TASKS, Batch, CallableTask, Dataset, read_data
from mpsearch.tracing import TracedModel, trace_model


class TwoHeads(nn.Module):
    """The task sees the first head only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Run the network."""
        hidden = torch.tanh(self.body(x))
        return {"logits": self.first(hidden), "other": self.second(hidden)}


def _case(folder: Path) -> tuple[TracedModel, Dataset]:
    torch.manual_seed(0)
    samples = torch.randn(6, 4)
    data = read_data(
        [{"x": rows, "label": torch.tensor([0, 1, 2])} for rows in (samples[:3], samples[3:])],
        input_names=("x",),
        batch_size=3,
        folder=folder,
    )
    return trace_model(TwoHeads(), {"x": samples[:2]}), data


@pytest.mark.parametrize("name", sorted(set(METRICS) - {"weight_error", "hessian_trace"}))
def test_a_layer_that_the_output_never_sees_is_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traced, data = _case(tmp_path)
    table = METRICS[name].measure(
        traced, task=TASKS["classification"], data=data, formats=["fp32", "w4"]
    )
    assert "does not depend on 'second'" in caplog.text
    row = table.layers.index("second")
    assert np.isnan(table.loss[row, 1])
    assert table.loss[row, 0] == 0
    assert np.isfinite(np.delete(table.loss, row, axis=0)).all()
    if table.numbers is not None:
        assert np.isnan(table.numbers[:, row, 1]).all()


@pytest.mark.parametrize("probes", ["outputs", "weights"])
def test_curvature_knows_it_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, *, probes: Probes
) -> None:
    traced, data = _case(tmp_path)
    table = HessianTrace(draws=2, probes=probes).measure(
        traced, task=TASKS["classification"], data=data, formats=["w4"]
    )
    assert "does not depend on 'second'" in caplog.text
    assert np.isnan(table.loss[table.layers.index("second"), 0])


@pytest.mark.parametrize("name", ["output_error", "masked_error"])
def test_an_output_that_no_layer_changes_is_refused(name: str, tmp_path: Path) -> None:
    traced, data = _case(tmp_path)
    with pytest.raises(MeasurementError, match="stays the same whatever the 3 layers give"):
        METRICS[name].measure(
            traced, task=CallableTask(function=_constant), data=data, formats=["w4"]
        )


def _constant(raw: Any, batch: Batch) -> Tensor:  # noqa: ANN401, ARG001 - a task's callable
    return torch.ones_like(raw["logits"])


def test_exact_weights_cost_nothing_and_stay_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Zero everywhere may be the truth: all weights are codes of the format."""
    layer = nn.Linear(4, 3)
    nn.init.ones_(layer.weight)
    samples = torch.randn(4, 4)
    data = read_data([{"input": samples}], input_names=("input",), batch_size=4, folder=tmp_path)
    traced = trace_model(nn.Sequential(layer), {"input": samples})
    table = OutputProbe(draws=1).measure(
        traced, task=TASKS["classification"], data=data, formats=["w4"]
    )
    assert table.loss[0, 0] == pytest.approx(0.0, abs=1e-12)
    assert caplog.text.count("does not depend") == 0


def test_data_that_changes_between_passes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced, data = _case(tmp_path)
    load, passes = Dataset._load, []

    def changing(self: Dataset, file: str) -> dict[str, Tensor]:
        passes.append(file)
        return {
            name: value + (len(passes) > 2) if name == "x" else value
            for name, value in load(self, file).items()
        }

    monkeypatch.setattr(Dataset, "_load", changing)
    # The search for layers that are not reached is a second pass.
    with pytest.raises(DataError, match="other numbers than in the pass before"):
        METRICS["output_error"].measure(
            traced, task=TASKS["classification"], data=data, formats=["w4"]
        )
