"""No real runtime: every format that a layer can take counts as native; nothing is built.

For studies of formats that no processor has, under the budget `weight_bits`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, final

import onnx

from mpsearch.core.fitting import takes
from mpsearch.core.formats import FORMATS, Granularity, format_named
from mpsearch.core.graph import Layer
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.machine import installed_versions
from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes.runtime import AbstractExecutable, AbstractRuntime


@final
@dataclass(frozen=True, kw_only=True)
class Simulation(AbstractRuntime):
    """Every format of weights and inputs, computed in fp32; `formats` are the plain ones."""

    name: ClassVar[str] = "simulation"
    formats: ClassVar[tuple[str, ...]] = tuple(
        name
        for name, format_ in FORMATS.items()
        if format_.weight.granularity is Granularity.CHANNEL and format_.activation is None
    )
    product_formats: ClassVar[tuple[str, ...]] = ("a8",)
    revision: ClassVar[int] = 2

    @property
    def bases(self) -> tuple[str, ...]:
        """Return fp32 alone."""
        return ("fp32",)

    def device(self, threads: int) -> Device:
        """Return a device that stands for none."""
        return Device(
            name="simulation",
            runtime=self.name,
            threads=threads,
            software=installed_versions(["mpsearch"]),
        )

    def _settings(self, base: str) -> dict[str, str]:  # noqa: ARG002 - nothing runs, so nothing is set
        return {}

    def _offers(self, layout: str) -> bool:  # noqa: ARG002 - all alike
        return True

    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support:  # noqa: ARG002 - all alike
        return Support.NATIVE if takes(layer, format_named(format_name)) else Support.NONE

    def _build(
        self,
        model: onnx.ModelProto,  # noqa: ARG002 - refused before it is read
        *,
        settings: Mapping[str, str],  # noqa: ARG002 - the same
        threads: int,  # noqa: ARG002 - the same
        workload: Workload | None,  # noqa: ARG002 - the same
        profile: bool,  # noqa: ARG002 - the same
    ) -> AbstractExecutable:
        raise UnsupportedFeatureError(
            "Runtime 'simulation' builds no executable. Expected a runtime that runs plans, such "
            "as 'openvino'. Use mpsearch.apply(model, plan) to run a simulated plan in torch."
        )
