"""Logits of a vocabulary at every token: what language models of both kinds share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.predictions import agreement, kl_divergence
from mpsearch.tasks.task import AbstractTask, valid_positions

_DIMENSIONS: Final = 3  # samples, tokens, vocabulary


@dataclass(frozen=True, kw_only=True)
class AbstractTokenLogits(AbstractTask):
    """Predictions at the positions that are no padding; measures are means over these."""

    has_logits: ClassVar[bool] = True

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Float[Tensor, "S T V"]:
        if tensor.ndim != _DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected logits of "
                "(samples, tokens, vocabulary). Choose another task, or pass a callable."
            )
        return tensor * valid_positions(batch, like=tensor)[:, :, None]

    def _positions(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:
        return valid_positions(batch, like=outputs).double().sum(dim=1).clamp(min=1.0)

    def _fidelity(
        self, reference: Sequence[Tensor], outputs: Sequence[Tensor], *, batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        measures: dict[str, list[Tensor]] = {"agreement": [], "kl": []}
        for full, other, batch in zip(reference, outputs, batches, strict=True):
            mask = valid_positions(batch, like=full).double()
            count = mask.sum(dim=1).clamp(min=1.0)
            for name, measure in (("agreement", agreement), ("kl", kl_divergence)):
                measures[name].append((measure(full, other) * mask).sum(dim=1) / count)
        return {name: torch.cat(values) for name, values in measures.items()}
