"""Divergence of the output with a layer masked, without gradients, as OHQ estimates."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.core.progress import tracked
from mpsearch.errors import MeasurementError
from mpsearch.execution.interpreter import Override
from mpsearch.execution.overrides import with_weight
from mpsearch.sensitivity.entries import Entries
from mpsearch.sensitivity.exact_pass import ExactPass
from mpsearch.sensitivity.losses import divergence
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.request import (
    PHASE,
    Measurement,
    PlacedBatch,
    Request,
    Work,
    measurement_of_samples,
)
from mpsearch.sensitivity.weight_errors import weight_errors
from mpsearch.tasks import Batch
from mpsearch.tasks.collate import LABELS, MASK
from mpsearch.tracing import TracedModel

_MASKED: Final = "masked"


@final
@dataclass(frozen=True, kw_only=True)
class MaskedError(AbstractMetric):
    """Mean KL(full precision || weight of the layer set to zero) x |W - stored W|^2 / |W|^2.

    One forward pass per layer, from the layer on, serves all formats: masking says how much
    the layer matters, the relative weight error how much of it the format takes away. No
    gradients; with `is_synthetic` the inputs are random (normal numbers, whole numbers
    within the range of the data's), in the shapes and under the masks of the data. What a
    format does to the layer's input is not seen; `output_kl` runs each format itself.
    Source: on-chip mask-guided estimation, OHQ, Huang et al. (2023).
    """

    name: ClassVar[str] = "masked_error"
    unit: ClassVar[str] = "nats per sample x relative weight error"
    revision: ClassVar[int] = 1

    is_synthetic: bool = False

    def _measure(self, request: Request) -> Measurement:
        layers = request.traced.graph.names
        entries = Entries.of(
            request, kind=self.name, settings=[self.revision, self.is_synthetic, request.seed]
        )
        total = len(request.data) * len(layers)
        steps = tracked(range(total), PHASE, total=total, progress=request.progress)
        shares = weight_errors(request, is_relative=True)
        work, parts, places = Work(), [], list[int]()
        for placed in request.batches():
            batch = _synthetic(request, placed) if self.is_synthetic else placed.batch
            masked = ExactPass(request, batch)
            columns = []
            for layer in layers:
                next(steps)
                columns.append(
                    _divergences(
                        request, layer, masked=masked, key=placed.key, entries=entries, batch=batch
                    )
                )
            parts.append(np.stack(columns, axis=1))
            places += placed.places
            work += masked.work
        next(steps, None)
        values = np.concatenate(parts)[np.argsort(places)]
        work += Work(measured_pairs=sum(map(len, request.pairs.values())))
        return measurement_of_samples(values[:, :, None] * shares, work=work)


def _divergences(
    request: Request,
    layer: str,
    *,
    masked: ExactPass,
    batch: Batch,
    key: str,
    entries: Entries,
) -> Float64[ndarray, " S"]:
    """Return the divergence of each sample with the layer masked, kept at once."""
    if not request.pairs[layer]:
        return np.full(len(next(iter(batch.values()))), np.nan)
    stored = entries.get(key, layer)
    if _MASKED not in stored:
        with torch.no_grad():
            found = divergence(
                request.task,
                reference=masked.reference,
                outputs=masked.outputs(_masks(request.traced, layer)),
                batch=batch,
            )
        if not bool(torch.isfinite(found).all()):
            raise MeasurementError(
                f"Layer {layer!r} set to zero makes the output NaN or infinite. Expected finite "
                "outputs. Choose metric 'output_error' for this model."
            )
        stored = {_MASKED: found.double().cpu().numpy()}
        entries.put(key, layer, values=stored)
    return stored[_MASKED]


def _masks(traced: TracedModel, layer: str) -> dict[str, Override]:
    nodes = [node for node in traced.module.graph.nodes if node.name in traced.nodes[layer]]
    zeros = torch.zeros_like(traced.weight(layer))
    return {node.name: with_weight(node, zeros) for node in nodes}


def _synthetic(request: Request, placed: PlacedBatch) -> Batch:
    """Return random inputs in place of the data's; masks and labels stay."""
    kept = {MASK, *LABELS}
    return {
        name: value
        if name in kept or name not in request.traced.input_names
        else torch.stack(
            [
                _random(value[row], generator=np.random.default_rng([request.seed, place, column]))
                for row, place in enumerate(placed.places)
            ]
        )
        for column, (name, value) in enumerate(sorted(placed.batch.items()))
    }


def _random(like: Tensor, *, generator: np.random.Generator) -> Tensor:
    if like.is_floating_point():
        return torch.from_numpy(generator.standard_normal(tuple(like.shape), dtype=np.float32))
    low, high = int(like.min()), int(like.max())
    drawn = generator.integers(low, high, size=tuple(like.shape), endpoint=True)
    return torch.from_numpy(drawn).to(like.dtype)
