"""The contract of a kind of number: what a weight becomes when it is stored in it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray

from mpsearch.core.formats import TensorFormat
from mpsearch.errors import FormatError, ModelError


@dataclass(frozen=True, kw_only=True)
class AbstractQuantizer(ABC):
    """Store a weight in a kind of number (`TensorFormat.kind`) and read it back."""

    @final
    def fake_quantise(
        self,
        weight: Float[ndarray, "..."],
        number: TensorFormat,
        *,
        axis: int = 0,
        name: str = "weight",
    ) -> Float32[ndarray, "..."]:
        """Return the float32 values that a weight has after it was stored as `number`.

        Args:
            weight: Any shape; finite.
            number: A format of this kind.
            axis: The axis of output channels.
            name: What messages call the weight.

        Raises:
            ModelError: The weight holds NaN or infinity, or leaves the range of the format.
            FormatError: The format does not fit this kind of number or this shape.
        """
        stored = self._fake_quantise(as_finite_float32(weight, name), number, axis=axis, name=name)
        if not bool(np.isfinite(stored).all()):
            raise ModelError(
                f"Tensor {name!r} reaches {np.abs(weight).max():.3g}, beyond the largest number of "
                f"{number.bits} bits. Expected smaller weights. Keep this layer in fp32."
            )
        return stored

    @abstractmethod
    def _fake_quantise(
        self, weight: Float32[ndarray, "..."], number: TensorFormat, *, axis: int, name: str
    ) -> Float32[ndarray, "..."]: ...


def as_finite_float32(values: Float[ndarray, "..."], name: str) -> Float32[ndarray, "..."]:
    """Return `values` as float32.

    Raises:
        ModelError: They hold NaN or infinity.
    """
    converted: ndarray = np.asarray(values, dtype=np.float32)
    finite = np.isfinite(converted)
    if not bool(finite.all()):
        raise ModelError(
            f"Tensor {name!r} holds {int((~finite).sum())} numbers of {converted.size} that are "
            "NaN or infinite. Expected finite numbers. Repair the weights, or load the model again."
        )
    return converted


def check_kind(number: TensorFormat, *, kind: str, bits: frozenset[int]) -> None:
    """Refuse a format of another kind or width.

    Raises:
        FormatError: The kind or the number of bits is another.
    """
    if number.kind != kind or number.bits not in bits:
        raise FormatError(
            f"A weight cannot be stored as {number.kind} of {number.bits} bits here. Expected "
            f"{kind} of {', '.join(map(str, sorted(bits)))} bits. Choose a format of core/formats."
        )
