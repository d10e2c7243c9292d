"""What a task loses per sample: against labels, and against its own full-precision output."""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from mpsearch.errors import DataError
from mpsearch.tasks import AbstractTask, Batch
from mpsearch.tasks.causal_lm import CausalLm
from mpsearch.tasks.classification import Classification
from mpsearch.tasks.collate import IDS
from mpsearch.tasks.predictions import kl_divergence
from mpsearch.tasks.task import labels_of, valid_positions

_IGNORED: Final = -100  # as torch's losses do


def has_distribution(task: AbstractTask) -> bool:
    """Return whether the task's outputs are logits over classes or tokens."""
    return isinstance(task, Classification | CausalLm)


def positions(
    task: AbstractTask, outputs: Float[Tensor, "S ..."], *, batch: Batch
) -> Float[Tensor, " S"]:
    """Return by how many positions the task divides each sample's squared error."""
    ones = torch.ones_like(outputs)
    error = task.squared_error(torch.zeros_like(outputs), ones, batch)
    return (outputs[0].numel() / error).float()


def divergence(
    task: AbstractTask,
    *,
    reference: Float[Tensor, "S ..."],
    outputs: Float[Tensor, "S ..."],
    batch: Batch,
) -> Float[Tensor, " S"]:
    """Return KL(reference || outputs) of each sample in nats, a mean over positions.

    Outputs that are no logits count as means of normal distributions of unit variance,
    whose divergence is half the squared error.
    """
    if not has_distribution(task):
        return task.squared_error(reference, outputs, batch) / 2
    each = kl_divergence(reference, outputs).reshape(len(outputs), -1)
    return each.sum(dim=1) / positions(task, outputs, batch=batch)


def labelled_loss(
    task: AbstractTask, outputs: Float[Tensor, "S ..."], *, batch: Batch
) -> Float[Tensor, " S"] | None:
    """Return each sample's loss against its labels, or None where there are none that fit.

    Cross-entropy of classes and of next tokens (the text is its own label, mean over
    predictions); half the squared error where labels have the shape of the outputs.

    Raises:
        DataError: Labels of classes or tokens have another shape or range than the logits.
    """
    labels = labels_of(batch)
    if isinstance(task, CausalLm):
        tokens = batch.get(IDS) if labels is None else labels
        return None if tokens is None else _next_token_loss(outputs, tokens, batch=batch)
    if labels is None:
        return None
    if isinstance(task, Classification):
        classes = _classes(labels, outputs, shape=outputs.shape[:1])
        return functional.cross_entropy(outputs.double(), classes, reduction="none")
    if labels.shape != outputs.shape:
        return None
    return task.squared_error(labels.to(outputs), outputs, batch) / 2


def likeliest_loss(
    task: AbstractTask, outputs: Float[Tensor, "S ..."], *, batch: Batch
) -> Float[Tensor, " S"] | None:
    """Return the cross-entropy against the model's own likeliest classes, if it has such."""
    if not has_distribution(task):
        return None
    logits = outputs.double().flatten(end_dim=-2)
    each = functional.cross_entropy(logits, logits.argmax(dim=1), reduction="none")
    if isinstance(task, CausalLm):
        each = each * valid_positions(batch, like=outputs).flatten()
    return each.reshape(len(outputs), -1).sum(dim=1) / positions(task, outputs, batch=batch)


def _next_token_loss(
    logits: Float[Tensor, "S T V"], tokens: Tensor, *, batch: Batch
) -> Float[Tensor, " S"]:
    wanted = _classes(tokens, logits, shape=logits.shape[:2])[:, 1:]
    real = valid_positions(batch, like=logits).bool()
    counts = real[:, :-1] & real[:, 1:] & (wanted != _IGNORED)
    each = functional.cross_entropy(
        logits[:, :-1].double().transpose(1, 2),
        torch.where(counts, wanted, _IGNORED),
        ignore_index=_IGNORED,
        reduction="none",
    )
    return each.sum(dim=1) / counts.sum(dim=1).clamp(min=1)


def _classes(
    labels: Tensor, logits: Float[Tensor, "... C"], *, shape: torch.Size
) -> Int[Tensor, "..."]:
    classes = logits.shape[-1]
    is_whole = not labels.is_floating_point()
    fits = is_whole and labels.shape == shape
    if fits:
        wrong = (labels != _IGNORED) & ((labels < 0) | (labels >= classes))
        fits = not bool(wrong.any())
    if not fits:
        raise DataError(
            f"The labels have the shape {tuple(labels.shape)}, type "
            f"{str(labels.dtype).removeprefix('torch.')} and reach from {labels.min()} to "
            f"{labels.max()}. Expected whole numbers of the shape {tuple(shape)} from 0 to "
            f"{classes - 1}, as the logits have. Correct the labels, or leave them out."
        )
    return labels.to(logits.device).long()
