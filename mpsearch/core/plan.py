"""A plan: the number format of each layer, and all that is needed to rebuild and check it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from mpsearch.core.hardware import Workload
from mpsearch.core.provenance import Provenance

SCHEMA_VERSION = 1


@final
@dataclass(frozen=True, kw_only=True)
class ActivationQuantizer:
    """How the input of one layer is quantised: real = (code - zero_point) x scale.

    Codes are 0 to 255. Those of products have the zero point 0 or 128, see `second_input`.

    `low` and `high` are the range observed over `samples` inputs by `method`. Channel c of the
    input, its last axis, is divided by 2**`exponents`[c] before, and the column of the weight
    multiplied by it, where there are `exponents` (`quant.smoothing`).
    """

    scale: float
    zero_point: int
    low: float
    high: float
    method: str
    samples: int
    exponents: tuple[int, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """A limit as the user wrote it and what it came to, in the unit of its resource."""

    name: str
    text: str
    limit: float
    unit: str
    note: str = ""


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """The format of each layer with its base, placement, settings, forecast and proof.

    `assignment` names real formats; layers in a base precision carry the base's name.
    `forecast` maps quantities (`loss`, `latency_ns`, `weight_bytes`) to predicted values,
    `tolerance` to how far off a measurement may be before the promise counts as broken.
    """

    assignment: Mapping[str, str]
    base: str = "fp32"
    placement: str = "layer_inputs"
    runtime: str = "openvino"
    settings: Mapping[str, str] = field(default_factory=dict)
    workloads: tuple[Workload, ...] = ()
    quantizers: Mapping[str, ActivationQuantizer] = field(default_factory=dict)
    budgets: tuple[Budget, ...] = ()
    forecast: Mapping[str, float] = field(default_factory=dict)
    tolerance: Mapping[str, float] = field(default_factory=dict)
    bound: float | None = None
    gap: float | None = None
    origin: str = ""
    model: str = ""
    schema_version: int = SCHEMA_VERSION
    provenance: Provenance = field(default_factory=Provenance)
