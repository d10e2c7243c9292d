"""Floats of 8 bits in a file: the standard's reference computes what the simulation does."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpsearch.core.graph import Layer, Op
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost.weight_bytes import stored_bytes
from mpsearch.errors import FormatError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.quant.float8 import float8_input_scale, quantise_to_float8, round_to_float8

_RANGE = ActivationQuantizer(
    scale=0.03125, zero_point=77, low=-2.0, high=5.5, method="minmax", samples=1
)
_LAYOUTS = ("MatMul", "Gemm", "Gemm transposed")


def _file(layout: str) -> tuple[onnx.ModelProto, np.ndarray]:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((16, 32)).astype(np.float32)
    operator, _, transposed = layout.partition(" ")
    node = helper.make_node(operator, ["x", "w"], ["y"], name="n")
    if transposed:
        node.attribute.append(helper.make_attribute("transB", 1))
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    held = weight if transposed else np.ascontiguousarray(weight.T)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [value("x", TensorProto.FLOAT, [None, 32])],
        [value("y", TensorProto.FLOAT, [None, 16])],
        initializer=[numpy_helper.from_array(held, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model, weight


def _exported(layout: str) -> tuple[onnx.ModelProto, np.ndarray]:
    model, weight = _file(layout)
    plan = Plan(assignment={"layer": "fp8"}, quantizers={"layer": _RANGE})
    return export_plan(model, plan), weight


@pytest.mark.parametrize("layout", _LAYOUTS)
def test_the_file_computes_what_the_format_says(layout: str) -> None:
    model, weight = _exported(layout)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(1).standard_normal((5, 32)).astype(np.float32) * 6
    (found,) = ReferenceEvaluator(model).run(None, {"x": x})
    scale = np.float32(float8_input_scale(_RANGE))
    inputs = round_to_float8(x / scale) * scale
    expected = inputs @ quantise_to_float8(weight).dequantise().T
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-5, atol=1e-4)


def test_a_byte_per_weight_one_scale_and_the_numbers_of_the_input_are_stored() -> None:
    model, weight = _exported("MatMul")
    layer = Layer(
        name="layer", op=Op.LINEAR, weight_shape=(16, 32), input_shape=(1, 32),
        output_shape=(1, 16), macs=512, inputs_from="x",
    )  # fmt: skip
    assert stored_bytes(layer, "fp8") == weight.size + 4
    assert weight_bytes(model) == weight.size + 4 + 4 + 1
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    assert kinds == {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT}


def test_only_linear_layers_take_it() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="n")
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "one",
        [value("x", TensorProto.FLOAT, [1, 16, 8, 8])],
        [value("y", TensorProto.FLOAT, [1, 16, 8, 8])],
        initializer=[numpy_helper.from_array(np.ones((16, 16, 1, 1), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    plan = Plan(assignment={"layer": "fp8"}, quantizers={"layer": _RANGE})
    with pytest.raises(FormatError, match="linear layer"):
        export_plan(model, plan)
