"""A task given as a function of the raw output."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import AbstractTask


@final
@dataclass(frozen=True, kw_only=True)
class CallableTask(AbstractTask):
    """Whatever `function(raw_output, batch)` returns: one row of numbers per sample.

    Masked positions must come back as zeros, since squared errors are summed over a row.
    """

    name: ClassVar[str] = "callable"

    function: Callable[[Any, Batch], Tensor]

    def _tensor(self, raw: Any, batch: Batch) -> Tensor:  # noqa: ANN401 - as in `outputs`
        tensor = self.function(raw, batch)
        if not isinstance(tensor, Tensor):
            raise DataError(
                f"The task's callable returned a {type(tensor).__name__}. Expected a tensor with "
                "one row per sample. Mend the callable."
            )
        return tensor

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Tensor:  # noqa: ARG002 - the function has seen it
        return tensor

    def _fidelity(
        self,
        reference: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        batches: Sequence[Batch],  # noqa: ARG002 - needs no labels
    ) -> dict[str, Tensor]:
        cosines = [
            nn.functional.cosine_similarity(
                full.double().flatten(start_dim=1), other.double().flatten(start_dim=1)
            )
            for full, other in zip(map(_as_rows, reference), map(_as_rows, outputs), strict=True)
        ]
        return {"cosine": torch.cat(cosines)}


def _as_rows(tensor: Tensor) -> Tensor:
    return tensor if tensor.ndim > 1 else tensor[:, None]
