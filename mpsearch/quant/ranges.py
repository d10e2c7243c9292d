"""Ranges of activations: what was seen, and which part of it the 256 codes should cover.

Bins are powers of two wide and start at zero, so halving the resolution adds neighbours
exactly: the result does not depend on the order or the size of the batches.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias, final

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64
from numpy import ndarray

from mpsearch.core.plan import ActivationQuantizer
from mpsearch.errors import MeasurementError, UsageError
from mpsearch.quant.integer import ACTIVATION_CODES

# Called with middles and weights of filled bins, and `low` and `high` of the range.
_Objective: TypeAlias = Callable[..., float]

DEFAULT_RANGE_METHOD: Final = "mse"
SMOOTHED: Final = "smoothed"
# Per side of zero; between 16 and 32 bins in one step of 8 bits over the whole range.
_BINS: Final = 8192
_PERCENTILE: Final = 0.9999  # of the numbers stay inside; as TensorRT's entropy-free preset
_SHRINKS: Final = np.linspace(1.0, 0.02, 99)  # a range below 2 % clips what carries the signal
_ROUNDS: Final = 3  # of improving one end at a time; the second rarely changes anything
_MIDDLE_CODE: Final = 128
_SMALLEST_EXPONENT: Final = -100  # of the bin width; keeps widths normal in float32


@final
class RangeObserver:
    """Running minimum, maximum and histogram of the inputs of one layer.

    Merging two observers equals one that saw both. `method` is a key of RANGE_METHODS.
    """

    def __init__(self, *, method: str = DEFAULT_RANGE_METHOD) -> None:
        check_method(method)
        self.method = method
        self.samples = 0
        self.low = math.inf
        self.high = -math.inf
        self.exponent = _SMALLEST_EXPONENT  # bins are 2**exponent wide
        self.counts: Int64[ndarray, " bins"] = np.zeros(2 * _BINS, dtype=np.int64)

    def observe_(self, values: Float[ndarray, "..."], *, samples: int | None = None) -> None:
        """Add the numbers of one batch; `samples` defaults to the length of its first axis.

        Raises:
            MeasurementError: A number is NaN or infinite.
        """
        flat = np.asarray(values, dtype=np.float32).ravel()
        if flat.size == 0:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise MeasurementError(
                f"An activation reaches {low} to {high}. Expected finite numbers. Check the "
                "calibration data and the model's weights for NaN or overflow."
            )
        self.samples += len(values) if samples is None and np.ndim(values) else samples or 0
        self.low, self.high = min(self.low, low), max(self.high, high)
        if self.method != "minmax":
            self._coarsen_(_exponent_for(max(-self.low, self.high)))
            self.counts += _histogram(flat, self.exponent)

    def merge_(self, other: "RangeObserver") -> None:
        """Add everything that `other` has seen."""
        self.samples += other.samples
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._coarsen_(other.exponent)
        self.counts += _coarsened(other.counts, self.exponent - other.exponent)

    def _coarsen_(self, exponent: int) -> None:
        if exponent > self.exponent:
            self.counts = _coarsened(self.counts, exponent - self.exponent)
            self.exponent = exponent


def check_method(method: str) -> None:
    """Refuse a way of finding ranges that is not in RANGE_METHODS.

    Raises:
        UsageError: It is not.
    """
    if method not in RANGE_METHODS:
        raise UsageError(
            f"Range method {method!r} is unknown. Expected one of {', '.join(RANGE_METHODS)}. "
            "Choose one of them."
        )


def activation_quantizer(observer: RangeObserver) -> ActivationQuantizer:
    """Return the 8-bit quantiser of what an observer saw, by its method.

    The range always holds zero, so that zero (padding, ReLU) is exact.

    Raises:
        MeasurementError: Nothing was observed.
    """
    if observer.low > observer.high:
        raise MeasurementError(
            "No activation was observed for a layer. Expected at least one calibration batch that "
            "reaches it. Check that the model runs this layer."
        )
    low, high = RANGE_METHODS[observer.method](observer)
    return quantizer_of_range(low, high, method=observer.method, samples=observer.samples)


def quantizer_of_range(
    low: float, high: float, *, method: str = "given", samples: int = 0
) -> ActivationQuantizer:
    """Return scale = (high - low) / 255 and the zero point that makes zero exact.

    The range is widened to hold zero. Half a step is the largest error inside it.

    Example:
        >>> quantizer_of_range(-1.0, 1.55).zero_point
        100
    """
    low, high = min(low, 0.0), max(high, 0.0)
    # The file stores float32, so the simulation must divide by the same number.
    scale = np.float32((high - low) / ACTIVATION_CODES)
    if scale < np.finfo(np.float32).tiny:
        scale = np.float32(1.0) if low == high else np.finfo(np.float32).tiny
    zero_point = int(np.clip(np.rint(-low / float(scale)), 0, ACTIVATION_CODES))
    return ActivationQuantizer(
        scale=float(scale),
        zero_point=zero_point,
        low=low,
        high=high,
        method=method,
        samples=samples,
    )


def without_offset(found: ActivationQuantizer, *, is_signed: bool) -> ActivationQuantizer:
    """Return the quantiser for an input of a product, whose kernels add no offsets.

    Codes then stand for (code - 128) x scale, the same on both sides of zero; or, unless
    `is_signed`, for code x scale where the range has no negative numbers, as behind a softmax.

    Example:
        >>> wide = without_offset(quantizer_of_range(-1.0, 2.54), is_signed=False)
        >>> round(wide.scale, 4), wide.zero_point
        (0.02, 128)
        >>> without_offset(quantizer_of_range(0.0, 1.0), is_signed=False).zero_point
        0
    """
    if found.low >= 0 and not is_signed:
        return found
    reach = max(-found.low, found.high)
    # 127 codes on each side; the one below them is left over.
    scale = np.float32(2 * reach / (ACTIVATION_CODES - 1))
    smallest = np.finfo(np.float32).tiny
    scale = scale if scale >= smallest else np.float32(1.0 if reach == 0 else smallest)
    return replace(found, scale=float(scale), zero_point=_MIDDLE_CODE)


def _whole_range(observer: RangeObserver) -> tuple[float, float]:
    return observer.low, observer.high


def _percentile_range(observer: RangeObserver) -> tuple[float, float]:
    """Leave half of the outliers' share out at each end."""
    cumulative = np.cumsum(observer.counts)
    outside = (1.0 - _PERCENTILE) / 2.0 * cumulative[-1]
    width = 2.0**observer.exponent
    first = int(np.searchsorted(cumulative, outside, side="right"))
    last = int(np.searchsorted(cumulative, cumulative[-1] - outside, side="left"))
    low, high = (first - _BINS) * width, (last + 1 - _BINS) * width
    return max(low, observer.low), min(high, observer.high)


def _least_squares_range(observer: RangeObserver) -> tuple[float, float]:
    """Take the least squared error of rounding and clipping.

    Numbers of a bin count as its middle. A bin is far narrower than a step, so zeros, which
    are exact, add the same little to every candidate. Idea: Sung et al. (2015), arXiv
    1511.06488; here for two ends that move independently.
    """
    return _shrunk_range(observer, _squared_error)


def _entropy_range(observer: RangeObserver) -> tuple[float, float]:
    """Take the least divergence of the quantised histogram from the clipped one.

    Migacz, "8-bit inference with TensorRT" (2017); here for two ends that move independently.
    """
    return _shrunk_range(observer, _divergence)


def _shrunk_range(observer: RangeObserver, objective: _Objective) -> tuple[float, float]:
    """Shrink each end in turn to where the objective of the filled bins is least."""
    values, weights = _middles(observer)
    lows = np.unique(min(observer.low, 0.0) * _SHRINKS)
    highs = np.unique(max(observer.high, 0.0) * _SHRINKS)[::-1]
    low, high = float(lows[0]), float(highs[0])
    for _ in range(_ROUNDS):
        before = (low, high)
        errors = [objective(values, weights, low=float(end), high=high) for end in lows]
        low = float(lows[int(np.argmin(errors))])
        errors = [objective(values, weights, low=low, high=float(end)) for end in highs]
        high = float(highs[int(np.argmin(errors))])
        if (low, high) == before:
            break
    return low, high


RANGE_METHODS: Final[dict[str, Callable[[RangeObserver], tuple[float, float]]]] = {
    "mse": _least_squares_range,
    "percentile": _percentile_range,
    "entropy": _entropy_range,
    "minmax": _whole_range,
    SMOOTHED: _least_squares_range,  # of channels that were evened out before
}


def _middles(observer: RangeObserver) -> tuple[Float64[ndarray, " N"], Float64[ndarray, " N"]]:
    """Return the middles of filled bins and how many numbers each holds."""
    filled = np.flatnonzero(observer.counts)
    middles = (filled + 0.5 - _BINS) * 2.0**observer.exponent
    return middles, observer.counts[filled].astype(float)


def _squared_error(
    values: Float64[ndarray, " N"], weights: Float64[ndarray, " N"], *, low: float, high: float
) -> float:
    quantizer = quantizer_of_range(low, high)
    steps = np.rint(values / quantizer.scale)
    np.clip(steps, -quantizer.zero_point, ACTIVATION_CODES - quantizer.zero_point, out=steps)
    return float(np.dot(weights, (steps * quantizer.scale - values) ** 2))


def _divergence(
    values: Float64[ndarray, " N"], weights: Float64[ndarray, " N"], *, low: float, high: float
) -> float:
    """Return KL(P || Q) in nats; infinite where nothing lies inside the range.

    P is the histogram with what lies outside added to its end bins. Q spreads what each code
    holds evenly over its filled bins, as the code cannot tell them apart.
    """
    quantizer = quantizer_of_range(low, high)
    steps = np.rint(values / quantizer.scale) + quantizer.zero_point
    inside = np.flatnonzero((steps >= 0) & (steps <= ACTIVATION_CODES))
    if not inside.size:
        return math.inf
    first, last = int(inside[0]), int(inside[-1])
    kept = weights[first : last + 1]
    clipped = kept.copy()
    clipped[0] += weights[:first].sum()
    clipped[-1] += weights[last + 1 :].sum()
    codes = steps[first : last + 1].astype(np.int64)
    mass = np.bincount(codes, weights=kept)
    share = mass[codes] / np.bincount(codes)[codes]
    p, q = clipped / clipped.sum(), share / share.sum()
    return float((p * np.log(p / q)).sum())


def _exponent_for(largest: float) -> int:
    """Return the least exponent whose bins reach beyond `largest`."""
    if largest <= 0.0:
        return _SMALLEST_EXPONENT
    return max(math.frexp(largest / _BINS)[1], _SMALLEST_EXPONENT)


def _histogram(flat: Float32[ndarray, " N"], exponent: int) -> Int64[ndarray, " bins"]:
    # A power of two: the product is exact, so a number falls into one bin at every width.
    scaled = flat * np.float32(2.0**-exponent)
    places = np.floor(scaled).astype(np.int32)
    # Unless it is too small to be told from zero; then it still lies on its side of zero.
    places -= (scaled == 0) & (flat < 0)
    return np.bincount(places + _BINS, minlength=2 * _BINS)


def _coarsened(counts: Int64[ndarray, " bins"], doublings: int) -> Int64[ndarray, " bins"]:
    """Add up 2**doublings neighbours on each side of zero."""
    if doublings <= 0:
        return counts.copy()
    factor = 2 ** min(doublings, int(math.log2(_BINS)))
    kept = _BINS // factor
    merged = counts.reshape(2 * kept, factor).sum(axis=1)
    result = np.zeros_like(counts)
    result[_BINS - kept : _BINS + kept] = merged
    return result
