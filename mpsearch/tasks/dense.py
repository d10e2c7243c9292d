"""Dense outputs: a number at every place, as in super-resolution, denoised images and depth."""

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

_FEWEST_DIMENSIONS: Final = 3  # samples and at least two more
_BYTE: Final = 255.0


@final
@dataclass(frozen=True, kw_only=True)
class Dense(AbstractTask):
    """Peak signal-to-noise ratio, against full precision, and against labels of the same shape.

    PSNR = 10 log10(peak^2 / mean squared error) in dB, 100 at most (Huynh-Thu and Ghanbari,
    2008). `peak` is the largest value that a signal can have: by default that of the label's
    type, 255 for whole numbers and 1 for others; against full precision, the range of its
    own output, sample by sample.
    """

    name: ClassVar[str] = "dense"

    peak: float | None = None

    def _outputs(self, tensor: Float[Tensor, "S ..."], batch: Batch) -> Tensor:  # noqa: ARG002 - no mask
        if tensor.ndim < _FEWEST_DIMENSIONS:
            raise DataError(
                f"The model's output has the shape {tuple(tensor.shape)}. Expected a number at "
                "every place, such as (samples, channels, height, width). Choose another task."
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
        found = []
        for full, other in zip(reference, outputs, strict=True):
            rows = full.double().flatten(start_dim=1)
            wide = rows.amax(dim=1) - rows.amin(dim=1)
            peak = wide if self.peak is None else torch.full_like(wide, self.peak)
            error = (other.double().flatten(start_dim=1) - rows).square().mean(dim=1)
            found.append(decibels(peak.square(), error))
        return {"psnr": torch.cat(found)}

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
                    f"{tuple(output.shape)}. Expected both alike. Give the picture that is wanted."
                )
            peak = self.peak or (1.0 if label.is_floating_point() else _BYTE)
            apart = output.double() - label.to(output.device).double()
            error = apart.flatten(start_dim=1).square().mean(dim=1)
            found.append(decibels(torch.full_like(error, peak**2), error))
        return {"labelled_psnr": torch.cat(found)}
