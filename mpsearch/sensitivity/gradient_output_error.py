"""Gradient times output error, squared number by number, as Model-Optimizer scores."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from mpsearch.errors import MeasurementError
from mpsearch.sensitivity.draws import random_signs
from mpsearch.sensitivity.gradient_metric import AbstractGradientMetric
from mpsearch.sensitivity.losses import likeliest_loss, positions
from mpsearch.sensitivity.request import PlacedBatch, Request


@final
@dataclass(frozen=True, kw_only=True)
class GradientOutputError(AbstractGradientMetric):
    """Mean over samples of sum (g x dY)^2, g = dL/dY of the labelled loss at full precision.

    The score of NVIDIA's Model-Optimizer (`auto_quantize`, method "gradient"). Squaring
    before summing loses how the changes within a sample add up; `fisher_direction` keeps
    it. Without labels the model's likeliest classes stand for them; outputs that are no
    logits and have no labels take one random direction of +-1.
    """

    name: ClassVar[str] = "gradient_output_error"
    unit: ClassVar[str] = "squared loss per sample"
    revision: ClassVar[int] = 1
    squares_first: ClassVar[bool] = True

    def _direction(
        self, request: Request, *, outputs: Tensor, part: PlacedBatch, draw: int
    ) -> Tensor:
        outputs = outputs.requires_grad_()
        with torch.enable_grad():
            loss = request.task.labelled_loss(outputs, part.batch)
            if loss is None:
                loss = likeliest_loss(request.task, outputs, batch=part.batch)
        if loss is None:
            signs = random_signs(outputs, seed=request.seed, draw=draw, places=part.places)
            count = positions(request.task, outputs.detach(), batch=part.batch).sqrt()
            return signs / count.reshape(-1, *[1] * (outputs.ndim - 1))
        if not bool(torch.isfinite(loss).all()):
            raise MeasurementError(
                f"The loss is NaN or infinite for {int((~torch.isfinite(loss)).sum())} of "
                f"{len(loss)} samples. Expected finite numbers. Check the labels and the outputs."
            )
        (slope,) = torch.autograd.grad(loss.sum(), outputs)
        return slope
