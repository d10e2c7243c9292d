"""Where a number lies on an axis, in percent of its length, and which ticks the axis has."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

# Values that span more than this factor need a logarithmic axis to be told apart.
_LOG_FROM: Final = 10.0
_MARGIN: Final = 0.06
_TICKS: Final = 5


@final
@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from `low` to `high`, linear or logarithmic."""

    low: float
    high: float
    logarithmic: bool = False

    def percent(self, value: float) -> float:
        """Return the place of a value, 0 at `low` and 100 at `high`, held within the axis."""
        if self.logarithmic:
            low, high = math.log(self.low), math.log(self.high)
            place = math.log(value) if value > 0 else low
        else:
            low, high, place = self.low, self.high, value
        return round(100 * min(max((place - low) / (high - low), 0.0), 1.0), 3)

    def ticks(self) -> tuple[float, ...]:
        """Return round values along the axis."""
        if self.logarithmic:
            return self._powers()
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step)
        return tuple(step * place for place in range(first, math.floor(self.high / step) + 1))

    def _powers(self) -> tuple[float, ...]:
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        stride = max(1, math.ceil((last - first) / _TICKS))
        powers = [10.0**place for place in range(first, last + 1, stride)]
        return tuple(powers) if len(powers) > 1 else (self.low, self.high)


def scale_of(values: Iterable[float], *, from_zero: bool = False, margin: bool = True) -> Scale:
    """Return an axis that holds the finite values, logarithmic where they span decades."""
    finite = [value for value in values if math.isfinite(value)]
    positive = [value for value in finite if value > 0]
    if positive and not from_zero and max(positive) / min(positive) > _LOG_FROM:
        room = (max(positive) / min(positive)) ** (_MARGIN if margin else 0.0)
        return Scale(low=min(positive) / room, high=max(positive) * room, logarithmic=True)
    low = 0.0 if from_zero else min(finite, default=0.0)
    high = max(finite, default=1.0)
    if high <= low:
        spread = abs(high) or 1.0
        return Scale(low=min(low, high - spread), high=high + spread * _MARGIN)
    room = (high - low) * (_MARGIN if margin else 0.0)
    return Scale(low=low if from_zero else low - room, high=high + room)


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(rough))
    return size * next(step for step in (1, 2, 2.5, 5, 10) if step * size >= rough * 0.999)
