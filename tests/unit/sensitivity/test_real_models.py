"""Every metric scores real trained models of every task that the whole path knows."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest
from torch import Tensor

from benchmarks.zoo.case import ZooCase
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.place import is_present
from benchmarks.zoo.resnet import cifar_resnet
from benchmarks.zoo.stories import stories
from mpsearch.errors import DataError
from mpsearch.execution import run
from mpsearch.sensitivity import METRICS
from mpsearch.tasks import TASKS, Dataset, read_data
from mpsearch.tracing import LoadedModel, TracedModel, trace_model

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not is_present(), reason="the zoo does not lie beside the project"),
]
_SAMPLES = 4
_TOKENS = 24
_FORMATS = ("w8", "w4", "w2")
_CASES = ("cifar10_resnet20", "minilm_l6_v2", "stories260k")


@cache
def _case(name: str) -> ZooCase:
    if name == "minilm_l6_v2":
        return minilm(Path(mkdtemp()))
    return stories() if name == "stories260k" else cifar_resnet(name)


@cache
def _ready(name: str) -> tuple[TracedModel, Dataset]:
    case = _case(name)
    first = {key: value[:_SAMPLES] for key, value in case.parts(0).calibration[0].items()}
    if "image" not in first:
        first = {key: value[:, :_TOKENS] for key, value in first.items()}
    return _traced(case, first), _data(first)


def _traced(case: ZooCase, batch: Mapping[str, Tensor]) -> TracedModel:
    if isinstance(case.model, LoadedModel):
        return trace_model(case.model.module, case.model.example, root=case.model.root)
    inputs = {key: value for key, value in batch.items() if key in {"image", "input_ids"}}
    return trace_model(case.model, inputs)


def _data(batch: Mapping[str, Tensor]) -> Dataset:
    names = [key for key in batch if not key.startswith("label")]
    return read_data([dict(batch)], input_names=names, batch_size=_SAMPLES, folder=Path(mkdtemp()))


def _labelled(case: ZooCase, traced: TracedModel, data: Dataset) -> Dataset:
    """Return the data with targets: a loss of embeddings is their distance from given ones."""
    (batch,) = data
    targets = TASKS[case.task].outputs(run(traced, batch), batch)
    return _data({**batch, "labels": targets})


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", _CASES)
def test_a_metric_scores_a_real_model(name: str, metric: str) -> None:
    case, (traced, data) = _case(name), _ready(name)
    if (name, metric) == ("minilm_l6_v2", "loss_change"):
        with pytest.raises(DataError, match=r"needs labels.*Add them"):
            METRICS[metric].measure(traced, task=TASKS[case.task], data=data, formats=_FORMATS)
        data = _labelled(case, traced, data)
    layers = [layer for layer in traced.graph.names if layer not in case.fixed]
    chosen = (layers[1], layers[-1])
    table = METRICS[metric].measure(
        traced,
        task=TASKS[case.task],
        data=data,
        formats=_FORMATS,
        offered={layer: _FORMATS if layer in chosen else () for layer in traced.graph.names},
    )
    rows = [table.layers.index(layer) for layer in chosen]
    assert np.isfinite(table.loss[rows]).all()
    assert np.isfinite(table.loss).sum() == len(chosen) * len(_FORMATS)
    total = table.loss[rows].sum(axis=0)
    # A labelled loss may fall; distances from full precision do not.
    if metric != "loss_change":
        assert (table.loss[rows] >= 0).all()
        assert total[0] < total[1] < total[2]
