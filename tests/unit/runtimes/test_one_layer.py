"""A kernel that fails, is wrong or cannot be seen leaves its pair without support."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.hardware import Support
from mpsearch.errors import DeploymentError
from mpsearch.runtimes import RUNTIMES, Kernel
from mpsearch.runtimes.one_layer import try_layer
from mpsearch.runtimes.onnxruntime_executable import OnnxRuntimeExecutable
from mpsearch.testing.small_onnx import small_layers

_LINEAR = small_layers()[0]
_RUNTIME = RUNTIMES["onnxruntime"]


def _support() -> Support:
    return try_layer(_RUNTIME, _LINEAR, format_name="w8a8", base="fp32")


def test_a_good_kernel_is_native() -> None:
    assert _support() is Support.NATIVE


@pytest.mark.parametrize(
    "spoil", [lambda array: array * 1.2, lambda array: array * np.nan, lambda array: array.T * 0]
)
def test_wrong_numbers_are_no_support(monkeypatch: pytest.MonkeyPatch, spoil: Any) -> None:  # noqa: ANN401 - a function of arrays
    run = OnnxRuntimeExecutable._run

    def spoiled(self: Any, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:  # noqa: ANN401 - the executable
        outputs = run(self, inputs)
        is_quantised = "MatMulIntegerToFloat" in {k.type for k in self.kernels().values()}
        return {
            name: spoil(array).reshape(array.shape) if is_quantised else array
            for name, array in outputs.items()
        }

    monkeypatch.setattr(OnnxRuntimeExecutable, "_run", spoiled)
    assert _support() is Support.NONE


def test_a_kernel_that_crashes_is_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(self: Any, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:  # noqa: ANN401, ARG001 - as above
        raise DeploymentError("The kernel fell over.")

    monkeypatch.setattr(OnnxRuntimeExecutable, "_run", crash)
    assert _support() is Support.NONE


def test_a_kernel_that_cannot_be_seen_is_no_support(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Any) -> dict[str, Kernel]:  # noqa: ANN401, ARG001 - as above
        return {}

    monkeypatch.setattr(OnnxRuntimeExecutable, "kernels", nothing)
    assert _support() is Support.NONE


# OpenVINO checks no shapes while it runs: it reads beyond the array instead.
def test_a_failure_while_running_is_told_as_one_of_deployment() -> None:
    value = helper.make_tensor_value_info
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph = helper.make_graph(
        [node],
        "fails",
        [value("x", TensorProto.FLOAT, ["rows", "columns"])],
        [value("y", TensorProto.FLOAT, ["rows", 2])],
        initializer=[numpy_helper.from_array(np.ones((4, 2), dtype=np.float32), "w")],
    )
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(model)
    built = _RUNTIME.build(model, settings=_RUNTIME.settings("fp32"))
    built.run({"x": np.ones((3, 4), dtype=np.float32)})
    with pytest.raises(DeploymentError, match=r"fails on inputs .*\(3, 5\)"):
        built.run({"x": np.ones((3, 5), dtype=np.float32)})
