"""The runtime for NVIDIA GPUs: what it offers by the GPU, and what it says without one."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch

from mpsearch.core.graph import Layer, Op
from mpsearch.core.hardware import Support
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import DeploymentError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.quant.float8 import float8_input_scale
from mpsearch.runtimes import compare_numbers, torch_cuda_place
from mpsearch.runtimes.torch_cuda import TorchCuda
from mpsearch.runtimes.torch_cuda_place import Gpu
from mpsearch.runtimes.torch_executable import _failed
from mpsearch.testing.small_onnx import small_layers, small_model

_VERSIONS: Mapping[str, str] = {"cuda": "13.0", "driver": "13.0"}


def _linear(outputs: int, inputs: int) -> Layer:
    return Layer(
        name="a", op=Op.LINEAR, weight_shape=(outputs, inputs), input_shape=(1, 4, inputs),
        output_shape=(1, 4, outputs), macs=4 * outputs * inputs, inputs_from="x",
    )  # fmt: skip


def _with(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> TorchCuda:
    gpu = Gpu(name="NVIDIA Test", capability=capability, versions=_VERSIONS)
    monkeypatch.setattr(torch_cuda_place, "this_gpu", lambda: gpu)
    return TorchCuda()


@pytest.mark.parametrize(
    ("capability", "bases", "offered"),
    [
        ((7, 0), ("fp32",), {"w8"}),
        ((7, 5), ("fp32",), {"w8", "w8a8"}),
        ((8, 6), ("fp32", "bf16"), {"w8", "w8a8", "w4", "w4g128"}),
        ((8, 9), ("fp32", "bf16"), {"w8", "w8a8", "w4", "w4g128", "fp8"}),
        ((10, 0), ("fp32", "bf16"), {"w8", "w8a8", "w4", "w4g128", "fp8"}),
    ],
)
def test_a_gpu_is_offered_what_it_has_kernels_for(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    bases: tuple[str, ...],
    offered: set[str],
) -> None:
    runtime = _with(monkeypatch, capability)
    assert runtime.bases == bases
    assert {name for name in runtime.formats if runtime._offers(name)} == offered


def test_the_device_names_the_gpu_and_what_drives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    device = _with(monkeypatch, (9, 0)).device(2)
    assert device.name == "NVIDIA Test (SM 9.0)"
    assert (device.runtime, device.threads) == ("torch_cuda", 2)
    assert {"torch", "cuda", "driver"} <= set(device.software)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an NVIDIA GPU")
def test_without_a_gpu_every_question_has_the_same_answer() -> None:
    runtime, model = TorchCuda(), small_model()
    file = export_plan(model.onnx(), model.plan(dict.fromkeys(model.layers, "fp32")))
    for ask in (
        lambda: runtime.bases,
        lambda: runtime.device(1),
        lambda: runtime.settings("bf16"),
        lambda: runtime.support(small_layers()[0], "fp8", base="bf16"),
        lambda: runtime.build(file, settings={"base": "bf16"}),
    ):
        with pytest.raises(UnsupportedFeatureError, match="Expected a GPU with its driver"):
            ask()


@pytest.mark.parametrize(
    ("outputs", "inputs", "expected"),
    [
        (64, 128, {"fp8", "w8a8", "w4", "w4g128"}),
        (2, 128, {"fp8", "w8a8", "w4", "w4g128"}),  # outputs are filled up
        (64, 96, {"fp8", "w8a8", "w4"}),
        (64, 48, {"fp8", "w8a8"}),
        (64, 40, {"w8a8"}),
        (64, 36, set()),
    ],
)
def test_sizes_decide_which_kernels_there_are(
    outputs: int, inputs: int, expected: set[str]
) -> None:
    runtime = TorchCuda(place="cpu")
    found = {
        name
        for name in ("fp8", "w8a8", "w4", "w4g128")
        if runtime.support(_linear(outputs, inputs), name, base="bf16") is Support.NATIVE
    }
    assert found == expected


def test_codes_and_floats_of_one_scale_are_not_taken_for_each_other() -> None:
    """Two layers read one tensor: as whole numbers from 0, and as floats, by the same scale."""
    model, runtime = small_model(), TorchCuda(place="cpu")
    same = ActivationQuantizer(
        scale=4 / 224, zero_point=0, low=0.0, high=4.0, method="given", samples=1
    )
    assignment = dict.fromkeys(model.layers, "fp32") | {"left": "w8a8", "right": "fp8"}
    plan = replace(model.plan(assignment), quantizers={"left": same, "right": same})
    assert float8_input_scale(same) == np.float32(same.scale)
    inputs = model.inputs(1, 5)
    built = runtime.build(export_plan(model.onnx(), plan), settings=runtime.settings("fp32"))
    check = compare_numbers(built.run(inputs), model.forward(plan, inputs))
    assert check.relative_error < 0.01


def test_an_unknown_base_is_refused() -> None:
    with pytest.raises(UnsupportedFeatureError, match="fp64"):
        TorchCuda(place="cpu").settings("fp64")


def test_a_full_device_is_told_from_a_wrong_model() -> None:
    full = _failed({"x": (1, 2)}, torch.OutOfMemoryError("tried to allocate 2 GiB"))
    assert isinstance(full, DeploymentError)
    assert "no room" in str(full)
    assert "smaller batch" in str(full)
    assert "no room" not in str(_failed({"x": (1, 2)}, RuntimeError("size mismatch")))
