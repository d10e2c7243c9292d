"""What a plan runs on and what it spends there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import final


class Resource(StrEnum):
    """What a budget can limit, with its unit. `latency_ns` counts once per workload."""

    WEIGHT_BYTES = "weight_bytes"
    LATENCY_NS = "latency_ns"
    BOPS = "bops"
    WEIGHT_BITS = "weight_bits"
    ENERGY_NJ = "energy_nj"


def latency_key(workload: str) -> str:
    """Return what the latency of one of several workloads is called in cost tables.

    That of the first, or only, workload is `latency_ns`.

    Example:
        >>> latency_key("b32")
        'latency_ns@b32'
    """
    return f"{Resource.LATENCY_NS}@{workload}"


class Support(StrEnum):
    """How a runtime treats a layer in a format."""

    NATIVE = "native"  # a kernel computes in it
    STORAGE = "storage"  # it is kept small, in the file at least, and computed wider
    NONE = "none"  # the runtime cannot hold it


@final
@dataclass(frozen=True, kw_only=True)
class Workload:
    """One use of the model: the shape of each input, by name."""

    name: str
    shapes: Mapping[str, tuple[int, ...]]


@final
@dataclass(frozen=True, kw_only=True)
class Device:
    """A processor, the runtime on it, and how many threads a plan gets."""

    name: str
    runtime: str
    threads: int
    software: Mapping[str, str] = field(default_factory=dict)
