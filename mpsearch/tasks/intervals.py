"""Confidence intervals of means over samples."""

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mpsearch.errors import MeasurementError

CONFIDENCE: Final = 0.95


def normal_interval(
    values: Float[ndarray, " N"], *, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return mean -+ z x standard deviation / sqrt(N), with N - 1 in the deviation.

    Raises:
        MeasurementError: There are fewer than two values, or one is not finite.
    """
    _check(values)
    mean = float(values.mean())
    reach = NormalDist().inv_cdf((1 + confidence) / 2) * float(values.std(ddof=1))
    return mean - reach / math.sqrt(len(values)), mean + reach / math.sqrt(len(values))


def bootstrap_interval(
    values: Float[ndarray, " N"],
    *,
    generator: np.random.Generator,
    draws: int = 2000,
    confidence: float = CONFIDENCE,
) -> tuple[float, float]:
    """Return percentiles of the mean of samples drawn again with replacement.

    For shares near 0 or 1 and heavy tails, where a symmetric interval leaves the range.
    Source: Efron (1979), Ann. Statist. 7(1), 1-26.

    Raises:
        MeasurementError: There are fewer than two values, or one is not finite.
    """
    _check(values)
    # Drawing how often each value is taken needs N numbers at a time instead of N x draws.
    shares = np.full(len(values), 1.0 / len(values))
    means = [
        float(generator.multinomial(len(values), shares) @ values) / len(values)
        for _ in range(draws)
    ]
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check(values: Float[ndarray, " N"]) -> None:
    if len(values) <= 1 or not bool(np.isfinite(values).all()):
        raise MeasurementError(
            f"An interval was asked for {len(values)} values, "
            f"{int((~np.isfinite(values)).sum())} of them not finite. Expected at least two "
            "finite ones. Give more samples."
        )
