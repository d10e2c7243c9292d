"""Distances of outputs, against closed forms."""

import numpy as np
import pytest

from mpsearch.errors import MeasurementError
from mpsearch.runtimes import agrees_with_simulation, compare_numbers

_ONE = {"y": np.array([3.0, 4.0])}


def test_equal_outputs_agree_fully_and_so_do_zeros() -> None:
    for outputs in (_ONE, {"y": np.zeros(2)}, {}):
        found = compare_numbers(outputs, outputs)
        assert (found.relative_error, found.cosine) == (0.0, 1.0)


def test_errors_are_relative_to_what_was_expected() -> None:
    found = compare_numbers({"y": np.array([3.0, 4.0])}, {"y": np.array([0.0, 4.0])})
    assert found.relative_error == pytest.approx(3 / 4)
    assert found.cosine == pytest.approx(4 / 5)


def test_several_outputs_count_as_one_vector_in_any_order() -> None:
    found = compare_numbers(
        {"a": np.array([3.0]), "b": np.array([4.0])}, {"b": np.array([4.0]), "a": np.array([0.0])}
    )
    assert found.relative_error == pytest.approx(3 / 4)


def test_nothing_agrees_with_zero_but_zero() -> None:
    found = compare_numbers(_ONE, {"y": np.zeros(2)})
    assert (found.relative_error, found.cosine) == (float("inf"), 0.0)


def test_what_cannot_be_compared_is_refused() -> None:
    for other in ({"z": np.zeros(2)}, {"y": np.zeros(3)}, {"y": np.array([1.0, np.nan])}):
        with pytest.raises(MeasurementError):
            compare_numbers(_ONE, other)
        with pytest.raises(MeasurementError):
            compare_numbers(other, _ONE)


def test_a_run_may_be_as_far_off_as_quantisation_itself() -> None:
    plain = {"y": np.array([10.0, 0.0])}
    simulated = {"y": np.array([10.0, 1.0])}
    for away, passed in ((1.9, True), (2.1, False)):
        found = {"y": np.array([10.0, 1.0 + away])}
        check = agrees_with_simulation(found, simulated=simulated, plain=plain)
        assert check.noise == pytest.approx(0.1)
        assert check.passed is passed, check


def test_without_noise_two_percent_pass() -> None:
    for share, passed in ((0.019, True), (0.021, False)):
        found = {"y": _ONE["y"] * (1 + share)}
        assert agrees_with_simulation(found, simulated=_ONE, plain=_ONE).passed is passed
