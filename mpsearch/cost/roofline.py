"""Estimates for a device that nobody has at hand: a roofline, and energy per operation.

Nothing here was measured on the device. Tables made of it are labelled estimates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Final, final

from mpsearch.core.formats import Format, format_named
from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.cost.lut import Lut, LutRow
from mpsearch.cost.weight_bytes import stored_bytes
from mpsearch.errors import DataError

LATENCY: Final = "latency_ns"
ENERGY: Final = "energy_nj"
_OPERATIONS: Final = 2  # a multiplication and an addition
_BITS_PER_BYTE: Final = 8
_NANO: Final = 1e9
_PICO_TO_NANO: Final = 1e-3
# Picojoules at 45 nm and 0.9 V of one multiplication and one addition: int8 with sums of 32
# bits, floating point of 16 and 32 bits. Source: Horowitz (2014), ISSCC, Computing's energy
# problem (and what we can do about it), figure 1.1.9.
HOROWITZ_PICOJOULES: Final[Mapping[str, float]] = {
    "int8": 0.2 + 0.1, "bf16": 1.1 + 0.4, "fp32": 3.7 + 0.9,
}  # fmt: skip
# The same figure: 1.3 to 2.6 nJ for 64 bits from DRAM; the lower end.
HOROWITZ_PICOJOULES_PER_BYTE: Final = 1300 / 8


@final
@dataclass(frozen=True, kw_only=True)
class DeviceDescription:
    """What a data sheet says, per second: operations by arithmetic, and bytes of memory.

    `operations` counts multiplications and additions in "fp32", "bf16", "int8" and "fp8"; what is
    absent runs as fp32. `overhead_seconds` is what starting one layer takes. Energy is that of
    one multiply-accumulate, and of one byte from memory.
    """

    name: str
    operations: Mapping[str, float]
    bytes_per_second: float
    overhead_seconds: float = 0.0
    picojoules: Mapping[str, float] = field(default_factory=lambda: HOROWITZ_PICOJOULES)
    picojoules_per_byte: float = HOROWITZ_PICOJOULES_PER_BYTE

    def __post_init__(self) -> None:
        numbers = [*self.operations.values(), self.bytes_per_second]
        if "fp32" not in self.operations or any(not number > 0 for number in numbers):
            raise DataError(
                f"Device {self.name!r} is described by {dict(self.operations)} operations and "
                f"{self.bytes_per_second} bytes per second. Expected numbers > 0, fp32 among them. "
                "Take them from its data sheet."
            )


def estimated(
    graph: LayerGraph, device: DeviceDescription, *, formats: Sequence[str], base: str = "fp32"
) -> Lut:
    """Return latency and energy of each layer in each format, as a table labelled an estimate.

    A layer takes the longer of computing and moving its weight, input and output once, and
    the overhead. Weights alone of few bits are multiplied in the base. Source: Williams,
    Waterman, Patterson (2009), Commun. ACM 52(4), Roofline.

    Example:
        >>> layer = Layer(name="a", op=Op.LINEAR, weight_shape=(1000, 1000),
        ...               input_shape=(1, 1000), output_shape=(1, 1000), macs=10**6,
        ...               inputs_from="x")
        >>> graph = LayerGraph(layers=(layer,), edges=(), fingerprint="")
        >>> device = DeviceDescription(name="d", operations={"fp32": 1e12}, bytes_per_second=1e9)
        >>> round(estimated(graph, device, formats=("fp32",)).rows[0].amount["latency_ns"])
        4008000
    """
    rows = tuple(
        LutRow(
            name=layer.name,
            format=name,
            amount={
                LATENCY: _seconds(layer, format_named(name), device=device, base=base) * _NANO,
                ENERGY: _nanojoules(layer, format_named(name), device=device, base=base),
            },
        )
        for layer in graph.layers
        for name in formats
    )
    return Lut(
        device=device.name,
        key="layer",
        rows=rows,
        source="roofline; energy per operation of Horowitz (2014)",
        estimate=True,
        resources=(LATENCY, ENERGY),
    )


def _seconds(layer: Layer, format_: Format, *, device: DeviceDescription, base: str) -> float:
    arithmetic = _arithmetic(format_, base=base)
    peak = device.operations.get(arithmetic, device.operations["fp32"])
    computing = _OPERATIONS * layer.macs / peak
    moving = _moved_bytes(layer, format_, base=base) / device.bytes_per_second
    return layer.runs * (device.overhead_seconds * layer.calls + max(computing, moving))


def _nanojoules(layer: Layer, format_: Format, *, device: DeviceDescription, base: str) -> float:
    arithmetic = _arithmetic(format_, base=base)
    each = device.picojoules.get(arithmetic, device.picojoules["fp32"])
    moved = _moved_bytes(layer, format_, base=base) * device.picojoules_per_byte
    return layer.runs * (layer.macs * each + moved) * _PICO_TO_NANO


def _arithmetic(format_: Format, *, base: str) -> str:
    activation = format_.activation
    if activation is not None and not activation.is_plain:
        return "int8" if activation.kind == "integer" else "fp8"
    return format_.name if format_.is_floating else base


def _moved_bytes(layer: Layer, format_: Format, *, base: str) -> float:
    """Return bytes of the weight (of a table the rows read), input and output of all calls."""
    wide = format_named(base).weight.bits / _BITS_PER_BYTE
    inside = prod(layer.input_shape) * layer.calls
    outside = prod(layer.output_shape) * wide * layer.calls
    weight = stored_bytes(layer, format_.name) * layer.calls
    if format_.is_floating:
        weight = layer.parameters * layer.calls * format_.weight.bits // _BITS_PER_BYTE
    if layer.op is Op.EMBEDDING:
        read = prod(layer.input_shape) / layer.weight_shape[0]
        return weight * min(1.0, read) + outside
    narrow = format_.activation
    return weight + inside * (narrow.bits / _BITS_PER_BYTE if narrow else wide) + outside
