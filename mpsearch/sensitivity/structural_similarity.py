"""Structural similarity of images before and after, one layer in one format at a time."""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.request import Request
from mpsearch.tasks import Batch

_WINDOW: Final = 7
_STABLE_MEAN: Final = 0.01
_STABLE_CONTRAST: Final = 0.03
_IMAGE_DIMENSIONS: Final = 4  # samples, channels, height, width


@final
@dataclass(frozen=True, kw_only=True)
class StructuralSimilarity(AbstractExactMetric):
    """Mean over samples of 1 - SSIM of the output against full precision's.

    Images (S, C, H, W) are compared in windows of 7 x 7, smaller ones and other outputs as a
    whole. The range of values is that of the full-precision output of the sample.
    Source: Wang et al. (2004), IEEE Trans. Image Processing 13(4), equation 13, with uniform
    windows and sample covariances.
    """

    name: ClassVar[str] = "structural_similarity"
    unit: ClassVar[str] = "1 - SSIM per sample"
    revision: ClassVar[int] = 1

    def _samples(
        self,
        request: Request,  # noqa: ARG002 - the images say all
        *,
        reference: Tensor,
        outputs: Tensor,
        batch: Batch,  # noqa: ARG002 - masked positions are zeros
    ) -> Float[Tensor, "S 1"]:
        return 1.0 - structural_similarity(reference, outputs)[:, None]


def structural_similarity(
    full: Float[Tensor, "S ..."], other: Float[Tensor, "S ..."]
) -> Float[Tensor, " S"]:
    """Return SSIM per sample, 1 where both are the same."""
    full, other = full.double(), other.double()
    rows = full.flatten(start_dim=1)
    span = (rows.amax(dim=1) - rows.amin(dim=1)).clamp_min(torch.finfo(torch.float32).tiny)
    is_image = full.ndim == _IMAGE_DIMENSIONS and min(full.shape[2:]) >= _WINDOW
    if not is_image:
        full, other = (each.flatten(start_dim=1)[:, None, None] for each in (full, other))
    count = _WINDOW**2 if is_image else rows.shape[1]

    def mean(values: Tensor) -> Tensor:
        if is_image:
            return functional.avg_pool2d(values, _WINDOW, stride=1)
        return values.mean(dim=3, keepdim=True)

    sample = count / max(count - 1, 1)
    mean_full, mean_other = mean(full), mean(other)
    spread_full = sample * (mean(full**2) - mean_full**2)
    spread_other = sample * (mean(other**2) - mean_other**2)
    together = sample * (mean(full * other) - mean_full * mean_other)
    low, high = ((k * span[:, None, None, None]) ** 2 for k in (_STABLE_MEAN, _STABLE_CONTRAST))
    similarity = (2 * mean_full * mean_other + low) * (2 * together + high)
    similarity = similarity / (
        (mean_full**2 + mean_other**2 + low) * (spread_full + spread_other + high)
    )
    return similarity.flatten(start_dim=1).mean(dim=1)
