"""Causal language models: logits of the next token at every position."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IDS
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.predictions import agreement, kl_divergence
from mpsearch.tasks.task import AbstractTask, valid_positions

_DIMENSIONS: Final = 3  # samples, tokens, vocabulary


@final
@dataclass(frozen=True, kw_only=True)
class CausalLm(AbstractTask):
    """Predictions at the positions that are no padding; measures are means over these."""

    name: ClassVar[str] = "causal_lm"

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

    def _quality(self, outputs: Sequence[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
        """The text itself is the label: each position predicts the next token."""
        surprise, right, count = 0.0, 0, 0
        for logits, next_tokens in _predictions(outputs, batches):
            log_probability = nn.functional.log_softmax(logits.double(), dim=1)
            surprise -= float(log_probability.gather(1, next_tokens[:, None]).sum())
            right += int((logits.argmax(dim=1) == next_tokens).sum())
            count += len(next_tokens)
        if count == 0:
            return {}
        return {"perplexity": math.exp(surprise / count), "next_token_accuracy": right / count}

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        """Weigh each text by its length, so that their mean is the mean over tokens."""
        right, count = [], []
        for logits, batch in zip(outputs, batches, strict=True):
            if IDS not in batch:
                return {}
            predicts = _predicting(logits, batch)
            hits = logits[:, :-1].argmax(dim=2) == batch[IDS].to(logits.device)[:, 1:]
            right.append((hits & predicts).double().sum(dim=1))
            count.append(predicts.double().sum(dim=1))
        tokens = torch.cat(count).mean().clamp(min=1.0)
        return {"next_token_accuracy": torch.cat(right) / tokens}


def _predicting(logits: Tensor, batch: Batch) -> Bool[Tensor, "S T"]:
    """Return the positions, less the last one, that are real and whose next token is."""
    real = valid_positions(batch, like=logits).bool()
    return real[:, :-1] & real[:, 1:]


def _predictions(
    outputs: Sequence[Tensor], batches: Sequence[Batch]
) -> Iterator[tuple[Float[Tensor, "P V"], Int[Tensor, " P"]]]:
    """Yield the logits of each position whose next token is real, and that token."""
    for logits, batch in zip(outputs, batches, strict=True):
        if IDS not in batch:
            return
        predicts = _predicting(logits, batch)
        yield logits[:, :-1][predicts], batch[IDS].to(logits.device)[:, 1:][predicts]
