"""Exact cosine distance of the output, one layer in one format at a time."""

from dataclasses import dataclass
from typing import ClassVar, final

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch


@final
@dataclass(frozen=True, kw_only=True)
class OutputCosine(AbstractExactMetric):
    """Mean over samples of |unit output - unit full-precision output|^2 / 2.

    That is 1 - cosine without its cancellation. All features of a sample are one vector, so
    a change of scale alone costs nothing.
    """

    name: ClassVar[str] = "output_cosine"
    unit: ClassVar[str] = "cosine distance per sample"
    revision: ClassVar[int] = 1

    def _samples(
        self,
        request: Request,  # noqa: ARG002 - the vectors say all
        *,
        reference: Tensor,
        outputs: Tensor,
        batch: Batch,  # noqa: ARG002 - masked positions are zeros
    ) -> Float[Tensor, "S 1"]:
        full, other = (
            functional.normalize(each.double().flatten(start_dim=1), dim=1)
            for each in (reference, outputs)
        )
        return (full - other).square().sum(dim=1, keepdim=True) / 2
