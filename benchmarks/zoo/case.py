"""One real model with what a search needs, its data cut into parts that do not overlap."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, final

from torch import Tensor, nn

from mpsearch.tracing import LoadedModel

Batches: TypeAlias = Sequence[Mapping[str, Tensor]]


@final
@dataclass(frozen=True, kw_only=True)
class Parts:
    """Data that calibrates, and data that decides between plans; both leave test data alone."""

    calibration: Batches
    validation: Batches


@final
@dataclass(frozen=True, kw_only=True)
class ZooCase:
    """A model that is called as the referee calls it, whose layers carry the referee's names.

    `parts(seed)` draws calibration data by seed; `test()` yields labelled test data.
    `fixed` names layers that stay at full precision and do not count.
    """

    name: str
    task: str
    model: nn.Module | LoadedModel
    parts: Callable[[int], Parts]
    test: Callable[[], Batches]
    fixed: tuple[str, ...] = field(default=())
