"""What the metrics have in common that run the model with one layer in one format at a time."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.core.progress import tracked
from mpsearch.errors import MeasurementError
from mpsearch.execution import layer_override
from mpsearch.sensitivity.entries import Entries, pair_identity
from mpsearch.sensitivity.exact_pass import ExactPass
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.request import (
    PHASE,
    Measurement,
    PlacedBatch,
    Request,
    Work,
    measurement_of_samples,
)
from mpsearch.tasks import Batch


@dataclass(frozen=True, kw_only=True)
class AbstractExactMetric(AbstractMetric):
    """Compares the output with one layer in one format to the full-precision output.

    Everything before the layer is unchanged, so each pair runs from the layer on. Values
    are kept per batch, layer and format as soon as they are measured: an interrupted run
    loses one format of a layer, a complete one runs nothing again, not even the reference.
    """

    measures_products: ClassVar[bool] = True
    statistics: ClassVar[int] = 1  # of each sample, K below

    def _measure(self, request: Request) -> Measurement:
        layers = request.traced.graph.names
        entries = Entries.of(request, kind=self.name, settings=[self.revision])
        total = len(request.data) * len(layers)
        steps = tracked(range(total), PHASE, total=total, progress=request.progress)
        work, parts, places = Work(), [], list[int]()
        for placed in request.batches():
            measured = _Batch(self, request, placed=placed, entries=entries)
            rows = []
            for layer in layers:
                next(steps)
                rows.append(measured.layer(layer))
            parts.append(np.stack(rows, axis=1))
            places += placed.places
            work += measured.work
        next(steps, None)
        values = np.concatenate(parts)[np.argsort(places)]
        return self._summary(values, work=work)

    @abstractmethod
    def _samples(
        self, request: Request, *, reference: Tensor, outputs: Tensor, batch: Batch
    ) -> Float[Tensor, "S K"]:
        """Return the statistics of each sample that `_summary` makes a loss of."""

    def _summary(self, values: Float64[ndarray, "S L F K"], *, work: Work) -> Measurement:
        """Return losses: means of the one statistic, unless a subclass says otherwise."""
        return measurement_of_samples(values[..., 0], work=work)


@final
class _Batch:
    """One batch: reads what the cache has, and runs the reference only for what it lacks."""

    def __init__(
        self,
        metric: AbstractExactMetric,
        request: Request,
        *,
        placed: PlacedBatch,
        entries: Entries,
    ) -> None:
        self._metric, self._request, self._placed = metric, request, placed
        self._entries = entries
        self._pass = ExactPass(request, placed.batch)
        self._counted = Work()

    @property
    def work(self) -> Work:
        """Return what was run so far."""
        return self._counted + self._pass.work

    def layer(self, layer: str) -> Float64[ndarray, "S F K"]:
        """Return the statistics of one layer in every format; NaN where none is asked for."""
        wanted = {
            name: pair_identity(self._request, layer=layer, name=name)
            for name in self._request.pairs[layer]
        }
        stored = self._entries.get(self._placed.key, layer) if wanted else {}
        missing = [name for name, identity in wanted.items() if identity not in stored]
        for name in missing:
            stored[wanted[name]] = self._measured(layer, name)
            self._entries.put(self._placed.key, layer, values=stored)
        self._counted += Work(measured_pairs=len(missing), cached_pairs=len(wanted) - len(missing))
        samples = len(self._placed.places)
        table = np.full((samples, len(self._request.formats), self._metric.statistics), np.nan)
        for column, name in enumerate(self._request.formats):
            if name in wanted:
                table[:, column] = stored[wanted[name]]
        return table

    def _measured(self, layer: str, name: str) -> Float64[ndarray, "S K"]:
        overrides = layer_override(
            self._request.traced,
            layer,
            number=self._request.formats[name],
            quantizers=self._request.quantizers,
            dynamic_group=self._request.dynamic_group,
        )
        with torch.no_grad():
            found = self._metric._samples(  # noqa: SLF001 - this class is a part of the metric
                self._request,
                reference=self._pass.reference,
                outputs=self._pass.outputs(overrides),
                batch=self._placed.batch,
            )
        if not bool(torch.isfinite(found).all()):
            broken = ~torch.isfinite(found).all(dim=1)
            raise MeasurementError(
                f"Layer {layer!r} in {name!r} makes the output NaN or infinite for "
                f"{int(broken.sum())} of {len(found)} samples. Expected finite "
                "outputs. Leave this format out for the layer."
            )
        return found.double().cpu().numpy()
