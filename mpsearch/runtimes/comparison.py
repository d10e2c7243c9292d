"""How far the outputs of a built plan are from those it should have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy import ndarray

from mpsearch.errors import MeasurementError

_MOST_NOISES: Final = 2.0
_FLOOR: Final = 0.02  # bf16 alone differs from its simulation by 1 %


@final
@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Over all numbers of all outputs: relative error |a - b| / |b|, and cosine of a and b."""

    relative_error: float
    cosine: float


def compare_numbers(found: Mapping[str, ndarray], expected: Mapping[str, ndarray]) -> Agreement:
    """Compare outputs of one run with what they should be.

    Both zero everywhere agree fully. Euclidean norms, in float64.

    Raises:
        MeasurementError: Names or shapes differ, or a number is not finite.

    Example:
        >>> compare_numbers({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 5.0])}).cosine < 1
        True
    """
    shapes = {name: array.shape for name, array in found.items()}
    wanted = {name: array.shape for name, array in expected.items()}
    if shapes != wanted:
        raise MeasurementError(
            f"The outputs are {shapes}. Expected {wanted}. Compare runs of the same model and "
            "inputs."
        )
    a = _flat(found, found)
    b = _flat(expected, found)
    for name, array in (("found", a), ("expected", b)):
        if not np.isfinite(array).all():
            raise MeasurementError(
                f"{np.count_nonzero(~np.isfinite(array))} of {array.size} numbers {name} are NaN "
                "or infinite. Expected finite numbers. Check the model's weights and the inputs."
            )
    difference, length_a, length_b = (float(np.linalg.norm(v)) for v in (a - b, a, b))
    if difference == 0:
        return Agreement(relative_error=0.0, cosine=1.0)
    return Agreement(
        relative_error=difference / length_b if length_b else float("inf"),
        cosine=float(a @ b) / (length_a * length_b) if length_a and length_b else 0.0,
    )


@final
@dataclass(frozen=True, kw_only=True)
class NoiseCheck:
    """A run beside its simulation, in units of the noise that quantisation itself makes.

    `error` is |run - simulation| / |simulation|, `noise` is |simulation - plain| / |plain|.
    """

    error: float
    noise: float

    @property
    def limit(self) -> float:
        """Return the largest error that noise explains."""
        return max(_FLOOR, _MOST_NOISES * self.noise)

    @property
    def passed(self) -> bool:
        """Return whether noise explains the error."""
        return self.error <= self.limit


def agrees_with_simulation(
    found: Mapping[str, ndarray],
    *,
    simulated: Mapping[str, ndarray],
    plain: Mapping[str, ndarray],
) -> NoiseCheck:
    """Tell a wrong runtime from rounding: is the run as close as quantisation allows?

    A sum in another order moves some input codes by one, and in a deep network the two runs
    then differ like two draws of the quantisation noise: by the square root of 2 times the
    noise where nothing is shared. Twice the noise, or 2 % where there is hardly any, passes.

    Args:
        found: Outputs of the built plan.
        simulated: Outputs of its simulation.
        plain: Outputs of the fp32 model, on the same inputs.

    Raises:
        MeasurementError: As `compare_numbers`.
    """
    error = compare_numbers(found, simulated).relative_error
    noise = compare_numbers(simulated, plain).relative_error
    return NoiseCheck(error=error, noise=noise)


def _flat(outputs: Mapping[str, ndarray], order: Mapping[str, ndarray]) -> ndarray:
    parts = [np.asarray(outputs[name], dtype=np.float64).ravel() for name in order]
    return np.concatenate(parts) if parts else np.zeros(0)
