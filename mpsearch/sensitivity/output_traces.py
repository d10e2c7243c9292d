"""Traces of the divergence's Hessian, layer by layer, out of plain backward passes."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.core.progress import tracked
from mpsearch.sensitivity.draws import random_signs
from mpsearch.sensitivity.entries import Entries
from mpsearch.sensitivity.gradient_pass import GradientPass
from mpsearch.sensitivity.losses import positions
from mpsearch.sensitivity.request import PHASE, PlacedBatch, Request, standard_error

_KIND: Final = "hessian_trace_of_outputs"
# Part of every cache key; raise it when the same input would give other numbers.
_REVISION: Final = 1
_NORM: Final = ("norm",)


@final
@dataclass(frozen=True, kw_only=True)
class Traces:
    """Traces of the loss's Hessian: N estimates of each layer, and the passes they took.

    Estimates are one per probe of the weights, and their standard error says nothing about
    how the data was sampled; or one per sample for probes of the outputs.
    """

    estimates: Float64[ndarray, "N L"]
    products: int

    @property
    def mean(self) -> Float64[ndarray, " L"]:
        """Return the trace of each layer."""
        mean: ndarray = self.estimates.mean(axis=0)
        return mean

    @property
    def stderr(self) -> Float64[ndarray, " L"]:
        """Return the standard errors; NaN of a single probe."""
        return standard_error(self.estimates)


def output_traces(request: Request, *, draws: int) -> Traces:
    """Return mean squared norms of J_l^T B r, r of +-1 on the outputs, B B^T their Fisher matrix.

    Estimates are one per sample, means over draws; `products` counts backward passes.
    """
    layers = request.traced.graph.names
    entries = Entries.of(request, kind=_KIND, settings=[_REVISION, request.seed])

    def direction(  # noqa: PLR0917 - the protocol of GradientPass
        outputs: Tensor, part: PlacedBatch, draw: int
    ) -> Tensor:
        signs = random_signs(outputs, seed=request.seed, draw=draw, places=part.places)
        root = root_of_fisher(outputs, signs) if request.task.has_logits else signs
        count = positions(request.task, outputs, batch=part.batch).sqrt()
        return root / count.reshape(-1, *[1] * (outputs.ndim - 1))

    backward = GradientPass(request, direction=direction, local="norms")
    parts: list[Float64[ndarray, "S L"]] = []
    places: list[int] = []
    products = 0
    batches = tracked(request.batches(), PHASE, total=len(request.data), progress=request.progress)
    for placed in batches:
        stored = {draw: entries.get(placed.key, placed.places, draw) for draw in range(draws)}
        missing = [draw for draw, known in stored.items() if not known]
        wanted = dict.fromkeys(request.traced.weights, _NORM)
        found = backward.measure(placed, dict.fromkeys(missing, wanted)) if missing else {}
        products += len(missing)
        for draw, values in found.items():
            nothing = np.zeros(len(placed.places), dtype=np.float32)
            stored[draw] = dict.fromkeys(layers, nothing)
            stored[draw] |= {layer: value for (layer, _), value in values.items()}
            entries.put(placed.key, placed.places, draw, values=stored[draw])
        parts.append(_mean_over_draws(stored, layers=layers))
        places += placed.places
    return Traces(estimates=np.concatenate(parts)[np.argsort(places)], products=products)


def root_of_fisher(
    logits: Float[Tensor, "S ... C"], signs: Float[Tensor, "S ... C"]
) -> Float[Tensor, "S ... C"]:
    """Return B r with B B^T = diag(p) - p p^T, the Fisher matrix of logits.

    Drawing classes has the same mean, but rare classes would carry most of it.
    """
    p = logits.softmax(dim=-1)
    scaled = p.sqrt() * signs
    return scaled - p * scaled.sum(dim=-1, keepdim=True)


def _mean_over_draws(
    stored: dict[int, dict[str, Float32[ndarray, " S"]]], *, layers: tuple[str, ...]
) -> Float64[ndarray, "S L"]:
    each = [np.stack([known[layer] for layer in layers], axis=1) for known in stored.values()]
    mean: ndarray = np.stack(each).astype(np.float64).mean(axis=0)
    return mean
