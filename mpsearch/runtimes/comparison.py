"""How far the outputs of a built plan are from those it should have."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy import ndarray

from mpsearch.errors import MeasurementError


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


def _flat(outputs: Mapping[str, ndarray], order: Mapping[str, ndarray]) -> ndarray:
    parts = [np.asarray(outputs[name], dtype=np.float64).ravel() for name in order]
    return np.concatenate(parts) if parts else np.zeros(0)
