"""Torch on the CPU: explicit QDQ ONNX, run operator by operator with kernels of oneDNN."""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, final

import onnx

from mpsearch.core.graph import Layer
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import installed_versions, this_processor
from mpsearch.errors import MissingPackageError
from mpsearch.runtimes.one_layer import try_layer
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime
from mpsearch.runtimes.torch_lowering import lowered

BASE: Final = "base"
# Named in text, so that deployment in another runtime needs no torch.
EXECUTABLE: Final = "mpsearch.runtimes.torch_executable"
_PLACE: Final = "mpsearch.runtimes.torch_place"


@final
@dataclass(frozen=True, kw_only=True)
class TorchCpu(AbstractRuntime):
    """PyTorch, eager, with weights packed for oneDNN."""

    name: ClassVar[str] = "torch"
    formats: ClassVar[tuple[str, ...]] = ("w8a8", "w8", "w4")
    revision: ClassVar[int] = 1

    @property
    def bases(self) -> tuple[str, ...]:
        """Return fp32, and bf16 where oneDNN has kernels for it on this processor."""
        return ("fp32", "bf16") if torch_module(EXECUTABLE).has_bfloat16() else ("fp32",)

    def device(self, threads: int) -> Device:
        """Return this processor under this version of torch."""
        processor = this_processor()
        flags = " ".join(processor.flags)
        return Device(
            name=f"{processor.name} ({flags})" if flags else processor.name,
            runtime=self.name,
            threads=threads,
            software=installed_versions(["torch"]),
        )

    def _settings(self, base: str) -> dict[str, str]:
        return {BASE: base}

    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support:
        return try_layer(self, layer, format_name=format_name, base=base)

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
        built: AbstractExecutable = torch_module(EXECUTABLE).TorchExecutable(
            model=model,
            lowered=lowered(model, base=base),
            base=base,
            place=torch_module(_PLACE).OneDnn(),
            threads=threads,
            shapes=None if workload is None else workload.shapes,
            profiled=profile,
        )
        return built


def torch_module(name: str) -> Any:  # noqa: ANN401 - a module that is loaded where torch is used
    """Return one of our modules that need torch.

    Raises:
        MissingPackageError: Torch is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingPackageError(
            "Package 'torch' is not installed. Expected it for running plans of runtimes of torch. "
            "Install it with `pip install 'mpsearch[search]'`."
        ) from error
