"""Live bytes equal what one counts by hand."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.cost.activation_memory import peak_activation_bytes
from mpsearch.errors import MeasurementError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.testing.small_onnx import WIDTH, small_model

_FLOAT = 4


def _model(nodes: list[onnx.NodeProto], *, outputs: tuple[str, ...]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    dynamic: list[str | int | None] = ["rows", 8]
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, dynamic)],
        [value(name, TensorProto.FLOAT, None) for name in outputs],
        initializer=[numpy_helper.from_array(np.ones((8, 32), dtype=np.float32), "wide")],
    )
    opsets = [helper.make_opsetid("", 21)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def _peak(nodes: list[onnx.NodeProto], *, outputs: tuple[str, ...] = ("y",), rows: int = 5) -> int:
    workload = Workload(name="w", shapes={"x": (rows, 8)})
    return peak_activation_bytes(_model(nodes, outputs=outputs), workload)


def _softmaxes(*pairs: str) -> list[onnx.NodeProto]:
    """Return nodes that can neither be fused nor work in place."""
    return [helper.make_node("Softmax", [pair[0]], [pair[1]]) for pair in pairs]


def test_a_chain_holds_two_neighbours_at_once() -> None:
    nodes = _softmaxes("xa", "ab", "by")
    assert _peak(nodes) == 2 * 5 * 8 * _FLOAT
    assert _peak(nodes, rows=50) == 10 * _peak(nodes)


def test_what_is_read_later_stays() -> None:
    nodes = _softmaxes("xa", "ab", "bc")
    nodes.append(helper.make_node("Concat", ["c", "x"], ["y"], axis=1))
    # The input and the last result, and what holds both once more.
    assert _peak(nodes) == (2 + 2) * 5 * 8 * _FLOAT


def test_an_output_of_the_model_stays_to_the_end() -> None:
    assert _peak(_softmaxes("xa", "ab", "by"), outputs=("a", "y")) == 3 * 5 * 8 * _FLOAT


def test_a_sum_takes_the_place_of_an_input_that_ends() -> None:
    nodes = [*_softmaxes("xa", "xb"), helper.make_node("Add", ["a", "b"], ["y"])]
    # The input and both results: the sum needs no place of its own.
    assert _peak(nodes) == 3 * 5 * 8 * _FLOAT
    # An input that is read later keeps its place, and so does one of another size.
    later = [*nodes[:-1], helper.make_node("Add", ["a", "b"], ["c"])]
    later.append(helper.make_node("Concat", ["a", "b", "c"], ["y"], axis=1))
    assert _peak(later) == (3 + 3) * 5 * 8 * _FLOAT
    small = [
        helper.make_node("ReduceMax", ["x"], ["a"], keepdims=0),
        helper.make_node("Add", ["a", "x"], ["y"]),
    ]
    assert _peak(small) == (5 * 8 + 1) * _FLOAT


def test_what_bends_alone_is_fused_into_what_makes_it() -> None:
    bent = [
        helper.make_node("MatMul", ["x", "wide"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
    ]
    bent.append(helper.make_node("ReduceMax", ["b"], ["y"], keepdims=1))
    assert _peak(bent) == (8 + 32) * 5 * _FLOAT
    # A second reader wants the result as it was.
    read = [*bent[:2], helper.make_node("Sub", ["a", "b"], ["y"])]
    assert _peak(read) == (32 + 32) * 5 * _FLOAT


def test_plain_numbers_take_half_under_bf16() -> None:
    model = _model(_softmaxes("xa", "ab", "by"), outputs=("y",))
    workload = Workload(name="w", shapes={"x": (5, 8)})
    full = peak_activation_bytes(model, workload)
    assert 2 * peak_activation_bytes(model, workload, base="bf16") == full


def test_the_widest_moment_counts() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "wide"], ["a"]),  # 8 to 32 columns
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMax", ["b"], ["y"], keepdims=1),
    ]
    assert _peak(nodes) == (8 + 32) * 5 * _FLOAT


def test_a_view_takes_no_bytes_and_keeps_what_it_looks_at() -> None:
    nodes = [
        helper.make_node("Softmax", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["b"]),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("Concat", ["c", "b"], ["y"], axis=1),
    ]
    assert _peak(nodes) == (2 + 2) * 5 * 8 * _FLOAT


@pytest.mark.parametrize(("name", "width"), [("fp32", 4), ("w8a8", 1)])
def test_a_layer_of_quantised_inputs_holds_a_byte_for_each(name: str, width: int) -> None:
    node = helper.make_node("MatMul", ["x", "wide"], ["y"], name="layer")
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    quantizer = small_model().plan({}).quantizers["out"]
    plan = Plan(assignment={"layer": name}, quantizers={"layer": quantizer})
    base = onnx.shape_inference.infer_shapes(_model([node], outputs=("y",)))
    found = peak_activation_bytes(export_plan(base, plan), Workload(name="w", shapes={"x": (5, 8)}))
    assert found == 5 * (8 * width + 32 * _FLOAT)


def test_a_model_with_computed_shapes_is_followed() -> None:
    model, tokens = small_model(), 2 * 5
    found = peak_activation_bytes(model.onnx(), Workload(name="w", shapes={"ids": (2, 5)}))
    # Both branches and their sum are the widest moment.
    assert found == 3 * tokens * WIDTH * _FLOAT


def test_a_shape_that_depends_on_numbers_is_told() -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["places"])]
    nodes.append(helper.make_node("Cast", ["places"], ["y"], to=TensorProto.FLOAT))
    with pytest.raises(MeasurementError, match="places"):
        _peak(nodes)
