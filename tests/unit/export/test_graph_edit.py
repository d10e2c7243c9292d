"""Finding layers in a graph, and removing what nothing needs."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpsearch.errors import ModelError
from mpsearch.export.graph_edit import (
    LAYER_KEY,
    constant_layers,
    fused_names,
    layer_nodes,
    remove_unused_,
)
from mpsearch.testing.small_onnx import small_model


def test_layers_come_with_their_initialisers() -> None:
    found = {each.layer: each for each in layer_nodes(small_model().onnx())}
    assert list(found) == ["table", "left", "right", "out", "head"]
    assert found["head"].initializer == found["table"].initializer == "table"
    assert [each.layer for each in found.values() if each.transposed] == ["head"]
    assert (found["table"].weight_slot, found["left"].weight_slot) == (0, 1)


def test_the_key_is_the_one_that_tracing_writes() -> None:
    base_onnx = pytest.importorskip("mpsearch.tracing.base_onnx")
    assert base_onnx.LAYER_KEY == LAYER_KEY


def test_a_graph_without_marks_is_refused() -> None:
    model = small_model().onnx()
    for node in model.graph.node:
        del node.metadata_props[:]
    with pytest.raises(ModelError, match=r"None of the 9 nodes"):
        layer_nodes(model)


def test_a_computed_weight_is_refused() -> None:
    model = small_model().onnx()
    model.graph.node[1].input[1] = "rows"
    with pytest.raises(ModelError, match="computed in the graph"):
        layer_nodes(model)


def test_a_mark_on_another_operator_is_refused() -> None:
    model = small_model().onnx()
    model.graph.node[3].metadata_props.add(key=LAYER_KEY, value="bent")
    with pytest.raises(ModelError, match="'Tanh'"):
        layer_nodes(model)


def test_a_bias_lends_its_name_to_the_layer() -> None:
    names = fused_names(small_model().onnx())
    assert names["left"] == ("n_left", "l", "n_bias", "lb")
    # This sum is of two layers, so it says nothing about either.
    assert names["right"] == ("n_right", "r")


def test_layers_that_follow_from_shapes_alone_are_constant() -> None:
    model = small_model().onnx()
    assert constant_layers(model) == ()
    # Positions 0 ... length - 1 instead of the ids themselves.
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(value), name)
            for name, value in (("zero", 0), ("one", 1), ("place", 1))
        ]
    )
    made = [
        helper.make_node("Shape", ["ids"], ["shape"]),
        helper.make_node("Gather", ["shape", "place"], ["length"]),
        helper.make_node("Range", ["zero", "length", "one"], ["positions"]),
    ]
    model.graph.node[0].input[1] = "positions"
    nodes = [*made, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    assert constant_layers(model) == ("table", "left", "right", "out", "head")


def test_what_no_output_needs_is_removed_and_subgraphs_are_read() -> None:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["kept"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, [1])],
    )
    graph = helper.make_graph(
        [
            helper.make_node("If", ["flag"], ["out"], then_branch=branch, else_branch=branch),
            helper.make_node("Neg", ["lost"], ["nowhere"]),
        ],
        "graph",
        [helper.make_tensor_value_info("flag", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])],
        initializer=[
            numpy_helper.from_array(np.ones(1, dtype=np.float32), name) for name in ("kept", "lost")
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    remove_unused_(model)
    assert [node.op_type for node in model.graph.node] == ["If"]
    assert [tensor.name for tensor in model.graph.initializer] == ["kept"]
    onnx.checker.check_model(model)
