"""Classification: logits per sample."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.cross_entropy import class_loss
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.predictions import agreement, kl_divergence
from mpsearch.tasks.task import AbstractTask, labels_of

_DIMENSIONS: Final = 2  # samples, classes


@final
@dataclass(frozen=True, kw_only=True)
class Classification(AbstractTask):
    """One class per sample; the squared error is that of the logits."""

    name: ClassVar[str] = "classification"
    has_logits: ClassVar[bool] = True

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Float[Tensor, "S C"]:  # noqa: ARG002 - no mask
        if tensor.ndim != _DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected logits of "
                "(samples, classes). Choose another task, or pass a callable."
            )
        return tensor

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        labels = labels_of(batch)
        return None if labels is None else class_loss(outputs, labels)

    def _fidelity(
        self,
        reference: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        batches: Sequence[Batch],  # noqa: ARG002 - needs no labels
    ) -> dict[str, Tensor]:
        full, other = torch.cat(list(reference)), torch.cat(list(outputs))
        return {"agreement": agreement(full, other), "kl": kl_divergence(full, other)}

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        labels = [labels_of(batch) for batch in batches]
        known = [label for label in labels if label is not None]
        if not known or len(known) < len(labels):
            return {}
        logits, classes = torch.cat(list(outputs)), torch.cat(known)
        if classes.shape != logits.shape[:1]:
            raise DataError(
                f"The labels have the shape {tuple(classes.shape)}, the logits "
                f"{tuple(logits.shape)}. Expected one class per sample. Give class numbers."
            )
        right = logits.argmax(dim=1) == classes.to(logits.device).long()
        return {"accuracy": right.double()}
