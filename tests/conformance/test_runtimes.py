"""Every registered runtime keeps the laws."""

import pytest

from mpsearch.core.hardware import Support
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes import RUNTIMES, AbstractRuntime
from mpsearch.testing.runtime_laws import RuntimeLaws
from mpsearch.testing.small_onnx import small_layers, small_model


class TestOpenVino(RuntimeLaws):
    """OpenVINO on this CPU."""

    def runtime(self) -> AbstractRuntime:
        return RUNTIMES["openvino"]


class TestOnnxRuntime(RuntimeLaws):
    """ONNX Runtime on this CPU."""

    def runtime(self) -> AbstractRuntime:
        return RUNTIMES["onnxruntime"]


def test_every_runtime_is_tested() -> None:
    assert set(RUNTIMES) == {"openvino", "onnxruntime", "simulation"}


def test_simulation_takes_every_integer_weight_anywhere() -> None:
    for layer in small_layers():
        for bits in range(2, 9):
            support = RUNTIMES["simulation"].support(layer, f"w{bits}", base="fp32")
            assert support is Support.NATIVE


def test_simulation_builds_nothing() -> None:
    runtime = RUNTIMES["simulation"]
    with pytest.raises(UnsupportedFeatureError, match="builds no executable"):
        runtime.build(small_model().onnx(), settings=runtime.settings("fp32"))
