"""Losses of logits against labels, with derivatives."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from mpsearch.errors import DataError
from mpsearch.tasks.collate import IGNORED


def class_loss(logits: Float[Tensor, "S C"], labels: Tensor) -> Float[Tensor, " S"]:
    """Return each sample's cross-entropy in nats.

    Raises:
        DataError: Labels are no classes of the logits.
    """
    classes = checked_classes(labels, logits, shape=logits.shape[:1])
    return functional.cross_entropy(logits.double(), classes, reduction="none")


def token_loss(
    logits: Float[Tensor, "S T V"], tokens: Int[Tensor, "S T"], *, counts: Bool[Tensor, "S T"]
) -> Float[Tensor, " S"]:
    """Return each sample's mean cross-entropy in nats over the positions that count."""
    each = functional.cross_entropy(
        logits.double().transpose(1, 2),
        torch.where(counts, tokens, IGNORED),
        ignore_index=IGNORED,
        reduction="none",
    )
    return each.sum(dim=1) / counts.sum(dim=1).clamp(min=1)


def checked_classes(
    labels: Tensor, logits: Float[Tensor, "... C"], *, shape: torch.Size
) -> Int[Tensor, "..."]:
    """Return labels as whole numbers beside the logits; -100 is a label that does not count.

    Raises:
        DataError: They have another shape, or a number that is no class.
    """
    classes = logits.shape[-1]
    is_whole = not labels.is_floating_point()
    fits = is_whole and labels.shape == shape
    if fits:
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= classes))
        fits = not bool(wrong.any())
    if not fits:
        raise DataError(
            f"The labels have the shape {tuple(labels.shape)}, type "
            f"{str(labels.dtype).removeprefix('torch.')} and reach from {labels.min()} to "
            f"{labels.max()}. Expected whole numbers of the shape {tuple(shape)} from 0 to "
            f"{classes - 1}, as the logits have. Correct the labels, or leave them out."
        )
    return labels.to(logits.device).long()
