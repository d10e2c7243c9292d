"""Every registered runtime keeps the laws."""

import pytest
import torch

from mpsearch.core.graph import Op
from mpsearch.core.hardware import Support
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes import RUNTIMES, AbstractRuntime
from mpsearch.runtimes.torch_cuda import TorchCuda
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


class TestTorch(RuntimeLaws):
    """Torch on this CPU."""

    def runtime(self) -> AbstractRuntime:
        return RUNTIMES["torch"]


class TestTorchCudaOnTheProcessor(RuntimeLaws):
    """The operators of torch on a GPU, run on this CPU: all but times and the moving."""

    stored_alone = frozenset({Op.CONV})

    def runtime(self) -> AbstractRuntime:
        return TorchCuda(place="cpu")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU")
class TestTorchCuda(RuntimeLaws):
    """Torch on an NVIDIA GPU."""

    stored_alone = frozenset({Op.CONV})

    def runtime(self) -> AbstractRuntime:
        return RUNTIMES["torch_cuda"]


def test_every_runtime_is_tested() -> None:
    assert set(RUNTIMES) == {"openvino", "onnxruntime", "torch", "torch_cuda", "simulation"}


def test_simulation_takes_every_integer_weight_anywhere() -> None:
    for layer in small_layers():
        for bits in range(2, 9):
            support = RUNTIMES["simulation"].support(layer, f"w{bits}", base="fp32")
            assert support is Support.NATIVE


def test_simulation_takes_what_a_layer_can_take() -> None:
    simulation = RUNTIMES["simulation"]
    for layer in small_layers():
        is_linear = layer.op is Op.LINEAR
        for name in ("w3-asymmetric-mse", "w2t-mse"):
            assert simulation.support(layer, name, base="fp32") is Support.NATIVE
        for name in ("w4a8-token", "w4g32-mse", "a8-token"):
            expected = Support.NATIVE if is_linear else Support.NONE
            assert simulation.support(layer, name, base="fp32") is expected


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_runtimes_treat_clipped_weights_as_the_same_kernel_and_others_not_at_all(name: str) -> None:
    runtime, layer = RUNTIMES[name], small_layers()[0]
    for layout in ("w8", "w4g128"):
        clipped = runtime.support(layer, f"{layout}-mse", base="fp32")
        assert clipped is runtime.support(layer, layout, base="fp32")
        assert clipped is not Support.NONE
    for other in ("w4-asymmetric", "w8t", "w8a8-token", "w4a16", "w4g64", "a8", "w4a8"):
        assert runtime.support(layer, other, base="fp32") is Support.NONE


def test_simulation_builds_nothing() -> None:
    runtime = RUNTIMES["simulation"]
    with pytest.raises(UnsupportedFeatureError, match="builds no executable"):
        runtime.build(small_model().onnx(), settings=runtime.settings("fp32"))
