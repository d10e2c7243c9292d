"""What was measured: how much each format hurts, and what each format costs, layer by layer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from numpy import ndarray

from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.provenance import Provenance


@final
@dataclass(frozen=True, kw_only=True)
class Combining:
    """How far sums of losses of weight and input are from those measured jointly.

    `median` and `largest` are of |sum / joint - 1| over the `checked` entries.
    """

    checked: int
    median: float
    largest: float

    @property
    def told(self) -> str:
        """Return a sentence that says so."""
        return (
            f"Losses of weights and inputs were measured apart and added: off by {self.median:.0%} "
            f"in the median and {self.largest:.0%} at most, over {self.checked} entries that were "
            "measured jointly too."
        )


@final
@dataclass(frozen=True, kw_only=True)
class SensitivityTable:
    """Loss of giving one of L layers one of F formats, all others kept at full precision.

    `loss` is per sample in `unit`, lower is better, summable over layers; NaN where a pair
    was not measured. `stderr` is its standard error. `base_loss` is the loss of a base
    precision itself, before any layer is quantised; fp32 loses nothing. One table serves
    all bases. `placement_loss` is that of a placement itself: of quantising residual additions.
    `quantizers` are those of the layers' inputs that static formats were judged with, and of
    the addends of residual additions.

    `numbers` are signed changes of the output along random directions, one row for each
    sample and draw, with mean squares of `loss`. They add up over layers: the mean over N of
    (sum of numbers[n, l, f_l])^2 is the squared output error of a plan, cross terms included.
    None where the metric knows no signs. `combining` is there where weights and inputs were
    measured apart.
    """

    layers: tuple[str, ...]
    formats: tuple[str, ...]
    loss: Float[ndarray, "L F"]
    stderr: Float[ndarray, "L F"]
    metric: str
    unit: str
    base_loss: Mapping[str, float] = field(default_factory=dict)
    samples: int = 0
    quantizers: Mapping[str, ActivationQuantizer] = field(default_factory=dict)
    numbers: Float32[ndarray, "N L F"] | None = None
    combining: Combining | None = None
    placement_loss: Mapping[str, float] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def constant_loss(self, *, base: str, placement: str) -> float:
        """Return what is lost whatever the layers' formats are."""
        return self.base_loss.get(base, 0.0) + (self.placement_loss or {}).get(placement, 0.0)


@final
@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How summed table entries became predicted time: `offset` + `slope` x sum.

    `relative_error` is the standard deviation of (predicted - measured) / measured over
    plans that the fit has not seen; `repeatability` the same for a plan timed twice.
    """

    offset: float = 0.0
    slope: float = 1.0
    relative_error: float = 0.0
    repeatability: float = 0.0


@final
@dataclass(frozen=True, kw_only=True)
class MeasuredPlan:
    """A whole plan that was built and measured while profiling."""

    assignment: Mapping[str, str]
    base: str
    placement: str
    amount: Mapping[str, float]
    role: str = ""  # "reference", "random", "candidate"


@final
@dataclass(frozen=True, kw_only=True)
class CostTable:
    """What one of L layers spends in one of F formats, under one base and placement.

    `amount[resource]` holds whole numbers, as differences to nothing or to the base: a plan
    spends `constant + sum of its entries + sum of its edge entries`. They may be negative.
    `edges` are (producer, consumer) indices into layers, `edge_amount[resource]` is indexed
    by edge, producer's format, consumer's format. A resource without edge costs is absent.
    Layers in one tuple of `shared_weights` (indices) hold one weight, whose bytes and bits
    count at the first of them. `additions` maps each residual addition that plans of this
    placement may quantise to the layer that it belongs to, see `core.placement`. `settings` are
    the runtime's, under which all was measured.
    """

    layers: tuple[str, ...]
    formats: tuple[str, ...]
    base: str
    placement: str
    amount: Mapping[str, Int[ndarray, "L F"]]
    constant: Mapping[str, int]
    support: tuple[tuple[Support, ...], ...]
    edges: tuple[tuple[int, int], ...] = ()
    edge_amount: Mapping[str, Int[ndarray, "E F F"]] = field(default_factory=dict)
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    measured: tuple[MeasuredPlan, ...] = ()
    shared_weights: tuple[tuple[int, ...], ...] = ()
    additions: Mapping[str, str] | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    workloads: tuple[Workload, ...] = ()
    device: Device
    provenance: Provenance = field(default_factory=Provenance)

    def spend(self, assignment: Mapping[str, str]) -> dict[str, int]:
        """Return what a complete assignment spends of each resource.

        Raises:
            KeyError: A layer of the table is missing in the assignment, or a format in the table.
        """
        column = {name: place for place, name in enumerate(self.formats)}
        choice = np.array([column[assignment[layer]] for layer in self.layers])
        rows = np.arange(len(self.layers))
        total = {
            resource: int(amount[rows, choice].sum()) + int(self.constant.get(resource, 0))
            for resource, amount in self.amount.items()
        }
        if self.edges:
            producer, consumer = np.array(self.edges).T
            for resource, amount in self.edge_amount.items():
                each = amount[np.arange(len(self.edges)), choice[producer], choice[consumer]]
                total[resource] += int(each.sum())
        return total

    @property
    def allowed(self) -> Bool[ndarray, "L F"]:
        """Return where a kernel or at least storage exists."""
        return np.array([[kind is not Support.NONE for kind in row] for row in self.support])
