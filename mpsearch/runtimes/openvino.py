"""OpenVINO on the CPU: reads explicit QDQ ONNX as it is."""

import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, final

import onnx

from mpsearch.core.graph import Layer
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import installed_versions, this_processor
from mpsearch.errors import DeploymentError, MissingPackageError
from mpsearch.runtimes.one_layer import try_layer
from mpsearch.runtimes.openvino_executable import OpenVinoExecutable
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime

_LOG = logging.getLogger("mpsearch.runtimes")
_HINT: Final = {"fp32": "f32", "bf16": "bf16"}
_PLUGIN: Final = "CPU"
_SNIPPETS: Final = "SNIPPETS_MODE"
_PRECISION: Final = "INFERENCE_PRECISION_HINT"
_GROUP: Final = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_SUSPECTS: Final = ((_SNIPPETS, "DISABLE"), (_PRECISION, "f32"), (_GROUP, "0"))
# With these instructions OpenVINO 2026.4 fuses attention of bf16 with 8-bit inputs wrongly past
# 16 tokens; without them it does not, and the fusion gains time.
_WRONG_WITH_SNIPPETS: Final = frozenset({"amx_bf16", "amx_int8"})


@final
@dataclass(frozen=True, kw_only=True)
class OpenVino(AbstractRuntime):
    """Intel's OpenVINO, CPU plugin."""

    name: ClassVar[str] = "openvino"
    formats: ClassVar[tuple[str, ...]] = ("w8a8", "w8", "w4g128", "w4")
    product_formats: ClassVar[tuple[str, ...]] = ("a8",)
    revision: ClassVar[int] = 2

    @property
    def bases(self) -> tuple[str, ...]:
        """Return fp32, and bf16 where the processor has it."""
        capabilities = self._core.get_property(_PLUGIN, "OPTIMIZATION_CAPABILITIES")
        return ("fp32", "bf16") if "BF16" in capabilities else ("fp32",)

    def device(self, threads: int) -> Device:
        """Return this processor under this version of OpenVINO."""
        processor = this_processor()
        flags = " ".join(processor.flags)
        return Device(
            name=f"{processor.name} ({flags})" if flags else processor.name,
            runtime=self.name,
            threads=threads,
            software=installed_versions(["openvino"]),
        )

    def _settings(self, base: str) -> dict[str, str]:
        chosen = {
            _PRECISION: _HINT[base],
            "NUM_STREAMS": "1",
            # Weight-only kernels run 2 to 3 times slower without, and 1.2 to 1.5 with groups of 32.
            _GROUP: "128",
        }
        if base == "bf16" and _WRONG_WITH_SNIPPETS.intersection(this_processor().flags):
            chosen[_SNIPPETS] = "DISABLE"
        return chosen

    def adapted(
        self,
        settings: Mapping[str, str],
        *,
        model: onnx.ModelProto,
        threads: int,
        workload: Workload | None,
    ) -> dict[str, str]:
        """Return the settings, without generated loops where those hide layers of the model."""
        found = self._compiled(
            model, settings=settings, threads=threads, workload=workload, profile=False
        )
        return dict(settings) | ({_SNIPPETS: "DISABLE"} if found.swallowed() else {})

    def suspects(self, settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Return what has been seen to change numbers: fused loops, precision, groups."""
        return tuple((name, value) for name, value in _SUSPECTS if settings.get(name) != value)

    @cached_property
    def _core(self) -> Any:  # noqa: ANN401 - openvino ships no types
        return _openvino().Core()

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
        found = self._compiled(
            model, settings=settings, threads=threads, workload=workload, profile=profile
        )
        hidden = found.swallowed()
        if not hidden or _SNIPPETS in settings:
            return found
        # A small perceptron at batch 1 becomes one loop, of which no kernel can be told.
        _LOG.info("Built without generated loops, which hide %s.", ", ".join(hidden))
        return self._compiled(
            model,
            settings=dict(settings) | {_SNIPPETS: "DISABLE"},
            threads=threads,
            workload=workload,
            profile=profile,
        )

    def _compiled(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int,
        workload: Workload | None,
        profile: bool,
    ) -> OpenVinoExecutable:
        chosen = dict(settings) | {"INFERENCE_NUM_THREADS": str(threads)}
        if profile:
            chosen["PERF_COUNT"] = "YES"
        try:
            network = self._core.read_model(model.SerializeToString())
            if workload is not None:
                network.reshape({name: list(shape) for name, shape in workload.shapes.items()})
            compiled = self._core.compile_model(network, _PLUGIN, chosen)
        except Exception as error:  # OpenVINO raises RuntimeError, and others from its bindings.
            reason = str(error).strip().splitlines()
            raise DeploymentError(
                f"OpenVINO does not compile the model: {' '.join(reason[-2:])} Expected settings "
                f"{chosen} to work"
                + (f" with shapes {dict(workload.shapes)}" if workload else "")
                + ". Change the format of the layer it names, the base, or the shapes."
            ) from error
        return OpenVinoExecutable(model=model, compiled=compiled, profiled=profile)


def _openvino() -> Any:  # noqa: ANN401 - openvino ships no types
    try:
        return importlib.import_module("openvino")
    except ImportError as error:
        raise MissingPackageError(
            "Package 'openvino' is not installed. Expected it for running plans. "
            "Install it with `pip install 'mpsearch[search]'`."
        ) from error
