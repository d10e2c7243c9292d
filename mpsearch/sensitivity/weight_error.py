"""Squared error of the weights: no data, no forward pass."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from mpsearch.sensitivity.metric import AbstractMetric
from mpsearch.sensitivity.request import Measurement, Request, Work
from mpsearch.sensitivity.weight_errors import weight_errors


@final
@dataclass(frozen=True, kw_only=True)
class WeightError(AbstractMetric):
    """|W - stored W|^2 of the layer, or its share of |W|^2 with `is_relative`.

    What a format does to the layer's input is not seen. Nothing is sampled, so standard
    errors are zero.
    """

    name: ClassVar[str] = "weight_error"
    unit: ClassVar[str] = "squared weight error"
    revision: ClassVar[int] = 1

    is_relative: bool = False

    def _measure(self, request: Request) -> Measurement:
        loss = weight_errors(request, is_relative=self.is_relative)
        pairs = sum(map(len, request.pairs.values()))
        return Measurement(
            loss=loss,
            stderr=np.where(np.isnan(loss), np.nan, 0.0),
            samples=0,
            work=Work(measured_pairs=pairs),
        )
