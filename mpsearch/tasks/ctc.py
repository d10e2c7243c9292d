"""Speech to letters: logits at every frame, whose best path spells the text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IGNORED
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.predictions import agreement, kl_divergence
from mpsearch.tasks.task import AbstractTask, labels_of

_DIMENSIONS: Final = 3  # samples, frames, letters
_TEXTS: Final = 2  # samples, letters


@final
@dataclass(frozen=True, kw_only=True)
class Ctc(AbstractTask):
    """Connectionist temporal classification (Graves et al., 2006); frames have no mask.

    Fidelity compares the frames. Quality is `letter_accuracy`, 1 less the letter error rate of
    the best path (repeats merged, blanks dropped): weighed by the length of each text, so
    that the mean over samples is that over letters. Labels are numbers of letters, -100 where
    a text was padded. `blank` is the number of the letter that stands for none.
    """

    name: ClassVar[str] = "ctc"
    has_logits: ClassVar[bool] = True

    blank: int = 0

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Float[Tensor, "S T V"]:  # noqa: ARG002 - no mask
        if tensor.ndim != _DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected logits of "
                "(samples, frames, letters). Choose another task, or pass a callable."
            )
        return tensor

    def _real_positions(
        self,
        batch: Batch,  # noqa: ARG002 - masks are of samples of sound, not of frames
        *,
        like: Float[Tensor, "S T F"],
    ) -> Float[Tensor, "S T"]:
        return torch.ones(like.shape[:2], device=like.device)

    def _positions(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:  # noqa: ARG002 - no mask
        return torch.full(
            (len(outputs),), float(outputs.shape[1]), dtype=torch.float64, device=outputs.device
        )

    def _labelled_loss(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        """Return the surprise at each text, over all its alignments, per frame."""
        labels = labels_of(batch)
        if labels is None:
            return None
        texts = _checked(labels, outputs).to(outputs.device)
        lengths = (texts != IGNORED).sum(dim=1)
        surprise = torch.nn.functional.ctc_loss(
            outputs.double().log_softmax(dim=2).transpose(0, 1),
            texts.clamp(min=0),
            torch.full_like(lengths, outputs.shape[1]),
            lengths,
            blank=self.blank,
            reduction="none",
            zero_infinity=True,  # a text longer than its frames has no alignment
        )
        return surprise / outputs.shape[1]

    def _fidelity(
        self,
        reference: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        batches: Sequence[Batch],  # noqa: ARG002 - needs no labels
    ) -> dict[str, Tensor]:
        pairs = list(zip(reference, outputs, strict=True))
        return {
            "agreement": torch.cat([agreement(full, other).mean(dim=1) for full, other in pairs]),
            "kl": torch.cat([kl_divergence(full, other).mean(dim=1) for full, other in pairs]),
        }

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        right, letters = [], []
        for logits, batch in zip(outputs, batches, strict=True):
            labels = labels_of(batch)
            if labels is None:
                return {}
            for path, text in zip(logits.argmax(dim=2), _checked(labels, logits), strict=True):
                wanted = text[text != IGNORED].numpy()
                right.append(len(wanted) - edits(self._spelled(path), wanted))
                letters.append(len(wanted))
        if not sum(letters):
            return {}
        weight = sum(letters) / len(letters)
        return {"letter_accuracy": torch.tensor(right, dtype=torch.float64) / weight}

    def _spelled(self, path: Int[Tensor, " T"]) -> ndarray:
        merged = torch.unique_consecutive(path).cpu().numpy()
        spelled: ndarray = merged[merged != self.blank]
        return spelled


def edits(found: ndarray, wanted: ndarray) -> int:
    """Return how many letters to insert, drop or change (Levenshtein, 1966).

    Example:
        >>> edits(np.array([1, 2, 3]), np.array([2, 3, 4]))
        2
    """
    row = np.arange(len(wanted) + 1)
    for letter in found:
        changed = np.minimum(row[1:] + 1, row[:-1] + (wanted != letter))
        fresh = np.concatenate([[row[0] + 1], changed])
        # Insertions run along the row: the least of what stands left, and the way from there.
        places = np.arange(len(fresh))
        row = np.minimum.accumulate(fresh - places) + places
    return int(row[-1])


def _checked(labels: Tensor, logits: Tensor) -> Int[Tensor, "S L"]:
    known = labels[labels != IGNORED]
    is_whole = not labels.is_floating_point()
    inside = is_whole and bool(((known >= 0) & (known < logits.shape[2])).all())
    if labels.ndim != _TEXTS or len(labels) != len(logits) or not inside:
        raise DataError(
            f"The labels have the shape {tuple(labels.shape)} for logits of {tuple(logits.shape)}. "
            "Expected one row of letter numbers per sample, -100 after its end. Mend the labels."
        )
    return labels.cpu().long()
