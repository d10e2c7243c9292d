"""Exact squared error of the output, one layer in one format at a time."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor

from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch


@final
@dataclass(frozen=True, kw_only=True)
class OutputError(AbstractExactMetric):
    """Mean over samples of |output with the layer in the format - full-precision output|^2.

    Squared errors of outputs nearly add up over layers; divergences of probabilities do not.
    """

    name: ClassVar[str] = "output_error"
    unit: ClassVar[str] = "squared output error per sample"
    revision: ClassVar[int] = 1

    def _samples(
        self, request: Request, *, reference: Tensor, outputs: Tensor, batch: Batch
    ) -> Float[Tensor, "S 1"]:
        return request.task.squared_error(reference, outputs, batch)[:, None]
