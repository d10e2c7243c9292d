"""Divergence of the output distribution to second order, by labels drawn from the model."""

import math
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from mpsearch.sensitivity.draws import random_classes, random_normals
from mpsearch.sensitivity.gradient_metric import AbstractGradientMetric
from mpsearch.sensitivity.losses import positions
from mpsearch.sensitivity.request import PlacedBatch, Request


@final
@dataclass(frozen=True, kw_only=True)
class FisherDirection(AbstractGradientMetric):
    """Mean of u^2, u = sum of d log p(y) / dY x dY / sqrt(2), y drawn from the model itself.

    E[2 u^2] is dW^T F dW with the Fisher information F, and half of that the divergence
    KL(full || quantised) to second order. Of sequences, y is one token per position, and
    the divergence a mean over positions. Outputs that are no logits (embeddings, callables)
    count as means of normal distributions of unit variance: y is drawn from them, and the
    divergence is half the squared error.
    """

    name: ClassVar[str] = "fisher_direction"
    unit: ClassVar[str] = "nats per sample, second order"
    revision: ClassVar[int] = 1

    draws: int = 3

    def _draws(self) -> int:
        return self.draws

    def _direction(
        self, request: Request, *, outputs: Tensor, part: PlacedBatch, draw: int
    ) -> Tensor:
        if request.task.has_logits:
            drawn = random_classes(outputs, seed=request.seed, draw=draw, places=part.places)
            slope = drawn - outputs.softmax(dim=-1)
        else:
            slope = random_normals(outputs, seed=request.seed, draw=draw, places=part.places)
        count = positions(request.task, outputs, batch=part.batch).sqrt() * math.sqrt(2)
        return slope / count.reshape(-1, *[1] * (outputs.ndim - 1))
