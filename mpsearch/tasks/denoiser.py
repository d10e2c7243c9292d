"""Diffusion denoisers: a prediction of noise, velocity or sample, shaped like the input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor

from mpsearch.errors import DataError
from mpsearch.tasks.dataset import Batch
from mpsearch.tasks.decibels import decibels
from mpsearch.tasks.task import AbstractTask, labels_of

_FEWEST_DIMENSIONS: Final = 2
_TINY: Final = 1e-30  # of a label without any power


@final
@dataclass(frozen=True, kw_only=True)
class Denoiser(AbstractTask):
    """One call of a denoiser is a sample: its noisy input, its step, what conditions it.

    Fidelity is the signal-to-quantisation-noise ratio of what is predicted, in dB, 100 at
    most (as Practical Mixed Precision takes it: Pandey et al., 2023). Where labels hold what the
    network was trained to predict, quality is the share of it that is explained,
    1 - |label - output|^2 / |label|^2.
    """

    name: ClassVar[str] = "denoiser"

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Tensor:  # noqa: ARG002 - no mask
        if tensor.ndim < _FEWEST_DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected a prediction "
                "shaped like the noisy sample. Choose another task, or pass a callable."
            )
        return tensor

    def _positions(self, outputs: Tensor, batch: Batch) -> Float[Tensor, " S"]:  # noqa: ARG002 - no mask
        return torch.full(
            (len(outputs),), float(outputs[0].numel()), dtype=torch.float64, device=outputs.device
        )

    def _fidelity(
        self,
        reference: Sequence[Tensor],
        outputs: Sequence[Tensor],
        *,
        batches: Sequence[Batch],  # noqa: ARG002 - needs no labels
    ) -> dict[str, Tensor]:
        found = [
            decibels(_power(full), _power(other.double() - full.double()))
            for full, other in zip(reference, outputs, strict=True)
        ]
        return {"sqnr": torch.cat(found)}

    def _quality_samples(
        self, outputs: Sequence[Tensor], batches: Sequence[Batch]
    ) -> dict[str, Tensor]:
        labels = [labels_of(batch) for batch in batches]
        if not labels or any(label is None for label in labels):
            return {}
        found = []
        for output, label in zip(outputs, labels, strict=True):
            assert label is not None
            if label.shape != output.shape:
                raise DataError(
                    f"The labels have the shape {tuple(label.shape)}, the output "
                    f"{tuple(output.shape)}. Expected both alike. Give the noise that was added."
                )
            wanted = label.to(output.device).double()
            found.append(1 - _power(output.double() - wanted) / _power(wanted).clamp(min=_TINY))
        return {"explained": torch.cat(found)}


def _power(tensor: Tensor) -> Float[Tensor, " S"]:
    return tensor.double().flatten(start_dim=1).square().sum(dim=1)
