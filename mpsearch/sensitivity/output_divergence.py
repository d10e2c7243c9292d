"""Exact divergence of the output distribution, one layer in one format at a time."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.losses import divergence
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch


@final
@dataclass(frozen=True, kw_only=True)
class OutputDivergence(AbstractExactMetric):
    """Mean over samples of KL(full precision || layer in the format).

    Of sequences it is a mean over positions; outputs that are no logits count as means of
    normal distributions, whose divergence is half the squared error.
    """

    name: ClassVar[str] = "output_kl"
    unit: ClassVar[str] = "nats per sample"
    revision: ClassVar[int] = 1

    def _samples(
        self, request: Request, *, reference: Tensor, outputs: Tensor, batch: Batch
    ) -> Float[Tensor, "S 1"]:
        return divergence(request.task, reference=reference, outputs=outputs, batch=batch)[:, None]
