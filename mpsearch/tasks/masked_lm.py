"""Masked language models: logits of the tokens that were hidden."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mpsearch.tasks.collate import IGNORED
from mpsearch.tasks.cross_entropy import checked_classes, token_loss
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import labels_of
from mpsearch.tasks.token_logits import AbstractTokenLogits


@final
@dataclass(frozen=True, kw_only=True)
class MaskedLm(AbstractTokenLogits):
    """Fidelity counts every real token; quality those whose label is no -100, as they were hidden.

    `masked_perplexity` is exp of the mean surprise at hidden tokens (Devlin et al., 2019).
    """

    name: ClassVar[str] = "masked_lm"

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        labels = labels_of(batch)
        if labels is None:
            return None
        tokens = checked_classes(labels, outputs, shape=outputs.shape[:2])
        return token_loss(outputs, tokens, counts=tokens != IGNORED)

    def _quality(self, outputs: Sequence[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
        surprise, right, count = 0.0, 0, 0
        for logits, tokens, hidden in _hidden(outputs, batches):
            log_probability = nn.functional.log_softmax(logits[hidden].double(), dim=1)
            surprise -= float(log_probability.gather(1, tokens[hidden][:, None]).sum())
            right += int((logits[hidden].argmax(dim=1) == tokens[hidden]).sum())
            count += int(hidden.sum())
        if count == 0:
            return {}
        return {"masked_perplexity": math.exp(surprise / count), "masked_accuracy": right / count}

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        """Weigh each text by its hidden tokens, so that their mean is the mean over these."""
        right, count = [], []
        for logits, tokens, hidden in _hidden(outputs, batches):
            hits = logits.argmax(dim=2) == tokens
            right.append((hits & hidden).double().sum(dim=1))
            count.append(hidden.double().sum(dim=1))
        if not count or not float(torch.cat(count).sum()):
            return {}
        return {"masked_accuracy": torch.cat(right) / torch.cat(count).mean()}


def _hidden(
    outputs: Sequence[Tensor], batches: Sequence[Batch]
) -> Iterator[tuple[Float[Tensor, "S T V"], Int[Tensor, "S T"], Bool[Tensor, "S T"]]]:
    """Yield logits, the tokens that were there, and where they were hidden; none unlabelled."""
    if any(labels_of(batch) is None for batch in batches):
        return
    for logits, batch in zip(outputs, batches, strict=True):
        tokens = labels_of(batch)
        assert tokens is not None
        there = checked_classes(tokens, logits, shape=logits.shape[:2])
        yield logits, there, there != IGNORED
