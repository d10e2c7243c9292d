"""What ONNX Runtime is asked for, what it says it runs, and how its failures are told."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.graph import Layer, Op
from mpsearch.core.hardware import Support, Workload
from mpsearch.core.machine import Processor
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError, MissingPackageError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.runtimes import onnxruntime as module
from mpsearch.runtimes.onnxruntime import OnnxRuntime
from mpsearch.testing.small_onnx import small_layers, small_model

_RUNTIME = OnnxRuntime()
_MODEL = small_model()
_MIXED = {"table": "w4", "left": "w8a8", "right": "w4g128", "out": "w8", "head": "w8a8"}


def test_each_layer_runs_the_operator_of_its_format() -> None:
    plan = _MODEL.plan(_MIXED)
    built = _RUNTIME.build(export_plan(_MODEL.onnx(), plan), settings=_RUNTIME.settings("fp32"))
    found = {name: (k.type, k.precision, k.weight) for name, k in built.kernels().items()}
    assert found == {
        "table": ("GatherBlockQuantized", "i4", "i4"),
        "left": ("MatMulIntegerToFloat", "u8", "i8"),
        "right": ("MatMulNBits", "i4", "i4"),
        "out": ("MatMulNBits", "i8", "i8"),
        "head": ("MatMulIntegerToFloat", "u8", "i8"),
    }


def test_a_plan_that_runs_wider_than_asked_is_told() -> None:
    plain = _MODEL.plan(dict.fromkeys(_MODEL.layers, "fp32"))
    built = _RUNTIME.build(export_plan(_MODEL.onnx(), plain), settings={})
    with pytest.raises(DeploymentError, match="'left' is planned as 'w8a8'"):
        built.assert_kernels(_MODEL.plan(dict.fromkeys(_MODEL.layers, "fp32") | {"left": "w8a8"}))


def test_weights_alone_of_a_convolution_have_no_kernel() -> None:
    conv = next(layer for layer in small_layers() if layer.op is Op.CONV)
    assert _RUNTIME.support(conv, "w8a8", base="fp32") is Support.NATIVE
    for name in ("w8", "w4"):
        assert _RUNTIME.support(conv, name, base="fp32") is not Support.NATIVE
    assert _RUNTIME.support(conv, "w4g128", base="fp32") is Support.NONE


def test_groups_that_do_not_divide_the_weight_are_not_supported() -> None:
    layer = Layer(
        name="odd", op=Op.LINEAR, weight_shape=(16, 100), input_shape=(1, 4, 100),
        output_shape=(1, 4, 16), macs=6400, inputs_from="x",
    )  # fmt: skip
    assert _RUNTIME.support(layer, "w4g128", base="fp32") is Support.NONE
    assert _RUNTIME.support(layer, "w4", base="fp32") is Support.NATIVE


def test_there_is_no_base_but_fp32() -> None:
    with pytest.raises(UnsupportedFeatureError, match="no base 'bf16'"):
        _RUNTIME.settings("bf16")


def test_products_are_made_exact_where_the_processor_would_saturate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for flags, expected in ((("avx2",), "1"), (("avx2", "avx512_vnni"), None)):
        found = Processor(name="any", cores=1, flags=flags)
        monkeypatch.setattr(module, "this_processor", lambda found=found: found)
        assert _RUNTIME.settings("fp32").get("session.x64quantprecision") == expected


def test_the_setting_for_exact_products_changes_no_kernel() -> None:
    plan = _MODEL.plan(_MIXED)
    settings = _RUNTIME.settings("fp32") | {"session.x64quantprecision": "1"}
    built = _RUNTIME.build(export_plan(_MODEL.onnx(), plan), settings=settings)
    built.assert_kernels(plan)


def test_a_model_that_it_does_not_open_is_told_with_the_reason() -> None:
    model = _MODEL.onnx()
    model.graph.node[3].op_type = "NoSuchOperator"
    with pytest.raises(DeploymentError, match="NoSuchOperator"):
        _RUNTIME.build(model, settings=_RUNTIME.settings("fp32"))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackageError, match=r"mpsearch\[onnxruntime\]"):
        OnnxRuntime().build(_MODEL.onnx(), settings={})


def _residual_block() -> onnx.ModelProto:
    """Return convolutions with and without a bend, one of them before an addition."""
    constants: list[TensorProto] = []
    nodes: list[onnx.NodeProto] = []

    def convolve(given: str, made: str) -> None:
        weight = np.random.default_rng(len(nodes)).standard_normal((16, 16, 3, 3)) / 12
        constants.append(numpy_helper.from_array(weight.astype(np.float32), f"w_{made}"))
        bias = np.ones(16, dtype=np.float32)
        constants.append(numpy_helper.from_array(bias, f"b_{made}"))
        node = helper.make_node(
            "Conv", [given, f"w_{made}", f"b_{made}"], [made], name=f"n_{made}",
            kernel_shape=[3, 3], pads=[1, 1, 1, 1],
        )  # fmt: skip
        node.metadata_props.add(key=LAYER_KEY, value=made)
        nodes.append(node)

    convolve("x", "first")
    nodes.append(helper.make_node("Relu", ["first"], ["bent"], name="bend"))
    convolve("bent", "second")
    nodes.append(helper.make_node("Add", ["second", "bent"], ["sum"], name="add"))
    nodes.append(helper.make_node("Relu", ["sum"], ["out"], name="last_bend"))
    convolve("out", "third")
    nodes.append(helper.make_node("Relu", ["third"], ["bent_again"], name="bend_again"))
    convolve("bent_again", "fourth")
    info = helper.make_tensor_value_info
    shape: list[str | int | None] = ["batch", 16, 8, 8]
    graph = helper.make_graph(
        nodes,
        "block",
        [info("x", TensorProto.FLOAT, shape)],
        [info("fourth", TensorProto.FLOAT, shape)],
        initializer=constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("shape", [None, (2, 16, 8, 8)])
@pytest.mark.parametrize(
    "formats",
    [
        ("fp32", "fp32", "fp32", "fp32"),
        ("w8a8", "w8a8", "w8a8", "w8a8"),
        ("fp32", "w8a8", "fp32", "w8a8"),
        ("w8a8", "fp32", "w8a8", "fp32"),
    ],
)
def test_convolutions_are_found_whatever_they_are_turned_into(
    formats: tuple[str, ...], shape: tuple[int, ...] | None
) -> None:
    model, names = _residual_block(), ("first", "second", "third", "fourth")
    quantizer = ActivationQuantizer(
        scale=8 / 255, zero_point=0, low=0.0, high=8.0, method="minmax", samples=1
    )
    plan = Plan(
        assignment=dict(zip(names, formats, strict=True)),
        quantizers=dict.fromkeys(names, quantizer),
    )
    workload = None if shape is None else Workload(name="w", shapes={"x": shape})
    built = _RUNTIME.build(export_plan(model, plan), settings={}, workload=workload, profile=True)
    built.assert_kernels(plan)
    built.run({"x": np.ones((2, 16, 8, 8), dtype=np.float32)})
    assert {layer for node in built.node_times() for layer in node.layers} == set(names)


def test_counted_times_are_about_those_of_whole_runs() -> None:
    model = _wide_product()
    built = _RUNTIME.build(
        model, settings={}, workload=Workload(name="w", shapes={"x": (512, 512)}), profile=True
    )
    built.run({"x": np.ones((512, 512), dtype=np.float32)})
    (product,) = [node for node in built.node_times() if node.type in ("Gemm", "MatMul")]
    # 2 x 512^3 operations take between 0.3 ms and 0.3 s on anything from 1 to 1000 GFLOP/s.
    assert 1e-4 < product.seconds < 1


def _wide_product() -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "wide",
        [info("x", TensorProto.FLOAT, ["rows", 512])],
        [info("y", TensorProto.FLOAT, ["rows", 512])],
        initializer=[numpy_helper.from_array(np.eye(512, dtype=np.float32), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
