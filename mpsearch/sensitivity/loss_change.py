"""Exact rise of the labelled loss, one layer in one format at a time."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError, MeasurementError
from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch
from mpsearch.tasks.task import labels_of


@final
@dataclass(frozen=True, kw_only=True)
class LossChange(AbstractExactMetric):
    """Mean over samples of the labelled loss in the format less that at full precision.

    Cross-entropy of classes or next tokens; half the squared error to labels of the
    outputs' shape for embeddings and callables. It can be negative, and a small change of
    the loss says little about how much of the model is kept.
    """

    name: ClassVar[str] = "loss_change"
    unit: ClassVar[str] = "labelled loss per sample"
    revision: ClassVar[int] = 1

    def _samples(
        self, request: Request, *, reference: Tensor, outputs: Tensor, batch: Batch
    ) -> Float[Tensor, "S 1"]:
        before = self._loss(request, outputs=reference, batch=batch)
        if not bool(torch.isfinite(before).all()):
            raise MeasurementError(
                f"The labelled loss is NaN or infinite for {int((~torch.isfinite(before)).sum())} "
                f"of {len(before)} samples at full precision. Expected finite numbers. Check the "
                "labels."
            )
        return (self._loss(request, outputs=outputs, batch=batch) - before)[:, None]

    def _loss(self, request: Request, *, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:
        loss = request.task.labelled_loss(outputs, batch)
        if loss is None:
            labels = labels_of(batch)
            found = "no labels" if labels is None else f"labels of shape {tuple(labels.shape)}"
            raise DataError(
                f"Metric {self.name!r} needs labels; the data has {found} for outputs of shape "
                f"{tuple(outputs.shape)} of task {request.task.name!r}. Expected one class per "
                "sample, tokens, or targets of the outputs' shape. Add them, or choose metric "
                "'output_error', which needs none."
            )
        return loss
