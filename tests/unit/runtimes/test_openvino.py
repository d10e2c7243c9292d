"""What OpenVINO is asked for, what it says it runs, and how its failures are told."""

import sys

import numpy as np
import onnx
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.graph import Layer, Op
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.machine import Processor
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError, MissingPackageError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.runtimes import openvino as module
from mpsearch.runtimes.openvino import OpenVino
from mpsearch.testing.small_onnx import small_layers, small_model

_RUNTIME = OpenVino()


def _flat_linear(*, bias: bool) -> tuple[onnx.ModelProto, ndarray, ndarray]:
    """Return a Gemm on a matrix, as exporters write a Linear on two dimensions."""
    generator = np.random.default_rng(0)
    weight = generator.standard_normal((64, 128)).astype(np.float32)
    inputs = ["x", "w", "b"] if bias else ["x", "w"]
    node = helper.make_node("Gemm", inputs, ["y"], name="gemm", transB=1)
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    graph = helper.make_graph(
        [node],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 128])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 64])],
        initializer=[
            numpy_helper.from_array(weight, "w"),
            *([numpy_helper.from_array(np.ones(64, dtype=np.float32), "b")] if bias else []),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return model, weight, generator.standard_normal((4, 128)).astype(np.float32)


def _perceptron() -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return three small layers in a row, which OpenVINO compiles into one loop at batch 1."""
    names = ("first", "second", "third")
    nodes, constants, tensor = [], [], "x"
    for place, name in enumerate(names):
        weight = np.random.default_rng(place).standard_normal((64, 64), dtype=np.float32) / 8
        constants.append(numpy_helper.from_array(weight, f"w_{name}"))
        node = helper.make_node("Gemm", [tensor, f"w_{name}"], [name], name=name, transB=1)
        node.metadata_props.add(key=LAYER_KEY, value=name)
        nodes += [node, helper.make_node("Relu", [name], [f"bent_{name}"], name=f"bend_{name}")]
        tensor = f"bent_{name}"
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
        [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["rows", 64])],
        initializer=constants,
    )
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10), names


@pytest.mark.parametrize("format_name", ["base", "w8a8", "w8"])
@pytest.mark.parametrize("base", _RUNTIME.bases)
def test_layers_are_told_apart_where_a_loop_would_hide_them(base: str, format_name: str) -> None:
    model, names = _perceptron()
    workload = Workload(name="one", shapes={"x": (1, 64)})
    quantizer = ActivationQuantizer(
        scale=0.03125, zero_point=128, low=-4.0, high=4.0, method="minmax", samples=1
    )
    chosen = base if format_name == "base" else format_name
    plan = Plan(
        assignment=dict.fromkeys(names, chosen),
        base=base,
        quantizers=dict.fromkeys(names, quantizer),
    )
    file = export_plan(model, plan)
    built = _RUNTIME.build(file, settings=_RUNTIME.settings(base), workload=workload, profile=True)
    built.assert_kernels(plan)
    built.run({"x": np.ones((1, 64), dtype=np.float32)})
    assert {layer for node in built.node_times() for layer in node.layers} == set(names)


def test_settings_that_tell_layers_apart_travel_with_the_plan() -> None:
    model, _ = _perceptron()
    settings = _RUNTIME.settings("fp32")
    for rows, changed in ((1, True), (64, False)):
        workload = Workload(name="w", shapes={"x": (rows, 64)})
        found = _RUNTIME.adapted(settings, model=model, threads=1, workload=workload)
        assert (found != settings) is changed
        assert found.get("SNIPPETS_MODE", "") == ("DISABLE" if changed else "")


def test_settings_of_the_user_are_kept() -> None:
    model, names = _perceptron()
    built = _RUNTIME.build(
        model,
        settings=_RUNTIME.settings("fp32") | {"SNIPPETS_MODE": "ENABLE"},
        workload=Workload(name="one", shapes={"x": (1, 64)}),
    )
    with pytest.raises(DeploymentError, match="kernel is none"):
        built.assert_kernels(Plan(assignment=dict.fromkeys(names, "fp32")))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("format_name", ["fp32", "w8a8", "w8", "w4g128"])
def test_a_linear_on_matrices_is_found_in_every_format(format_name: str, *, bias: bool) -> None:
    quantizer = ActivationQuantizer(
        scale=0.03125, zero_point=128, low=-4.0, high=4.0, method="minmax", samples=1
    )
    plan = Plan(assignment={"layer": format_name}, quantizers={"layer": quantizer})
    model, weight, x = _flat_linear(bias=bias)
    built = _RUNTIME.build(export_plan(model, plan), settings=_RUNTIME.settings("fp32"))
    built.assert_kernels(plan)
    expected = x @ weight.T + bias
    error = np.linalg.norm(built.run({"x": x})["y"] - expected) / np.linalg.norm(expected)
    assert error < (0.15 if "4" in format_name else 0.03)


def test_a_layer_that_runs_otherwise_than_planned_is_named() -> None:
    model = small_model()
    planned = model.plan(dict.fromkeys(model.layers, "w8") | {"out": "w8a8"})
    other = model.plan(dict.fromkeys(model.layers, "w8"))
    built = _RUNTIME.build(export_plan(model.onnx(), other), settings=_RUNTIME.settings("fp32"))
    built.assert_kernels(other)
    with pytest.raises(DeploymentError, match=r"'out'.*u8"):
        built.assert_kernels(planned)


def test_a_model_that_does_not_compile_tells_reason_and_settings() -> None:
    model = small_model()
    exported = export_plan(model.onnx(), model.plan(dict.fromkeys(model.layers, "fp32")))
    with pytest.raises(DeploymentError, match="NO_SUCH_SETTING"):
        _RUNTIME.build(exported, settings={"NO_SUCH_SETTING": "1"})
    flat, _, _ = _flat_linear(bias=True)
    wrong = Workload(name="narrow", shapes={"x": (4, 100)})
    with pytest.raises(DeploymentError, match=r"\(4, 100\)"):
        _RUNTIME.build(flat, settings=_RUNTIME.settings("fp32"), workload=wrong)


def test_inputs_stay_alive_while_they_are_bound() -> None:
    model = small_model()
    plan = model.plan(dict.fromkeys(model.layers, "fp32"))
    built = _RUNTIME.build(export_plan(model.onnx(), plan), settings=_RUNTIME.settings("fp32"))
    first = built.run(model.inputs(3, 64))
    for _ in range(20):
        np.full((3, 64), 10**9)  # would overwrite a freed array with rows out of range
        built.infer()
    again = built.run(model.inputs(3, 64))
    np.testing.assert_array_equal(first["y"], again["y"])


def test_whole_numbers_of_32_bits_are_widened() -> None:
    model = small_model()
    plan = model.plan(dict.fromkeys(model.layers, "fp32"))
    built = _RUNTIME.build(export_plan(model.onnx(), plan), settings=_RUNTIME.settings("fp32"))
    inputs = model.inputs()
    narrow = built.run({"ids": inputs["ids"].astype(np.int32)})
    np.testing.assert_array_equal(narrow["y"], built.run(inputs)["y"])


def test_settings_name_the_base() -> None:
    assert _RUNTIME.settings("fp32")["INFERENCE_PRECISION_HINT"] == "f32"
    with pytest.raises(UnsupportedFeatureError, match="fp64"):
        _RUNTIME.settings("fp64")


def test_snippets_are_off_where_they_are_known_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    if "bf16" not in _RUNTIME.bases:
        pytest.skip("this processor has no bf16")
    for flags, off in ((("amx_bf16",), True), (("avx512_bf16",), False)):
        found = Processor(name="p", cores=1, flags=flags)
        monkeypatch.setattr(module, "this_processor", lambda found=found: found)
        assert ("SNIPPETS_MODE" in _RUNTIME.settings("bf16")) is off
        assert "SNIPPETS_MODE" not in _RUNTIME.settings("fp32")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingPackageError, match=r"mpsearch\[search\]"):
        _ = OpenVino().bases


def test_groups_that_do_not_divide_a_weight_have_no_support() -> None:
    layer = Layer(
        name="odd", op=Op.LINEAR, weight_shape=(16, 96), input_shape=(1, 96),
        output_shape=(1, 16), macs=1536, inputs_from="x",
    )  # fmt: skip
    assert _RUNTIME.support(layer, "w4g128", base="fp32") is Support.NONE
    assert _RUNTIME.support(layer, "w8", base="fp32") is Support.NATIVE


@pytest.mark.parametrize("base", _RUNTIME.bases)
def test_weights_of_convolutions_are_stored_and_run_in_the_base(base: str) -> None:
    (conv,) = (layer for layer in small_layers() if layer.op is Op.CONV)
    assert _RUNTIME.support(conv, "w8a8", base=base) is Support.NATIVE
    assert _RUNTIME.support(conv, "w8", base=base) is Support.STORAGE
    assert _RUNTIME.support(conv, "w4", base=base) is Support.STORAGE
    assert _RUNTIME.support(conv, "w4g128", base=base) is Support.NONE  # groups are for matrices


def test_wrong_numbers_have_no_support(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mpsearch.runtimes import one_layer

    monkeypatch.setattr(one_layer, "_LARGEST_ERROR", 1e-9)
    assert _RUNTIME.support(small_layers()[0], "w8", base="fp32") is Support.NONE
    assert "its output is off by" in caplog.text


def test_inputs_and_outputs_keep_their_names_where_a_node_beside_them_is_folded_away() -> None:
    """A product by one: its tensors and the input become one, which then has several names."""
    node, value = helper.make_node, helper.make_tensor_value_info
    ones = numpy_helper.from_array(np.ones(3, dtype=np.float32), "ones")
    graph = helper.make_graph(
        [
            node("Mul", ["time", "ones"], ["a_first"]),
            node("Sin", ["a_first"], ["wave"]),
            node("Add", ["wave", "sample"], ["sum"]),
            node("Identity", ["sum"], ["z_output"]),
        ],
        "folded",
        [value(name, TensorProto.FLOAT, [3]) for name in ("time", "sample")],
        [value("z_output", TensorProto.FLOAT, [3])],
        initializer=[ones],
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    runtime = OpenVino()
    built = runtime.build(file, settings=runtime.settings("fp32"))
    assert set(built.input_names) == {"time", "sample"}
    inputs = {name: np.arange(3, dtype=np.float32) for name in built.input_names}
    found = built.run(inputs)
    np.testing.assert_allclose(found["z_output"], np.sin(inputs["time"]) + inputs["sample"])
