"""Retrieval: embeddings whose labels say which samples belong together."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.embedding import NEIGHBOURS, Embedding
from mpsearch.tasks.task import AbstractTask, labels_of


@final
@dataclass(frozen=True, kw_only=True)
class Retrieval(AbstractTask):
    """Each sample asks for the others with its label; nearest by cosine come first.

    Outputs and fidelity are those of the embedding. Quality, over samples that have another
    one: `recall_at_1`, and the mean reciprocal rank of the first right one within ten
    (`mrr_at_10`, as in MS MARCO: Nguyen et al., 2016).
    """

    name: ClassVar[str] = "retrieval"

    embedding: Embedding = field(default_factory=Embedding)

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Float[Tensor, "S F"]:
        return self.embedding.outputs(tensor, batch)

    def _fidelity(
        self, reference: Sequence[Tensor], outputs: Sequence[Tensor], *, batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        return self.embedding.fidelity_samples(reference, outputs, batches)

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        """Weigh samples that have nothing to find with 0 and the others so that the mean holds."""
        labels = [labels_of(batch) for batch in batches]
        known = [label for label in labels if label is not None]
        if not known or len(known) < len(labels):
            return {}
        vectors, groups = torch.cat(list(outputs)), torch.cat(known)
        if groups.shape != vectors.shape[:1]:
            raise DataError(
                f"The labels have the shape {tuple(groups.shape)} for {len(vectors)} samples. "
                "Expected one number per sample, alike where samples belong together."
            )
        is_right = _ranked(vectors, groups.to(vectors.device))
        has_any = (groups[:, None] == groups[None, :]).sum(dim=1) > 1
        weight = has_any.double() / has_any.double().mean().clamp(min=1 / len(groups))
        places = 1 / torch.arange(1, is_right.shape[1] + 1, dtype=torch.float64)
        first = (is_right.double() * places.to(vectors.device)).amax(dim=1, keepdim=False)
        return {
            "recall_at_1": is_right[:, 0].double() * weight,
            f"mrr_at_{NEIGHBOURS}": first * weight,
        }


def _ranked(vectors: Float[Tensor, "N F"], groups: Tensor) -> Bool[Tensor, "N K"]:
    """Return for each sample whether its nearest others belong to it, the nearest first."""
    count = min(NEIGHBOURS, len(vectors) - 1)
    similarity = (vectors.double() @ vectors.double().T).fill_diagonal_(-torch.inf)
    nearest = similarity.topk(max(count, 1), dim=1).indices
    return groups[nearest] == groups[:, None]
