"""Quantisers are shared, placed before their readers, and every layout of a weight is right."""

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpsearch.core.formats import format_named
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import FormatError
from mpsearch.export import export_plan, weight_bytes
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.quant.integer import quantise_weight
from mpsearch.testing.small_onnx import small_model


def _one_node(
    node: onnx.NodeProto, weight: ndarray, *, rank: int, opset: int = 21
) -> onnx.ModelProto:
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * rank)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)],
        initializer=[numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _plan(format_name: str) -> Plan:
    quantizer = ActivationQuantizer(
        scale=0.03125, zero_point=128, low=-4.0, high=4.0, method="minmax", samples=1
    )
    return Plan(assignment={"layer": format_name}, quantizers={"layer": quantizer})


def _run(model: onnx.ModelProto, x: ndarray) -> ndarray:
    outputs = ReferenceEvaluator(model).run(None, {"x": x})
    assert isinstance(outputs, list)
    result = outputs[0]
    assert isinstance(result, ndarray)
    return result


def _numbers(*shape: int) -> ndarray:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("format_name", ["w8", "w4", "w4g128", "w4-mse", "w4g128-mse"])
@pytest.mark.parametrize("layout", ["MatMul", "Gemm", "Gemm transposed"])
def test_every_layout_of_a_linear_weight_is_quantised_per_output(
    layout: str, format_name: str
) -> None:
    weight, x = _numbers(24, 256), _numbers(3, 256)
    operator, _, transposed = layout.partition(" ")
    node = helper.make_node(operator, ["x", "w"], ["y"], name="n")
    if transposed:
        node.attribute.append(helper.make_attribute("transB", 1))
    stored_as = weight if transposed else np.ascontiguousarray(weight.T)
    exported = export_plan(_one_node(node, stored_as, rank=2), _plan(format_name))
    stored = quantise_weight(weight, format_named(format_name).weight).dequantise()
    np.testing.assert_allclose(_run(exported, x), x @ stored.T, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("format_name", ["w8", "w4", "w4-mse"])
@pytest.mark.parametrize("group", [1, 4])
def test_convolutions_are_quantised_per_output_channel(format_name: str, group: int) -> None:
    weight, x = _numbers(8, 4 // group, 3, 3), _numbers(2, 4, 6, 6)
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="n", group=group)
    base = _one_node(node, weight, rank=4)
    exported = export_plan(base, _plan(format_name))
    stored = quantise_weight(weight, format_named(format_name).weight).dequantise()
    plain = _one_node(helper.make_node("Conv", ["x", "w"], ["y"], group=group), stored, rank=4)
    np.testing.assert_allclose(_run(exported, x), _run(plain, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format_name", ["w8", "w4", "w8a8"])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_transposed_convolutions_are_quantised_per_output_channel(
    format_name: str, group: int
) -> None:
    weight, x = _numbers(4, 8 // group, 3, 2), _numbers(2, 4, 6, 6)
    parts = [np.swapaxes(part, 0, 1) for part in np.split(weight, group)]
    number = format_named(format_name)
    stored = [quantise_weight(part, number.weight).dequantise() for part in parts]
    back = np.concatenate([np.swapaxes(part, 0, 1) for part in stored])
    if number.activation is not None:
        x = ((np.rint(x / 0.03125) + 128).clip(0, 255) - 128).astype(np.float32) * 0.03125
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], name="n", group=group, strides=[2, 1])
        for _ in range(2)
    ]
    exported = export_plan(_one_node(nodes[0], weight, rank=4), _plan(format_name))
    plain = _one_node(nodes[1], back.astype(np.float32), rank=4)
    onnx.checker.check_model(exported)
    found, expected = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": x})[0]
        for each in (exported, plain)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    codes = weight.size * number.weight.bits // 8
    extra = 5 if number.activation is not None else 0  # scale and zero point of the input
    assert weight_bytes(exported) == codes + 8 * 4 + extra


def test_older_files_are_brought_to_the_opset_that_has_4_bits() -> None:
    weight, x = _numbers(24, 256), _numbers(3, 256)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="n")
    base = _one_node(node, np.ascontiguousarray(weight.T), rank=2, opset=17)
    exported = export_plan(base, _plan("w4g128"))
    assert exported.opset_import[0].version == 21
    stored = quantise_weight(weight, format_named("w4g128").weight).dequantise()
    np.testing.assert_allclose(_run(exported, x), x @ stored.T, rtol=1e-5, atol=1e-4)


def test_layers_of_one_input_have_a_pair_each_so_that_bytes_add_up() -> None:
    model = small_model()
    floats = dict.fromkeys(model.layers, "w8")
    sizes = [
        weight_bytes(export_plan(model.onnx(), model.plan(floats | dict.fromkeys(names, "w8a8"))))
        for names in ((), ("left",), ("right",), ("left", "right"))
    ]
    neither, left, right, both = sizes
    assert both - neither == (left - neither) + (right - neither)


def test_layers_of_one_input_and_two_quantisers_keep_both() -> None:
    model = small_model()
    plan = model.plan(dict.fromkeys(model.layers, "w8") | {"left": "w8a8", "right": "w8a8"})
    other = ActivationQuantizer(
        scale=0.5, zero_point=3, low=-1.0, high=9.0, method="minmax", samples=1
    )
    exported = export_plan(
        model.onnx(),
        Plan(assignment=plan.assignment, quantizers={**plan.quantizers, "left": other}),
    )
    assert [n.op_type for n in exported.graph.node].count("QuantizeLinear") == 2


def test_sums_stay_in_the_base() -> None:
    model = small_model()
    assignment = dict.fromkeys(model.layers, "w8a8") | {"table": "w8"}
    exported = export_plan(model.onnx(), model.plan(assignment))
    sums = [node for node in exported.graph.node if node.op_type == "Add"]
    assert [list(node.input) for node in sums] == [["l", "bias"], ["lt", "r"]]


def test_rows_of_8_bits_are_gathered_as_codes() -> None:
    model = small_model()
    assignment = dict.fromkeys(model.layers, "fp32") | {"table": "w8"}
    exported = export_plan(model.onnx(), model.plan(assignment))
    gathers = [list(node.input) for node in exported.graph.node if node.op_type == "Gather"]
    assert gathers == [["table.8bit.codes", "ids"], ["table.8bit.scale", "ids"]]


def test_no_float_weight_stays_behind() -> None:
    model = small_model()
    exported = export_plan(model.onnx(), model.plan(dict.fromkeys(model.layers, "w8")))
    wide = {t.name for t in exported.graph.initializer if t.data_type == TensorProto.FLOAT}
    assert wide == {"bias", *(f"{name}.8bit.scale" for name in ("table", "left", "right", "out"))}


@pytest.mark.parametrize("name", ["w4-mse", "w4g128-mse", "w8-mse"])
def test_the_file_holds_the_scales_that_the_simulation_computes_with(name: str) -> None:
    """Bit for bit, from either orientation of the weight."""
    weight = _numbers(24, 256)
    number = format_named(name).weight
    for stored_as, transposed in ((weight, 1), (np.ascontiguousarray(weight.T), 0)):
        node = helper.make_node("Gemm", ["x", "w"], ["y"], name="n", transB=transposed)
        exported = export_plan(_one_node(node, stored_as, rank=2), _plan(name))
        held = {t.name.split(".")[-1]: numpy_helper.to_array(t) for t in exported.graph.initializer}
        simulated = quantise_weight(np.asfortranarray(weight), number)
        scale = simulated.scale if transposed else simulated.scale.T
        codes = simulated.codes if transposed else simulated.codes.T
        np.testing.assert_array_equal(held["scale"], scale)
        np.testing.assert_array_equal(held["codes"].astype(np.int8), codes)


def test_one_weight_in_two_clippings_is_stored_twice() -> None:
    model = small_model()
    floats = dict.fromkeys(model.layers, "fp32")
    names = {"table": "w4", "head": "w4-mse"}
    exported = export_plan(model.onnx(), model.plan(floats | names))
    scales = [t for t in exported.graph.initializer if t.name.endswith(".scale")]
    assert len(scales) == 2
    one, two = map(numpy_helper.to_array, scales)
    assert not np.array_equal(one, two)


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("w8-asymmetric", "a zero point"),
        ("w4t", "one scale for all of it"),
        ("w8a8-token", "8-bit codes of a range"),
        ("w8a16", "8-bit codes of a range"),
        ("a8", "weights of 32 bits"),
        ("w3-mse", "weights of 3 bits"),
    ],
)
def test_what_a_file_cannot_say_is_refused(name: str, fact: str) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="n")
    base = _one_node(node, _numbers(256, 24), rank=2)
    with pytest.raises(FormatError, match=f"{fact}.*Choose"):
        export_plan(base, _plan(name))
