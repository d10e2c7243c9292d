"""What torch computes is what the standard says of the file, with the kernels of the plan."""

import sys
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import onnx
import pytest
import torch
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from mpsearch.core.hardware import Support, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import DeploymentError, MissingPackageError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.export.graph_edit import LAYER_KEY
from mpsearch.runtimes import AbstractExecutable
from mpsearch.runtimes.torch_cpu import TorchCpu
from mpsearch.runtimes.torch_executable import TorchExecutable
from mpsearch.testing.small_onnx import small_layers, small_model

_RUNTIME: Final = TorchCpu()
# An odd zero point, so that padding with the wrong code shows.
_RANGE: Final = ActivationQuantizer(
    scale=0.03125, zero_point=77, low=-2.40625, high=5.5625, method="minmax", samples=1
)
_EXACT: Final = 1e-5  # sums of the same numbers in another order


def _random(*shape: int, seed: int = 0) -> ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _layer(
    kind: str,
    constants: Mapping[str, ndarray],
    *,
    shape: tuple[int, ...],
    **attributes: Any,  # noqa: ANN401 - attributes of ONNX
) -> onnx.ModelProto:
    node = helper.make_node(kind, ["x", *constants], ["y"], name="node", **attributes)
    node.metadata_props.add(key=LAYER_KEY, value="layer")
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * len(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def _built(
    model: onnx.ModelProto, name: str, *, shape: tuple[int, ...], base: str = "fp32"
) -> tuple[AbstractExecutable, onnx.ModelProto]:
    plan = Plan(assignment={"layer": name}, base=base, quantizers={"layer": _RANGE})
    file = export_plan(model, plan)
    built = _RUNTIME.build(
        file, settings=_RUNTIME.settings(base), workload=Workload(name="w", shapes={"x": shape})
    )
    built.assert_kernels(plan)
    return built, file


def _assert_as_the_standard(model: onnx.ModelProto, name: str, *, shape: tuple[int, ...]) -> None:
    built, file = _built(model, name, shape=shape)
    inputs = {"x": _random(*shape, seed=3)}
    (expected,) = ReferenceEvaluator(file).run(None, inputs)
    error = np.abs(built.run(inputs)["y"] - expected).max() / np.abs(expected).max()
    assert error < _EXACT


_CONVOLUTIONS: Final[tuple[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]], ...]] = (
    ((8, 4, 3, 3), (2, 4, 9, 9), {"pads": [1, 1, 1, 1]}),
    ((8, 4, 3, 3), (1, 4, 9, 8), {"pads": [0, 1, 2, 0], "strides": [2, 1]}),
    ((8, 4, 3, 3), (1, 4, 9, 8), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ((8, 1, 3, 3), (1, 8, 7, 7), {"group": 8, "dilations": [2, 2]}),
    ((8, 4, 1, 1), (1, 4, 5, 5), {}),
    ((6, 4, 3), (2, 4, 11), {"pads": [1, 1], "strides": [2]}),
)


@pytest.mark.parametrize("name", ["fp32", "w8a8", "w8", "w4"])
@pytest.mark.parametrize(("weight", "shape", "attributes"), _CONVOLUTIONS)
def test_convolutions_are_as_the_standard_says(
    weight: tuple[int, ...], shape: tuple[int, ...], attributes: dict[str, Any], name: str
) -> None:
    constants = {"w": _random(*weight), "b": _random(weight[0], seed=1)}
    _assert_as_the_standard(_layer("Conv", constants, shape=shape, **attributes), name, shape=shape)


@pytest.mark.parametrize("name", ["fp32", "w8a8"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("turned", [True, False])
def test_products_of_matrices_are_as_the_standard_says(
    name: str, *, bias: bool, turned: bool
) -> None:
    weight = _random(16, 24)
    constants = {"w": weight if turned else np.ascontiguousarray(weight.T)}
    constants |= {"b": _random(16, seed=1)} if bias else {}
    model = _layer("Gemm", constants, shape=(5, 24), transB=int(turned))
    _assert_as_the_standard(model, name, shape=(5, 24))


def test_a_product_that_scales_is_not_claimed_to_be_planned() -> None:
    model = _layer("Gemm", {"w": _random(24, 16)}, shape=(5, 24), alpha=0.5)
    _assert_as_the_standard(model, "fp32", shape=(5, 24))
    with pytest.raises(DeploymentError, match="u8 inputs"):
        _built(model, "w8a8", shape=(5, 24))


def test_kernels_are_those_that_onednn_reports() -> None:
    model = _layer("Gemm", {"w": _random(24, 16)}, shape=(5, 24))
    for name, words in (("fp32", ("f32", "f32")), ("w8a8", ("u8", "i8"))):
        built, _ = _built(model, name, shape=(5, 24))
        kernel = built.kernels()["layer"]
        assert (kernel.precision, kernel.weight) == words
        assert "brg" in kernel.name or "jit" in kernel.name or "gemm" in kernel.name


def test_a_layer_that_runs_otherwise_than_planned_is_named() -> None:
    model = small_model()
    planned = model.plan(dict.fromkeys(model.layers, "fp32") | {"out": "w8a8"})
    other = model.plan(dict.fromkeys(model.layers, "fp32"))
    built = _RUNTIME.build(export_plan(model.onnx(), other), settings=_RUNTIME.settings("fp32"))
    built.assert_kernels(other)
    with pytest.raises(DeploymentError, match=r"'out'.*u8"):
        built.assert_kernels(planned)


def test_weights_alone_of_a_product_have_no_kernel() -> None:
    (linear,) = (layer for layer in small_layers() if layer.name == "linear")
    assert _RUNTIME.support(linear, "w8a8", base="fp32") is Support.NATIVE
    assert _RUNTIME.support(linear, "w8", base="fp32") is Support.NONE


def _masked() -> onnx.ModelProto:
    """Return attention over masked positions, a mask being the most negative float32."""
    nodes = [
        helper.make_node("Cast", ["open"], ["share"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "share"], ["shut"]),
        helper.make_node("Mul", ["shut", "closed"], ["mask"]),
        helper.make_node("Add", ["x", "mask"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("Gemm", ["shares", "w"], ["y"], name="layer"),
    ]
    nodes[-1].metadata_props.add(key=LAYER_KEY, value="layer")
    constants = {
        "one": np.array(1.0, dtype=np.float32),
        "closed": np.array(np.finfo(np.float32).min),
        "w": _random(8, 4),
    }
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "masked",
        [value("x", TensorProto.FLOAT, ["r", 8]), value("open", TensorProto.INT64, ["r", 8])],
        [value("y", TensorProto.FLOAT, ["r", 4])],
        initializer=[numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.mark.parametrize("base", _RUNTIME.bases)
def test_a_row_that_is_masked_throughout_stays_finite(base: str) -> None:
    built = _RUNTIME.build(_masked(), settings=_RUNTIME.settings(base))
    inputs = {"x": _random(2, 8), "open": np.array([[1] * 8, [0] * 8])}
    (expected,) = ReferenceEvaluator(_masked()).run(None, inputs)
    np.testing.assert_allclose(
        built.run(inputs)["y"], np.asarray(expected), atol=1e-6 if base == "fp32" else 0.03
    )


@pytest.mark.skipif("bf16" not in _RUNTIME.bases, reason="this processor has no bf16")
def test_everything_is_in_the_base() -> None:
    built = _RUNTIME.build(_masked(), settings=_RUNTIME.settings("bf16"), profile=True)
    found = built.run({"x": _random(2, 8), "open": np.ones((2, 8), dtype=np.int64)})
    assert found["y"].dtype == np.float32
    assert not any("float32" in node.signature for node in built.node_times())


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    model = _layer("Gemm", {"w": _random(24, 16)}, shape=(5, 24))
    torch.set_num_threads(2)
    try:
        built, _ = _built(model, "fp32", shape=(5, 24))
        built.run({"x": _random(5, 24)})
        built.infer()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_inputs_are_copied_before_they_are_kept() -> None:
    model = _layer("Gemm", {"w": _random(24, 16)}, shape=(5, 24))
    built = _RUNTIME.build(model, settings=_RUNTIME.settings("fp32"))
    assert isinstance(built, TorchExecutable)
    x = _random(5, 24)
    first = built.run({"x": x})["y"]
    x[:] = 0
    (bound,) = built._bound
    np.testing.assert_array_equal(bound.numpy(), _random(5, 24))
    np.testing.assert_array_equal(first, built.run({"x": _random(5, 24)})["y"])


def test_a_model_that_does_not_run_on_its_shapes_tells_them() -> None:
    model = _layer("Gemm", {"w": _random(24, 16)}, shape=(5, 24))
    with pytest.raises(DeploymentError, match=r"\(5, 23\)"):
        _built(model, "fp32", shape=(5, 23))


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="fp64"):
        _RUNTIME.settings("fp64")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mpsearch.runtimes.torch_executable", None)
    with pytest.raises(MissingPackageError, match=r"mpsearch\[search\]"):
        _ = TorchCpu().bases
