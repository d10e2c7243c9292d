"""Laws of every quantiser: inherit the suite and say which quantiser and format it is for."""

from abc import ABC, abstractmethod

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Bool, Float32
from numpy import ndarray

from mpsearch.core.formats import Granularity, TensorFormat
from mpsearch.quant.quantizer import AbstractQuantizer

_GROUP = 4
MATRICES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.sampled_from((_GROUP, 2 * _GROUP))),
    # Far from overflow and from denormals, where a relative error means nothing.
    elements=st.floats(-1e6, 1e6, width=32).filter(lambda value: abs(value) > 1e-20 or value == 0),  # noqa: PLR2004 - as said above
)
# Each suite that inherits a law is an executor of its own; laws keep no state between them.
# A busy machine is no broken law, so there is no deadline.
LAW = settings(suppress_health_check=[HealthCheck.differing_executors], deadline=None)
# One rounding of code x scale, one of the scale: two units in the last place.
_ROUNDING = 2.0**-22


class QuantizerLaws(ABC):
    """What storing a weight must keep true, whatever the kind of number."""

    @abstractmethod
    def quantizer(self) -> AbstractQuantizer:
        """Return the quantiser under test."""

    @abstractmethod
    def numbers(self) -> tuple[TensorFormat, ...]:
        """Return the formats that it must store; GROUP formats with groups of 4."""

    @abstractmethod
    def largest_step(
        self, weight: Float32[ndarray, "..."], number: TensorFormat
    ) -> Float32[ndarray, "..."]:
        """Return the distance between neighbouring codes at each number of `weight`."""

    def loses_an_end(
        self, weight: Float32[ndarray, "O I"], number: TensorFormat
    ) -> Bool[ndarray, "O I"]:
        """Return where storing narrows the range, so that storing again sees another; nowhere."""
        del number
        return np.zeros(weight.shape, dtype=bool)

    @LAW
    @given(weight=MATRICES)
    def test_storing_twice_equals_storing_once(self, weight: Float32[ndarray, "O I"]) -> None:
        for number in self.numbers():
            once = self._stored(weight, number)
            settled = ~self.loses_an_end(weight, number)
            twice = self._stored(once, number)
            np.testing.assert_allclose(twice[settled], once[settled], rtol=_ROUNDING, atol=0)

    @LAW
    @given(weight=MATRICES)
    def test_the_error_is_at_most_half_a_step(self, weight: Float32[ndarray, "O I"]) -> None:
        for number in self.numbers():
            error = np.abs(self._stored(weight, number) - weight)
            step = self.largest_step(weight, number)
            assert (error <= step / 2 + _ROUNDING * np.abs(weight).max()).all()

    @LAW
    @given(weight=MATRICES)
    def test_order_is_kept_within_a_row(self, weight: Float32[ndarray, "O I"]) -> None:
        for number in self.numbers():
            if number.granularity is Granularity.GROUP:
                continue  # Scales change within a row; order holds within a group only.
            stored = self._stored(weight, number)
            order = np.argsort(weight, axis=1, kind="stable")
            assert (np.diff(np.take_along_axis(stored, order, axis=1), axis=1) >= 0).all()

    @LAW
    @given(weight=MATRICES)
    def test_zero_stays_zero_and_signs_stay(self, weight: Float32[ndarray, "O I"]) -> None:
        for number in self.numbers():
            stored = self._stored(weight, number)
            assert (stored[weight == 0] == 0).all()
            assert (stored * weight >= 0).all()

    @LAW
    @given(weight=MATRICES)
    def test_an_opposite_weight_is_stored_opposite(self, weight: Float32[ndarray, "O I"]) -> None:
        for number in self.numbers():
            np.testing.assert_array_equal(
                self._stored(-weight, number), -self._stored(weight, number)
            )

    def test_zero_and_constant_rows_stay_as_they_are(self) -> None:
        weight = np.zeros((3, 2 * _GROUP), dtype=np.float32)
        weight[1], weight[2] = 0.75, -3.0  # exact in bfloat16 too
        for number in self.numbers():
            if number.granularity is Granularity.TENSOR and number.kind == "integer":
                continue  # One scale serves different rows, so only the largest is exact.
            stored = self._stored(weight, number)
            np.testing.assert_allclose(stored, weight, rtol=_ROUNDING, atol=0)

    @LAW
    @given(weight=MATRICES)
    def test_the_argument_is_left_alone(self, weight: Float32[ndarray, "O I"]) -> None:
        before = weight.copy()
        for number in self.numbers():
            stored = self._stored(weight, number)
            stored += 1
            np.testing.assert_array_equal(weight, before)

    def _stored(
        self, weight: Float32[ndarray, "O I"], number: TensorFormat
    ) -> Float32[ndarray, "O I"]:
        return self.quantizer().fake_quantise(weight, number)
