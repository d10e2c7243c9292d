"""A device chooses its runtime by name, and says at once where it is not there."""

import pytest
import torch

from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes import RUNTIMES, torch_cuda_place
from mpsearch.runtimes.torch_cuda_place import Gpu
from mpsearch.workflow.device_names import runtime_on


@pytest.mark.parametrize("runtime", sorted(set(RUNTIMES) - {"torch_cuda"}))
def test_the_processor_takes_any_runtime_of_its_own(runtime: str) -> None:
    assert runtime_on("cpu", runtime) == runtime


def test_the_gpu_is_driven_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(name="NVIDIA Test", capability=(9, 0), versions={})
    monkeypatch.setattr(torch_cuda_place, "this_gpu", lambda: gpu)
    for runtime in ("openvino", "torch", "torch_cuda"):
        assert runtime_on("cuda", runtime) == "torch_cuda"
    assert runtime_on("cpu", "torch_cuda") == "torch_cuda"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
@pytest.mark.parametrize(("device", "runtime"), [("cuda", "openvino"), ("cpu", "torch_cuda")])
def test_a_gpu_that_is_not_there_is_told_before_anything_runs(device: str, runtime: str) -> None:
    with pytest.raises(UnsupportedFeatureError, match="Expected a GPU with its driver"):
        runtime_on(device, runtime)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match=r"'gpu'.*'cpu' or 'cuda'"):
        runtime_on("gpu", "openvino")
    with pytest.raises(UnsupportedFeatureError, match=r"'onnxruntime' does not drive"):
        runtime_on("cuda", "onnxruntime")
