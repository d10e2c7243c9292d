"""Causal language models: logits of the next token at every position."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mpsearch.tasks.collate import IDS, IGNORED
from mpsearch.tasks.cross_entropy import checked_classes, token_loss
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import labels_of, valid_positions
from mpsearch.tasks.token_logits import AbstractTokenLogits


@final
@dataclass(frozen=True, kw_only=True)
class CausalLm(AbstractTokenLogits):
    """Predictions at the positions that are no padding; measures are means over these."""

    name: ClassVar[str] = "causal_lm"

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        """The text is its own label unless there are others; the mean is over predictions."""
        labels = labels_of(batch)
        tokens = batch.get(IDS) if labels is None else labels
        if tokens is None:
            return None
        wanted = checked_classes(tokens, outputs, shape=outputs.shape[:2])[:, 1:]
        counts = _predicting(outputs, batch) & (wanted != IGNORED)
        return token_loss(outputs[:, :-1], wanted, counts=counts)

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
