"""Average curvature of the loss times squared weight error, as HAWQ scores."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.core.cache import content_hash
from mpsearch.core.progress import tracked
from mpsearch.errors import UsageError
from mpsearch.execution.sample_axis import bytes_per_sample
from mpsearch.sensitivity.curvature import curvatures
from mpsearch.sensitivity.entries import Entries
from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.output_traces import Traces, output_traces
from mpsearch.sensitivity.request import PHASE, Measurement, PlacedBatch, Request, Work, parts_of
from mpsearch.sensitivity.weight_errors import weight_errors

# Activations, their gradients, and the same again for the second derivative.
_COPIES: Final = 8
_SEED_DIGITS: Final = 15  # of a layer's hash, in base 16: below 2**63


# What random signs are drawn on: the outputs, all weights at once, or one layer's weight.
Probes: TypeAlias = Literal["outputs", "weights", "layers"]


@final
@dataclass(frozen=True, kw_only=True)
class HessianTrace(AbstractMetric):
    """Tr(H_l) / n_l x |W - stored W|^2, H the curvature of the mean loss over the layer's weight.

    Source: HAWQ-V2, Dong et al. (2020). Traces by Hutchinson's estimate with `draws` vectors
    of +-1, drawn on what `probes` says:

    - "outputs": H is the generalised Gauss-Newton matrix J^T F J, F = B B^T the Hessian of
      cross-entropy or half the squared error over the outputs, which labels do not change.
      Tr(H_l) is the mean of |J_l^T B r|^2. One backward pass per draw serves all layers, no
      cross terms arise, and no estimate is negative. It is the whole Hessian of the divergence
      from the model's own output, of the labelled loss too wherever the outputs are piecewise
      linear in the layer's weight (ReLU networks), and its mean over labels that the model
      itself would give.
    - "weights": the whole Hessian of the labelled loss (without labels, of that divergence),
      v over all weights at once: v_l . (H v)_l is an unbiased estimate for every layer, for
      cross terms have mean zero. One Hessian-vector product per draw and batch.
    - "layers": the same, one product per layer, as published.

    Layers that share a weight are told apart. What a format does to the layer's input is
    not seen.
    """

    name: ClassVar[str] = "hessian_trace"
    unit: ClassVar[str] = "mean curvature x squared weight error"
    revision: ClassVar[int] = 1

    draws: int = 32
    probes: Probes = "outputs"

    def _measure(self, request: Request) -> Measurement:
        traces = self.traces(request)
        errors = weight_errors(request, is_relative=False)
        # A layer without a weight has no trace, and no error to multiply it by.
        sizes = np.array([max(each.parameters, 1) for each in request.traced.graph.layers])[:, None]
        pairs = sum(map(len, request.pairs.values()))
        return Measurement(
            loss=traces.mean[:, None] / sizes * errors,
            stderr=traces.stderr[:, None] / sizes * errors,
            samples=request.data.samples,
            work=Work(measured_pairs=pairs),
        )

    def traces(self, request: Request) -> Traces:
        """Return the traces of all layers over the request's data.

        Raises:
            UsageError: There are no draws.
            MeasurementError: The loss is not finite, or has no gradient.
        """
        if self.draws < 1:
            raise UsageError(f"Metric {self.name!r} got {self.draws} draws. Expected at least 1.")
        if self.probes == "outputs":
            return output_traces(request, draws=self.draws)
        is_per_layer = self.probes == "layers"
        entries = Entries.of(
            request, kind=self.name, settings=[self.revision, request.seed, is_per_layer]
        )
        layers = request.traced.graph.names
        sums = np.zeros((self.draws, len(layers)))
        products = 0
        batches = tracked(
            request.batches(), PHASE, total=len(request.data), progress=request.progress
        )
        for placed in batches:
            stored = {draw: entries.get(placed.key, draw) for draw in range(self.draws)}
            missing = [draw for draw, known in stored.items() if not known]
            if missing:
                products += len(missing) * (len(layers) if is_per_layer else 1)
                for draw, values in self._measured(request, placed, draws=missing).items():
                    stored[draw] = {"traces": values}
                    entries.put(placed.key, draw, values=stored[draw])
            sums += np.stack([stored[draw]["traces"] for draw in range(self.draws)])
        return Traces(estimates=sums / request.data.samples, products=products)

    def _measured(
        self, request: Request, placed: PlacedBatch, *, draws: list[int]
    ) -> dict[int, Float64[ndarray, " L"]]:
        """Return the estimates of one batch, summed over its samples."""
        layers = request.traced.graph.names
        directions = [
            direction for draw in draws for direction in self._directions(request, draw=draw)
        ]
        total = np.zeros((len(directions), len(layers)))
        limit = request.memory_limit_bytes
        each = 1 if limit is None else bytes_per_sample(request.traced, placed.batch)
        size = len(placed.places) if limit is None else max(1, limit // (_COPIES * each))
        for part in parts_of(placed, size=size):
            found = curvatures(request, part.batch, directions=directions)
            for row, values in enumerate(found):
                for layer, value in values.items():
                    total[row, layers.index(layer)] += value
        split = total.reshape(len(draws), -1, len(layers)).sum(axis=1)
        return dict(zip(draws, split, strict=True))

    def _directions(self, request: Request, *, draw: int) -> list[dict[str, Tensor]]:
        whole = {
            layer: _signs(request, layer=layer, draw=draw)
            for layer in request.traced.graph.names
            if layer in request.traced.weights
        }
        if self.probes == "layers":
            return [{layer: signs} for layer, signs in whole.items()]
        return [whole]


def _signs(request: Request, *, layer: str, draw: int) -> Tensor:
    """Return +1 and -1 in the shape of a weight; they depend on seed, draw and layer only."""
    weight = request.traced.weight(layer)
    digits = int(content_hash(layer)[:_SEED_DIGITS], 16)
    generator = np.random.default_rng([request.seed, draw, digits])
    signs = generator.integers(0, 2, size=tuple(weight.shape), dtype=np.int8)
    return torch.from_numpy(2.0 * signs - 1.0).to(weight)
