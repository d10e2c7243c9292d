"""Bytes of a file, against the file itself and closed forms."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpsearch.export import export_plan, weight_bytes
from mpsearch.export.weight_bytes import tensor_bytes
from mpsearch.testing.exporter_laws import mixed_assignments
from mpsearch.testing.small_onnx import OUTPUTS, ROWS, WIDTH, small_model


@pytest.mark.parametrize("assignment", mixed_assignments())
def test_bytes_are_those_that_lie_in_the_file(assignment: dict[str, str]) -> None:
    model = small_model()
    exported = export_plan(model.onnx(), model.plan(assignment))
    assert all(tensor.HasField("raw_data") for tensor in exported.graph.initializer)
    lying = sum(len(tensor.raw_data) for tensor in exported.graph.initializer)
    assert weight_bytes(exported) == lying


@pytest.mark.parametrize(
    ("kind", "count", "expected"),
    [
        (TensorProto.INT4, 5, 3),
        (TensorProto.UINT4, 4, 2),
        (TensorProto.INT8, 5, 5),
        (TensorProto.BFLOAT16, 5, 10),
        (TensorProto.FLOAT, 5, 20),
        (TensorProto.INT64, 0, 0),
    ],
)
def test_bytes_of_one_tensor(kind: int, count: int, expected: int) -> None:
    assert tensor_bytes(helper.make_tensor("t", kind, [count], [1] * count)) == expected


def test_a_scalar_counts_once() -> None:
    assert tensor_bytes(numpy_helper.from_array(np.array(1.5, dtype=np.float32))) == 4


def test_shared_weights_count_once() -> None:
    model = small_model()
    base = model.onnx()
    plain = 4 * (2 * WIDTH * WIDTH + OUTPUTS * WIDTH + ROWS * WIDTH + WIDTH)
    assert weight_bytes(base) == plain
    assignment = dict.fromkeys(model.layers, "fp32") | {"table": "w8", "head": "w8"}
    exported = export_plan(base, model.plan(assignment))
    axis_of_scales = 8  # one whole number of 64 bits that says where scales stretch
    saved = 4 * ROWS * WIDTH - (ROWS * WIDTH + 4 * ROWS + axis_of_scales)
    assert weight_bytes(exported) == plain - saved


def test_unequal_formats_of_a_shared_weight_are_both_stored() -> None:
    model = small_model()
    assignment = dict.fromkeys(model.layers, "fp32") | {"table": "w4", "head": "w8a8"}
    names = {t.name for t in export_plan(model.onnx(), model.plan(assignment)).graph.initializer}
    assert {"table.4bit.codes", "table.8bit.codes"} <= names
    assert "table" not in names


def test_the_example_of_an_empty_file() -> None:
    graph = helper.make_graph([], "empty", [], [])
    assert weight_bytes(onnx.helper.make_model(graph)) == 0
