"""How far two outputs are apart in what the task is about: predictions or directions."""

from collections.abc import Mapping
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor, nn

from mpsearch.tasks import AbstractTask, Batch

_SEQUENCES: Final = 3  # dimensions of logits at positions, some of which are masked
# Logits are divided by one of these; larger ones did not rank plans better (decision 0010).
_TEMPERATURES: Final = (1.0, 2.0, 4.0)
# So many samples have to carry a divergence, or such a share of all where samples are few.
_CARRIERS: Final = 20.0
_SHARE_OF_CARRIERS: Final = 0.125


def divergence_unit(task: AbstractTask) -> str:
    """Return what `Divergence` is measured in."""
    return "nats" if task.has_logits else "squared output error per sample"


def divergence_of(loss: float, *, fidelity: Mapping[str, float]) -> float:
    """Return the divergence out of measured quality: the KL where the task has one.

    Of unit vectors the squared error is twice the cosine distance, so it orders plans alike.
    """
    return fidelity.get("kl", loss)


def temperatures_of(task: AbstractTask) -> tuple[float, ...]:
    """Return by what the task's outputs may be divided: only logits are."""
    return _TEMPERATURES if task.has_logits else _TEMPERATURES[:1]


def telling_temperature(losses: Mapping[float, Float64[ndarray, " S"]]) -> float:
    """Return the least temperature at which a divergence is carried by enough samples.

    Where a model is sure of itself, as on data that it was trained on, a handful of samples
    holds nearly all of a plan's divergence, and plans are ranked by chance. Softer
    predictions spread it. How many samples carry it is Kish's effective sample size,
    (sum d)^2 / sum d^2.

    Args:
        losses: Divergences per sample by temperature.

    Example:
        >>> spread, single = np.ones(40), np.eye(40)[0]
        >>> telling_temperature({1.0: spread, 2.0: spread}), telling_temperature(
        ...     {1.0: single, 2.0: spread}
        ... )
        (1.0, 2.0)
    """
    ordered = sorted(losses)
    for temperature in ordered:
        each = losses[temperature]
        wanted = min(_CARRIERS, _SHARE_OF_CARRIERS * len(each))
        if each.sum() ** 2 >= wanted * np.square(each).sum():
            return temperature
    return ordered[-1]


@final
class Divergence:
    """KL(full precision || other) per sample for logits, the squared error for other outputs.

    Of sequences it is the mean over the positions that are no padding. The reference is
    worked on once, so that many plans can be compared with it. Logits are divided by
    `temperature` and the divergence multiplied by its square, which keeps its size.
    """

    def __init__(
        self, task: AbstractTask, *, reference: Tensor, batch: Batch, temperature: float = 1.0
    ) -> None:
        self.reference = reference
        self.temperature = temperature
        self._task = task
        self._batch = batch
        self._weight: Tensor | None = None
        self._log_full: Tensor | None = None
        if not task.has_logits:
            return
        self._log_full = nn.functional.log_softmax(reference / temperature, dim=-1)
        self._full = self._log_full.exp()
        if reference.ndim == _SEQUENCES:
            mask = task.real_positions(batch, like=reference)
            self._weight = mask / mask.sum(dim=1, keepdim=True).clamp(min=1.0)

    def at(self, temperature: float) -> "Divergence":
        """Return the same divergence at another temperature."""
        return Divergence(
            self._task, reference=self.reference, batch=self._batch, temperature=temperature
        )

    def samples(self, outputs: Tensor) -> Float64[ndarray, " S"]:
        """Return one number per sample of `task.outputs`."""
        if self._log_full is None:
            return self.squared(outputs)
        log_other = nn.functional.log_softmax(outputs / self.temperature, dim=-1)
        # Differences first: the two entropies would cancel to noise in single precision.
        apart = (self._full * (self._log_full - log_other)).sum(dim=-1)
        if self._weight is not None:
            apart = (apart * self._weight).sum(dim=1)
        return self.temperature**2 * apart.double().cpu().numpy()

    def of_many(self, outputs: Float[Tensor, "N S C"]) -> Float64[ndarray, " N"]:
        """Return the mean over samples for each of several outputs of rows without masks."""
        if self._log_full is None:
            apart = (outputs - self.reference).square().sum(dim=2)
        else:
            log_other = nn.functional.log_softmax(outputs / self.temperature, dim=2)
            apart = (self._full * (self._log_full - log_other)).sum(dim=2) * self.temperature**2
        return apart.double().mean(dim=1).numpy()

    def squared(self, outputs: Tensor) -> Float64[ndarray, " S"]:
        """Return the task's squared error per sample."""
        with torch.no_grad():
            return self._task.squared_error(self.reference, outputs, self._batch).cpu().numpy()
