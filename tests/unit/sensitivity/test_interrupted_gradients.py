"""A killed gradient pass goes on where it was, and gives the same table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from mpsearch.core.cache import Cache
from mpsearch.core.progress import ProgressEvent
from mpsearch.sensitivity import METRICS, AbstractMetric, HessianTrace, OutputProbe, Work
from mpsearch.sensitivity.gradient_pass import GradientPass
from mpsearch.sensitivity.request import PlacedBatch
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model

BATCHES = 5


def _arguments(folder: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    samples = torch.randn(2 * BATCHES, 6)
    data = read_data(
        [{"input": samples[cut : cut + 2]} for cut in range(0, 2 * BATCHES, 2)],
        input_names=("input",),
        batch_size=2,
        folder=folder / "data",
    )
    return {
        "traced": trace_model(model, {"input": samples[:2]}),
        "task": TASKS["classification"],
        "data": data,
        "formats": ("w4", "w2"),
    }


@pytest.mark.parametrize("kills", [[0], [1, 3], [0, 1, 2, 3, 4]])
def test_each_kill_loses_at_most_one_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, kills: list[int]
) -> None:
    """Killed in the middle of the batches numbered in `kills`, one after another."""
    arguments = _arguments(tmp_path)
    whole = OutputProbe(draws=2).measure(**arguments)
    begun: list[str] = []
    original = GradientPass.measure
    left = list(kills)

    def journalled(
        self: GradientPass, placed: PlacedBatch, wanted: Mapping[int, Any]
    ) -> dict[int, Any]:
        begun.append(placed.key)
        if left and len(set(begun)) == left[0] + 1:
            left.pop(0)
            raise SystemExit
        return original(self, placed, wanted)

    monkeypatch.setattr(GradientPass, "measure", journalled)
    arguments["cache"] = Cache(folder=tmp_path / "cache")
    for _ in kills:
        with pytest.raises(SystemExit):
            OutputProbe(draws=2).measure(**arguments)
    again = OutputProbe(draws=2).measure(**arguments)
    assert len(begun) == BATCHES + len(kills)
    np.testing.assert_array_equal(again.numbers, whole.numbers)
    np.testing.assert_array_equal(again.loss, whole.loss)
    np.testing.assert_array_equal(again.stderr, whole.stderr)


@pytest.mark.parametrize(
    "metric",
    [OutputProbe(draws=1), HessianTrace(draws=2, probes="weights"), METRICS["masked_error"]],
)
def test_progress_ends_with_nothing_left(metric: AbstractMetric, tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    metric.measure(**_arguments(tmp_path), progress=events.append)
    passes = [event for event in events if event.phase == "measure sensitivity"]
    assert (passes[-1].done, passes[-1].seconds_left) == (passes[-1].total, 0)
    assert all(event.seconds_left is not None for event in passes[1:])


def test_work_counts_forward_backward_and_local_products(tmp_path: Path) -> None:
    works: list[Work] = []
    OutputProbe(draws=2).measure(**_arguments(tmp_path), report=works.append)
    (work,) = works
    macs = 6 * 8 + 8 * 4
    # One position per sample: every format has its own product with the change.
    assert work.macs == 2 * BATCHES * macs * (1 + 2 + 2 * 2)
    assert work.measured_pairs == BATCHES * 2 * 2 * 2
