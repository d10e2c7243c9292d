"""Exact squared error of the output, one layer in one format at a time."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.core.cache import content_hash
from mpsearch.core.graph import Op
from mpsearch.core.progress import tracked
from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore, layer_override
from mpsearch.sensitivity.identity import task_identity
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.request import Measurement, Request, Work, measurement_of_samples

_LOG = logging.getLogger("mpsearch.sensitivity")
_KIND: Final = "output_error"


@final
@dataclass(frozen=True, kw_only=True)
class OutputError(AbstractMetric):
    """Mean over samples of |output with the layer in the format - full-precision output|^2.

    Everything before the layer is unchanged, so each pair runs from the layer on. Values
    are kept per batch and layer as soon as they are measured: an interrupted run loses one
    layer of one batch, a complete one runs nothing again, not even the reference. Squared
    errors of outputs nearly add up over layers; divergences of probabilities do not.
    """

    name: ClassVar[str] = "output_error"
    unit: ClassVar[str] = "squared output error per sample"
    revision: ClassVar[int] = 1

    def _measure(self, request: Request) -> Measurement:
        layers = request.traced.graph.names
        steps = len(request.data) * len(layers)
        progress = tracked(
            range(steps), "measure sensitivity", total=steps, progress=request.progress
        )
        work, parts = Work(), []
        try:
            for batch in request.data:
                measured = _Batch(request, batch, revision=self.revision)
                errors = np.full(
                    (measured.samples, len(layers), len(request.formats)), np.nan, dtype=np.float64
                )
                for place, layer in enumerate(layers):
                    next(progress)
                    errors[:, place] = measured.layer(layer)
                parts.append(errors)
                work += measured.work
        except KeyboardInterrupt:
            if request.cache is not None:
                _LOG.warning(
                    "Interrupted; what was measured lies in %s. Run the same again to go on.",
                    request.cache.folder,
                )
            raise
        next(progress, None)
        return measurement_of_samples(np.concatenate(parts), work=work)


class _Batch:
    """One batch: reads what the cache has, and runs the reference only for what it lacks."""

    def __init__(self, request: Request, batch: Mapping[str, Tensor], *, revision: int) -> None:
        self.work = Work()
        self.samples = len(next(iter(batch.values())))
        self._request = request
        self._batch = batch
        self._store: PrefixStore | None = None
        self._reference: Tensor | None = None
        task = task_identity(request.task)
        self._cache = request.cache if task is not None else None
        numbers = [
            [name, str(value.dtype), value.cpu().contiguous().numpy()]
            for name, value in sorted(batch.items())
        ]
        self._key = content_hash(
            revision,
            request.traced.graph.fingerprint,
            task,
            *[each for row in numbers for each in row],
        )

    def layer(self, layer: str) -> Float64[ndarray, "S F"]:
        """Return the errors of one layer in every format; NaN where none is asked for."""
        wanted = {name: self._format_key(layer, name) for name in self._request.pairs[layer]}
        key = content_hash(self._key, layer)
        stored = {} if self._cache is None else self._cache.get(_KIND, key) or {}
        missing = [name for name, identity in wanted.items() if identity not in stored]
        for name in missing:
            stored[wanted[name]] = self._measured(layer, name)
        if missing and self._cache is not None:
            self._cache.put(_KIND, key, value=stored)
        self.work += Work(measured_pairs=len(missing), cached_pairs=len(wanted) - len(missing))
        errors = np.full((self.samples, len(self._request.formats)), np.nan)
        for column, name in enumerate(self._request.formats):
            if name in wanted:
                errors[:, column] = stored[wanted[name]]
        return errors

    def _format_key(self, layer: str, name: str) -> str:
        """Hash all that decides what the format does to this layer."""
        number = self._request.formats[name]
        static = number.activation is not None and number.activation.kind == "integer"
        quantizer = self._request.quantizers.get(layer) if static else None
        graph = self._request.traced.graph
        weight_only = number.activation is None and not number.is_floating
        is_dynamic = weight_only and graph.layers[graph.index(layer)].op is Op.LINEAR
        return content_hash(
            dataclasses.asdict(number),
            None if quantizer is None else dataclasses.asdict(quantizer),
            self._request.dynamic_group if is_dynamic else None,
        )

    def _measured(self, layer: str, name: str) -> list[float]:
        store, reference = self._pass()
        before = store.macs
        overrides = layer_override(
            self._request.traced,
            layer,
            number=self._request.formats[name],
            quantizer=self._request.quantizers.get(layer),
            dynamic_group=self._request.dynamic_group,
        )
        task = self._request.task
        output = task.outputs(store.rerun(overrides), self._batch)
        errors = task.squared_error(reference, output, self._batch)
        self.work += Work(macs=store.macs - before, full_macs=store.full_macs)
        if not bool(torch.isfinite(errors).all()):
            raise MeasurementError(
                f"Layer {layer!r} in {name!r} makes the output NaN or infinite for "
                f"{int((~torch.isfinite(errors)).sum())} of {len(errors)} samples. Expected finite "
                "outputs. Leave this format out for the layer."
            )
        return [float(error) for error in errors.tolist()]

    def _pass(self) -> tuple[PrefixStore, Tensor]:
        """Return the full-precision pass and its output, run at the first need."""
        if self._store is None or self._reference is None:
            self._store = PrefixStore(self._request.traced, self._batch)
            self._store.check_finite()
            self._reference = self._request.task.outputs(self._store.output, self._batch)
            self.work += Work(macs=self._store.full_macs)
            if not bool(torch.isfinite(self._reference).all()):
                raise MeasurementError(
                    "The model's output at full precision holds NaN or infinity, though every "
                    "layer is finite. Expected finite outputs. Check the operators after the last "
                    "layer."
                )
        return self._store, self._reference
