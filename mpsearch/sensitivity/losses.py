"""What a task loses per sample without labels: against its own full-precision output."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mpsearch.tasks import AbstractTask, Batch
from mpsearch.tasks.predictions import kl_divergence

_SEQUENCES: Final = 3  # dimensions of logits at positions, some of which are masked


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
    if not task.has_logits:
        return task.squared_error(reference, outputs, batch) / 2
    each = kl_divergence(reference, outputs).reshape(len(outputs), -1)
    return each.sum(dim=1) / positions(task, outputs, batch=batch)


def likeliest_loss(
    task: AbstractTask, outputs: Float[Tensor, "S ..."], *, batch: Batch
) -> Float[Tensor, " S"] | None:
    """Return the cross-entropy against the model's own likeliest classes, if it has such."""
    if not task.has_logits:
        return None
    logits = outputs.double().flatten(end_dim=-2)
    each = functional.cross_entropy(logits, logits.argmax(dim=1), reduction="none")
    if outputs.ndim == _SEQUENCES:
        each = each * task.real_positions(batch, like=outputs).flatten()
    return each.reshape(len(outputs), -1).sum(dim=1) / positions(task, outputs, batch=batch)
