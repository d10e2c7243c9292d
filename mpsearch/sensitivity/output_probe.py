"""Output error to first order, from one backward pass per random direction."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from mpsearch.sensitivity.draws import random_signs
from mpsearch.sensitivity.gradient_metric import AbstractGradientMetric
from mpsearch.sensitivity.losses import positions
from mpsearch.sensitivity.request import PlacedBatch, Request


@final
@dataclass(frozen=True, kw_only=True)
class OutputProbe(AbstractGradientMetric):
    """Mean of u^2, u = sum of d(v.z)/dY x dY per sample, v random +-1 on the outputs z.

    E[u^2] over v is the squared output error to first order. One backward pass per draw
    serves all layers and formats. The signed u add up over layers, so they hold all cross
    terms of a plan; they are the table's `numbers`.
    """

    name: ClassVar[str] = "output_probe"
    unit: ClassVar[str] = "squared output error per sample, first order"
    revision: ClassVar[int] = 1

    draws: int = 3

    def _draws(self) -> int:
        return self.draws

    def _direction(
        self, request: Request, *, outputs: Tensor, part: PlacedBatch, draw: int
    ) -> Tensor:
        signs = random_signs(outputs, seed=request.seed, draw=draw, places=part.places)
        count = positions(request.task, outputs, batch=part.batch).sqrt()
        return signs / count.reshape(-1, *[1] * (outputs.ndim - 1))
