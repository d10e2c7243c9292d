"""What was promised beside what was measured."""

from dataclasses import dataclass
from typing import final


@final
@dataclass(frozen=True, kw_only=True)
class Verification:
    """One quantity of a plan, predicted and measured on `device`.

    `predicted` is None for a quantity that is only reported. `tolerance` is the largest
    accepted |measured - predicted|, in the same unit; None where nothing was promised.
    `interval` is a 95 % confidence interval of the measured value.
    """

    quantity: str
    unit: str
    measured: float
    predicted: float | None = None
    interval: tuple[float, float] | None = None
    tolerance: float | None = None
    limit: float | None = None
    passed: bool = True
    device: str = ""
    note: str = ""
