"""How far two outputs are apart in what the task is about: predictions or directions."""

from collections.abc import Iterable, Mapping
from typing import Final, final

import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor, nn

from mpsearch.tasks import AbstractTask, Batch
from mpsearch.tasks.task import valid_positions

# Tasks whose outputs are logits, and how many dimensions they have where positions are masked.
_OF_LOGITS: Final = frozenset({"classification", "causal_lm"})
_SEQUENCES: Final = 3
# On CIFAR-10's training images a ResNet-20 hesitates between 1.03 classes at 1, 1.74 at 4; of
# 1, 2, 4 and 8 there, 4 ranked plans best over budgets from 3 to 4 bits (docs/decisions/0010).
_TEMPERATURES: Final = (1.0, 2.0, 4.0)
_CLASSES_IN_DOUBT: Final = 1.5


def divergence_unit(task: AbstractTask) -> str:
    """Return what `Divergence` is measured in."""
    return "nats" if task.name in _OF_LOGITS else "squared output error per sample"


def divergence_of(loss: float, *, fidelity: Mapping[str, float]) -> float:
    """Return the divergence out of measured quality: the KL where the task has one.

    Of unit vectors the squared error is twice the cosine distance, so it orders plans alike.
    """
    return fidelity.get("kl", loss)


def temperature_of(task: AbstractTask, references: Iterable[Tensor]) -> float:
    """Return by what logits are divided, so that divergences tell plans apart.

    On data that a model was trained on it is so sure of itself that most damage does not
    show. The least of a few temperatures is taken at which its predictions hesitate between
    enough classes: exp(mean entropy). Source of the idea: Hinton, Vinyals, Dean (2015),
    "Distilling the knowledge in a neural network".
    """
    if task.name not in _OF_LOGITS:
        return 1.0
    logits = torch.cat([each.reshape(-1, each.shape[-1]) for each in references])
    for temperature in _TEMPERATURES:
        log = nn.functional.log_softmax(logits / temperature, dim=1)
        entropy = -(log.exp() * log).sum(dim=1).mean()
        if float(entropy.exp()) >= _CLASSES_IN_DOUBT:
            return temperature
    return _TEMPERATURES[-1]


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
        if task.name not in _OF_LOGITS:
            return
        self._log_full = nn.functional.log_softmax(reference / temperature, dim=-1)
        self._full = self._log_full.exp()
        if reference.ndim == _SEQUENCES:
            mask = valid_positions(batch, like=reference)
            self._weight = mask / mask.sum(dim=1, keepdim=True).clamp(min=1.0)

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
