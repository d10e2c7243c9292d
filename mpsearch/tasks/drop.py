"""How far a measure fell, with a bound that holds with 95 % confidence, sample by sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.errors import DataError, MeasurementError

CONFIDENCE: Final = 0.95
_EACH_SIDE: Final = 0.975  # of a two-sided interval of 95 %
# Beyond this many samples a number needed is of no help to anyone.
_MOST_SAMPLES: Final = 10**9
_NUDGE: Final = 1e-12


@final
@dataclass(frozen=True, kw_only=True)
class DropBound:
    """Lose at most `bound` of `measure`, in its own unit.

    `measure` None means the first labelled one that the data allows, else a label-free one.
    """

    bound: float
    measure: str | None = None

    def differences(
        self, found: Mapping[str, Float[ndarray, " N"]]
    ) -> tuple[str, Float[ndarray, " N"]]:
        """Return the measure's name and its differences out of all that were found.

        Raises:
            DataError: The data gives no such measure.
        """
        name = next(iter(found), "") if self.measure is None else self.measure
        if name not in found:
            raise DataError(
                f"The validation data gives no measure {self.measure or 'at all'!r}. Expected one "
                f"of {', '.join(found) or 'none that this task has'}. Name one of them, or add "
                "labels to the data."
            )
        return name, found[name]


@final
@dataclass(frozen=True, kw_only=True)
class Drop:
    """By how much a measure is lower than full precision's, in its own unit; gains are negative.

    `upper` is not exceeded by the true drop with 95 % confidence, one-sided.
    """

    measure: str
    mean: float
    upper: float
    samples: int

    def holds(self, bound: float) -> bool:
        """Return whether the drop is at most `bound`, with 95 % confidence."""
        return self.upper <= bound


def drop_of(differences: Float[ndarray, " N"], *, measure: str) -> Drop:
    """Return the drop of a measure from each sample's full precision - quantised.

    Args:
        differences: One number per sample, in the measure's unit.
        measure: Name of the measure.

    Raises:
        MeasurementError: There are fewer than two samples, or one is not finite.
    """
    if len(differences) <= 1 or not bool(np.isfinite(differences).all()):
        raise MeasurementError(
            f"The drop of {measure!r} was asked for {len(differences)} samples, "
            f"{int((~np.isfinite(differences)).sum())} of them not finite. Expected at least two "
            "finite ones. Give more samples."
        )
    return Drop(
        measure=measure,
        mean=float(differences.mean()),
        upper=_upper(differences, samples=len(differences)),
        samples=len(differences),
    )


def interval_of_drop(differences: Float[ndarray, " N"]) -> tuple[float, float]:
    """Return the two-sided 95 % confidence interval of a drop; see `drop_of`.

    Paired by sample, so what full precision and the plan get wrong alike does not widen it.
    It does not shrink to nothing where no sample changed.

    Example:
        >>> low, high = interval_of_drop(np.zeros(100))
        >>> -low == high > 0.01
        True
    """
    count = len(differences)
    high = _upper(differences, samples=count, confidence=_EACH_SIDE)
    return -_upper(-differences, samples=count, confidence=_EACH_SIDE), high


def samples_needed(differences: Float[ndarray, " N"], *, bound: float) -> int | None:
    """Return with how many samples like these a drop of at most `bound` could be certified.

    None where the mean drop itself is beyond the bound: then more samples do not help.
    """
    if float(differences.mean()) >= bound:
        return None
    low, high = 1, 2
    while high < _MOST_SAMPLES and _upper(differences, samples=high) > bound:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _upper(differences, samples=middle) > bound:
            low = middle
        else:
            high = middle
    return high


def _upper(
    differences: Float[ndarray, " N"], *, samples: int, confidence: float = CONFIDENCE
) -> float:
    """Return the upper bound as if there were `samples` of this kind."""
    if bool(np.isin(differences, (-1.0, 0.0, 1.0)).all()):
        share = samples / len(differences)
        lost = share * float((differences > 0).sum())
        gained = share * float((differences < 0).sum())
        return _score_upper(lost, gained=gained, samples=samples, confidence=confidence)
    # Loaded here and below: it takes longer than all of numpy, and few ask for a bound.
    from scipy.stats import t

    reach = float(t.ppf(confidence, max(samples - 1, 1))) * float(differences.std(ddof=1))
    return float(differences.mean()) + reach / math.sqrt(samples)


def _score_upper(lost: float, *, gained: float, samples: int, confidence: float) -> float:
    """Return the largest difference of paired shares that a score test does not refuse.

    Unlike a normal interval it does not shrink to nothing where no sample changed.
    Source: Tango (1998), Statistics in Medicine 17, 891-908, equations 4 to 8.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    reach = float(norm.ppf(confidence))

    def excess(difference: float) -> float:
        linear = -lost - gained + (2 * samples - lost + gained) * difference
        constant = -gained * difference * (1 - difference)
        rate = (math.sqrt(linear**2 - 8 * samples * constant) - linear) / (4 * samples)
        deviation = math.sqrt(samples * (2 * rate + difference * (1 - difference)))
        # Without the division it is finite where nothing may vary: at no change, and at all.
        return samples * difference - (lost - gained) - reach * deviation

    mean = (lost - gained) / samples
    # A bound of 1 cannot be refused; below it, the score grows with the difference.
    return 1.0 if lost >= samples else float(brentq(excess, mean + _NUDGE, 1.0))
