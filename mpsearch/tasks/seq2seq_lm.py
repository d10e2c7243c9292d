"""Encoder-decoders: logits of an answer's next token, the answer so far being given."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.causal_lm import CausalLm
from mpsearch.tasks.collate import DECODER_IDS, DECODER_MASK, IDS, MASK
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.task import AbstractTask


@final
@dataclass(frozen=True, kw_only=True)
class Seq2SeqLm(AbstractTask):
    """A causal language model over the answer's tokens, `decoder_input_ids` (teacher forcing).

    Where the answer was padded, `decoder_attention_mask` says so. The answer is its own
    label: each position predicts its next token (Sutskever et al., 2014).
    """

    name: ClassVar[str] = "seq2seq_lm"
    has_logits: ClassVar[bool] = True

    answers: CausalLm = field(default_factory=CausalLm)

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Tensor:
        return self.answers.outputs(tensor, _answer(batch))

    def _positions(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:
        return self.answers._positions(outputs, _answer(batch))  # noqa: SLF001 - a task that delegates to another

    def _real_positions(
        self, batch: Batch, *, like: Float[Tensor, "S T F"]
    ) -> Float[Tensor, "S T"]:
        return self.answers.real_positions(_answer(batch), like=like)

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        return self.answers.labelled_loss(outputs, _answer(batch))

    def _fidelity(
        self, reference: Sequence[Tensor], outputs: Sequence[Tensor], *, batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        return self.answers.fidelity_samples(
            reference, outputs, [_answer(each) for each in batches]
        )

    def _quality(self, outputs: Sequence[Tensor], batches: Sequence[Batch]) -> dict[str, float]:
        return self.answers.quality(outputs, [_answer(each) for each in batches])

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        return self.answers.quality_samples(outputs, [_answer(each) for each in batches])


def _answer(batch: Batch) -> Batch:
    """Return the answer's side of a batch, as a batch of a causal language model."""
    if DECODER_IDS not in batch:
        raise DataError(
            f"The data has the keys {sorted(batch)}. Expected {DECODER_IDS!r}, the tokens of an "
            'answer. Give them, or texts as {"text": "...", "text_target": "..."}.'
        )
    ids = batch[DECODER_IDS]
    return {IDS: ids, MASK: batch.get(DECODER_MASK, torch.ones_like(ids))}
