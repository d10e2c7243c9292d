"""Torch on an NVIDIA GPU: explicit QDQ ONNX, run operator by operator with kernels of few bits."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import onnx

from mpsearch.core.graph import Layer
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import installed_versions, this_processor
from mpsearch.runtimes.one_layer import try_layer
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime
from mpsearch.runtimes.torch_cpu import BASE, EXECUTABLE, torch_module
from mpsearch.runtimes.torch_lowering import lowered

_PLACE: Final = "mpsearch.runtimes.torch_cuda_place"
_HERE: Final = "cpu"
# The least compute capability with the kernel: tensor cores for int8, bfloat16, floats of 8 bits.
_LEAST: Final = {"w8a8": (7, 5), "w4g128": (8, 0), "w4": (8, 0), "fp8": (8, 9)}
_LEAST_BFLOAT16: Final = (8, 0)
_ANY: Final = (0, 0)


@final
@dataclass(frozen=True, kw_only=True)
class TorchCuda(AbstractRuntime):
    """PyTorch, eager, with `_int_mm`, `_scaled_mm` and `_weight_int4pack_mm`.

    With `place` "cpu" the same operators run on the processor, which is for testing alone:
    results are the GPU's but for the order of sums, times and names are not.
    """

    name: ClassVar[str] = "torch_cuda"
    formats: ClassVar[tuple[str, ...]] = ("fp8", "w8a8", "w8", "w4g128", "w4")
    revision: ClassVar[int] = 1

    place: str = "cuda"

    @property
    def bases(self) -> tuple[str, ...]:
        """Return fp32, and bf16 where the GPU has tensor cores for it.

        Raises:
            UnsupportedFeatureError: There is no GPU.
        """
        return ("fp32", "bf16") if self._has(_LEAST_BFLOAT16) else ("fp32",)

    def device(self, threads: int) -> Device:
        """Return the GPU, its compute capability, and the versions of torch, CUDA and driver.

        Raises:
            UnsupportedFeatureError: There is no GPU.
        """
        software = installed_versions(["torch"])
        if self.place == _HERE:
            name = f"kernels for GPUs on {this_processor().name}"
            return Device(name=name, runtime=self.name, threads=threads, software=software)
        gpu = torch_module(_PLACE).this_gpu()
        major, minor = gpu.capability
        return Device(
            name=f"{gpu.name} (SM {major}.{minor})",
            runtime=self.name,
            threads=threads,
            software=software | dict(gpu.versions),
        )

    def _settings(self, base: str) -> dict[str, str]:
        return {BASE: base}

    def _offers(self, layout: str) -> bool:
        return layout in self.formats and self._has(_LEAST.get(layout, _ANY))

    def _has(self, least: tuple[int, int]) -> bool:
        if self.place == _HERE:
            return True
        capability: tuple[int, int] = torch_module(_PLACE).this_gpu().capability
        return capability >= least

    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support:
        return try_layer(self, layer, format_name=format_name, base=base, mixes=False)

    def _build(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int,
        workload: Workload | None,
        profile: bool,
    ) -> AbstractExecutable:
        base = settings.get(BASE, "fp32")
        place: Any = torch_module(_PLACE)
        if self.place != _HERE:
            place.this_gpu()
        built: AbstractExecutable = torch_module(EXECUTABLE).TorchExecutable(
            model=model,
            lowered=lowered(model, base=base),
            base=base,
            place=place.Cuda(device=self.place),
            threads=threads,
            shapes=None if workload is None else workload.shapes,
            profiled=profile,
        )
        return built
