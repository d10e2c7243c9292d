"""What the metrics with one forward and a few backward passes for all pairs have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from torch import Tensor

from mpsearch.core.progress import tracked
from mpsearch.errors import UsageError
from mpsearch.sensitivity.entries import Entries, pair_identity
from mpsearch.sensitivity.gradient_pass import GradientPass
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.request import (
    PHASE,
    Measurement,
    PlacedBatch,
    Request,
    Work,
    measurement_of_numbers,
    measurement_of_samples,
)


@dataclass(frozen=True, kw_only=True)
class AbstractGradientMetric(AbstractMetric):
    """Gradients of the output along one direction per draw, against what formats change.

    Values are kept per batch and draw: an interrupted run loses one batch, more draws only
    add theirs, a new format is measured alone. Each sample's random numbers depend on the
    seed, the draw and its place in the source, so the cut into batches does not matter.
    """

    squares_first: ClassVar[bool] = False

    def _measure(self, request: Request) -> Measurement:
        draws = self._draws()
        if draws < 1:
            raise UsageError(f"Metric {self.name!r} got {draws} draws. Expected at least 1.")
        entries = Entries.of(request, kind=self.name, settings=[self.revision, request.seed])
        backward = GradientPass(
            request,
            direction=lambda outputs, part, draw: self._direction(
                request, outputs=outputs, part=part, draw=draw
            ),
            local="squares" if self.squares_first else "inner",
        )
        names = {
            (layer, name): f"{layer} {pair_identity(request, layer=layer, name=name)}"
            for layer, formats in request.pairs.items()
            for name in formats
        }
        parts: list[Float32[ndarray, "S D L F"]] = []
        places: list[int] = []
        cached = 0
        batches = tracked(
            request.batches(), PHASE, total=len(request.data), progress=request.progress
        )
        for placed in batches:
            stored = {draw: entries.get(placed.key, placed.places, draw) for draw in range(draws)}
            wanted = _missing(stored, names=names)
            cached += draws * len(names) - sum(
                len(formats) for pairs in wanted.values() for formats in pairs.values()
            )
            found = backward.measure(placed, wanted) if wanted else {}
            for draw, values in found.items():
                stored[draw] |= {names[pair]: value for pair, value in values.items()}
                entries.put(placed.key, placed.places, draw, values=stored[draw])
            parts.append(_table(request, stored, names=names, samples=len(placed.places)))
            places += placed.places
        numbers = np.concatenate(parts)[np.argsort(places)]
        work = backward.work
        work += Work(measured_pairs=len(names) * draws * len(parts) - cached, cached_pairs=cached)
        if self.squares_first:
            return measurement_of_samples(numbers[:, 0].astype(np.float64), work=work)
        return measurement_of_numbers(numbers, work=work)

    def _draws(self) -> int:
        return 1

    @abstractmethod
    def _direction(
        self, request: Request, *, outputs: Tensor, part: PlacedBatch, draw: int
    ) -> Tensor:
        """Return what the outputs are differentiated along, in their shape."""


def _missing(
    stored: Mapping[int, Mapping[str, ndarray]], *, names: Mapping[tuple[str, str], str]
) -> dict[int, dict[str, list[str]]]:
    """Return the formats of each layer that a draw lacks."""
    missing: dict[int, dict[str, list[str]]] = {}
    for draw, known in stored.items():
        for (layer, name), identity in names.items():
            if identity not in known:
                missing.setdefault(draw, {}).setdefault(layer, []).append(name)
    return missing


def _table(
    request: Request,
    stored: Mapping[int, Mapping[str, ndarray]],
    *,
    names: Mapping[tuple[str, str], str],
    samples: int,
) -> Float32[ndarray, "S D L F"]:
    layers, formats = request.traced.graph.names, list(request.formats)
    shape = (samples, len(stored), len(layers), len(formats))
    table = np.full(shape, np.nan, dtype=np.float32)
    for row, layer in enumerate(layers):
        for name in request.pairs[layer]:
            for draw, known in stored.items():
                table[:, draw, row, formats.index(name)] = known[names[layer, name]]
    return table
