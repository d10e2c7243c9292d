"""Signal-to-noise ratio of the output, the score that AIMET sorts its list by."""

import math
from dataclasses import dataclass
from typing import ClassVar, Final, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray
from torch import Tensor

from mpsearch.sensitivity.exact_metric import AbstractExactMetric
from mpsearch.sensitivity.request import Measurement, Request, Work, standard_error
from mpsearch.tasks import Batch

_FLOOR: Final = 1e-4  # of the noise, as in AIMET
_DECIBELS: Final = 10.0


@final
@dataclass(frozen=True, kw_only=True)
class SqnrList(AbstractExactMetric):
    """Decibels of signal-to-noise ratio that the format costs.

    SQNR = 10 log10 of the mean over samples of mean(y^2) / (mean((y - y_q)^2) + 1e-4), y the
    output. The loss is that of full precision, which the floor keeps finite, less that of
    the format. Decibels of several layers do not add up: the list built from them is what
    is meant. Source: Practical Mixed Precision, Pandey et al. (2023).
    """

    name: ClassVar[str] = "sqnr_list"
    unit: ClassVar[str] = "dB of output SQNR lost"
    revision: ClassVar[int] = 1
    statistics: ClassVar[int] = 2

    def _samples(
        self,
        request: Request,  # noqa: ARG002 - the published score knows no task
        *,
        reference: Tensor,
        outputs: Tensor,
        batch: Batch,  # noqa: ARG002 - the same
    ) -> Float[Tensor, "S 2"]:
        full, other = (each.double().flatten(start_dim=1) for each in (reference, outputs))
        signal = full.square().mean(dim=1)
        noise = (full - other).square().mean(dim=1)
        return torch.stack([signal / (noise + _FLOOR), signal / _FLOOR], dim=1)

    def _summary(self, values: Float64[ndarray, "S L F K"], *, work: Work) -> Measurement:
        kept, whole = values.mean(axis=0).transpose(2, 0, 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            loss = _DECIBELS * np.log10(whole / kept)
            # By the slopes of both logarithms, sample by sample.
            moved = values[..., 1] / whole - values[..., 0] / kept
        return Measurement(
            loss=loss,
            stderr=_DECIBELS / math.log(10.0) * standard_error(moved),
            samples=len(values),
            work=work,
        )
