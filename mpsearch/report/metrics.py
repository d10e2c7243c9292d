"""A page that compares sensitivity metrics: what each costs, finds, and how alike they rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.files import write_atomically
from mpsearch.report.numbers import amount, plain, seconds
from mpsearch.report.palette import swatches
from mpsearch.report.scale import scale_of
from mpsearch.report.write import page_template

_TOP: Final = 100.0
# Of the picture's height a line of text, of its width the longest name.
_LINE: Final = 5.0
_NAME: Final = 22.0


@runtime_checkable
class MetricLike(Protocol):
    """What one metric cost and found."""

    @property
    def metric(self) -> str: ...  # noqa: D102 - named as what it holds

    @property
    def seconds(self) -> float: ...  # noqa: D102 - the same

    @property
    def measured(self) -> float: ...  # noqa: D102 - the same

    @property
    def stderr(self) -> float: ...  # noqa: D102 - the same

    @property
    def formats(self) -> Sequence[str]: ...  # noqa: D102 - the same


@final
@dataclass(frozen=True, kw_only=True)
class Dot:
    """A metric in the plot, in percent from the left and from the top, and in its table.

    `label` is how far down its name stands, off the names of points nearby.
    """

    name: str
    left: float
    top: float
    label: float
    cost: str
    measured: str
    stderr: str
    is_best: bool
    lane: tuple[str, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """Agreement of two metrics; `shade` is how dark it is, in percent."""

    text: str
    shade: float


def write_metrics_page(
    path: Path,
    *,
    results: Sequence[MetricLike],
    agreement: Float[ndarray, "M M"],
    unit: str,
    advice: str,
) -> None:
    """Write one HTML file with the comparison as tables and as an SVG picture.

    Args:
        path: Where the file goes.
        results: At least one metric, with its plan's formats in the order of the layers.
        agreement: Rank correlation of the metrics' scores, in the order of `results`.
        unit: Of `measured`.
        advice: A sentence for the reader.

    Raises:
        MissingPackageError: jinja2 is not installed.
    """
    costs = scale_of([each.seconds for each in results])
    found = scale_of([each.measured for each in results])
    least = min(each.measured for each in results)
    formats = swatches(name for each in results for name in each.formats)
    places = [
        (costs.percent(each.seconds), _TOP - found.percent(each.measured)) for each in results
    ]
    dots = [
        Dot(
            name=each.metric,
            left=place[0],
            top=place[1],
            label=label,
            cost=seconds(each.seconds),
            measured=plain(each.measured),
            stderr=plain(each.stderr),
            is_best=each.measured == least,
            lane=tuple(formats[name].key for name in each.formats),
        )
        for each, place, label in zip(results, places, labels_of(places), strict=True)
    ]
    html = page_template("metrics.html").render(
        dots=dots,
        across=[(costs.percent(tick), amount(tick * 1e9, unit="ns")) for tick in costs.ticks()],
        upward=[(_TOP - found.percent(tick), plain(tick)) for tick in found.ticks()],
        cells=_cells(agreement),
        swatches=formats,
        unit=unit,
        advice=advice,
    )
    write_atomically(path, html.encode())


def labels_of(places: Sequence[tuple[float, float]]) -> list[float]:
    """Return how far down each point's name stands, all in percent.

    A name stands beside its point unless one before it is there; then in the next free line,
    upwards from the lower half of the picture and downwards from the upper.
    """
    labels: list[float] = []
    for left, top in places:
        step = -_LINE if top > _TOP / 2 else _LINE
        near = [
            label
            for (other, _), label in zip(places, labels, strict=False)
            if abs(other - left) < _NAME
        ]
        label = top
        while any(abs(other - label) < _LINE for other in near):
            label += step
        labels.append(label)
    return labels


def _cells(agreement: Float[ndarray, "M M"]) -> list[list[Cell]]:
    def cell(value: float) -> Cell:
        shade = 0.0 if np.isnan(value) else round(100 * max(value, 0.0), 1)
        return Cell(text=plain(value), shade=shade)

    rows: list[list[Any]] = agreement.tolist()
    return [[cell(value) for value in row] for row in rows]
