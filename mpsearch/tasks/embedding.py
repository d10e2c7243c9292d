"""Embeddings: what counts is the direction, and which other samples are near."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import AbstractTask, valid_positions

NEIGHBOURS: Final = 10
_HIDDEN_DIMENSIONS: Final = 3  # samples, tokens, features
_VECTOR_DIMENSIONS: Final = 2
_ROWS_AT_ONCE: Final = 1024  # of the similarity matrix


@final
@dataclass(frozen=True, kw_only=True)
class Embedding(AbstractTask):
    """One vector of unit length per sample; hidden states of tokens are pooled first.

    Of unit vectors the squared error is 2 (1 - cosine), which is what retrieval sees.
    """

    name: ClassVar[str] = "embedding"

    pooling: Literal["mean", "first"] = "mean"

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Float[Tensor, "S F"]:
        if tensor.ndim == _HIDDEN_DIMENSIONS:
            tensor = self._pooled(tensor, batch)
        if tensor.ndim != _VECTOR_DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected (samples, "
                "features) or (samples, tokens, features) of an embedding. Choose another task, "
                "or pass a callable."
            )
        return nn.functional.normalize(tensor, dim=1)

    def _pooled(self, hidden: Float[Tensor, "S T F"], batch: Batch) -> Float[Tensor, "S F"]:
        if self.pooling == "first":
            return hidden[:, 0]
        mask = valid_positions(batch, like=hidden)[:, :, None]
        # A sample of padding only has no token; it must not become NaN.
        return (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)

    def _fidelity(
        self,
        reference: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        batches: Sequence[Batch],  # noqa: ARG002 - needs no labels, and masks are in the outputs
    ) -> dict[str, Tensor]:
        full, quantised = torch.cat(list(reference)), torch.cat(list(outputs))
        # Of unit vectors the product is the cosine, but rounding of lengths would show in it.
        measures = {"cosine": nn.functional.cosine_similarity(full.double(), quantised.double())}
        if len(full) > 1:
            measures[f"top{NEIGHBOURS}_agreement"] = _neighbours_kept(full, quantised)
        return measures


def _neighbours_kept(
    full: Float[Tensor, "N F"], quantised: Float[Tensor, "N F"]
) -> Float[Tensor, " N"]:
    """Return the share of each sample's nearest others that quantising keeps."""
    count = min(NEIGHBOURS, len(full) - 1)
    before, after = _nearest(full, count=count), _nearest(quantised, count=count)
    kept = (before[:, :, None] == after[:, None, :]).any(dim=2)
    return kept.double().mean(dim=1)


def _nearest(vectors: Float[Tensor, "N F"], *, count: int) -> Int[Tensor, "N K"]:
    nearest = []
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        rows = vectors[start : start + _ROWS_AT_ONCE]
        similarity = rows @ vectors.T
        own = torch.arange(len(rows), device=vectors.device)
        similarity[own, own + start] = -torch.inf
        nearest.append(similarity.topk(count, dim=1).indices)
    return torch.cat(nearest)
