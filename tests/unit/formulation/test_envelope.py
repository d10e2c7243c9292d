"""The envelope rises with fewer bits, stays nearest to what was measured, and says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.optimize import minimize

from mpsearch.core.tables import SensitivityTable
from mpsearch.formulation.envelope import monotone_envelope

FORMATS = ("w2", "w4", "w8a8", "w3", "w8", "w4g128", "fp32")
RISING = [4, 1, 3, 0]  # columns of w8, w4, w3, w2
LOSSES = npst.arrays(np.float64, (2, len(FORMATS)), elements=st.floats(0, 10))


def _table(loss: np.ndarray, stderr: np.ndarray | None = None) -> SensitivityTable:
    return SensitivityTable(
        layers=tuple(f"layer.{row}" for row in range(len(loss))),
        formats=FORMATS,
        loss=loss,
        stderr=np.full(loss.shape, np.nan) if stderr is None else stderr,
        metric="output_error",
        unit="squared error",
    )


@given(LOSSES)
def test_losses_rise_with_fewer_bits_and_other_kinds_stay(loss: np.ndarray) -> None:
    found = monotone_envelope(_table(loss))
    rising = found.table.loss[:, RISING]
    assert (np.diff(rising, axis=1) >= -1e-12).all()
    for column in (2, 5, 6):
        np.testing.assert_array_equal(found.table.loss[:, column], loss[:, column])
    again = monotone_envelope(found.table)
    np.testing.assert_allclose(again.table.loss, found.table.loss, rtol=1e-12)


@given(LOSSES)
def test_losses_in_order_stay_to_the_last_bit(loss: np.ndarray) -> None:
    ordered = loss.copy()
    ordered[:, RISING] = np.sort(loss[:, RISING], axis=1)
    found = monotone_envelope(_table(ordered))
    np.testing.assert_array_equal(found.table.loss, ordered)
    assert found.smoothed == ()


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_least_squares_solution(seed: int) -> None:
    """A second method: a general optimiser over the steps between neighbours."""
    random = np.random.default_rng(seed)
    loss, stderr = random.uniform(0, 1, (1, 7)), random.uniform(0.1, 1, (1, 7))
    values, weights = loss[0, RISING], stderr[0, RISING] ** -2.0
    best = minimize(
        lambda steps: float((weights * (np.cumsum(steps) - values) ** 2).sum()),
        np.full(4, 0.1),
        bounds=[(None, None), *[(0, None)] * 3],
        tol=1e-14,
    )
    found = monotone_envelope(_table(loss, stderr)).table.loss[0, RISING]
    np.testing.assert_allclose(found, np.cumsum(best.x), atol=1e-4)


def test_a_warning_names_the_entries(caplog: pytest.LogCaptureFixture) -> None:
    loss = np.zeros((2, len(FORMATS)))
    loss[1, RISING] = [0.1, 0.5, 0.3, 0.9]
    found = monotone_envelope(_table(loss))
    assert found.smoothed == (("layer.1", "w4"), ("layer.1", "w3"))
    assert found.table.loss[1, RISING].tolist() == [0.1, 0.4, 0.4, 0.9]
    assert "2 losses of metric 'output_error'" in caplog.text
    assert "'layer.1' in w4, 'layer.1' in w3" in caplog.text


def test_entries_that_were_not_measured_stay_absent() -> None:
    loss = np.zeros((1, len(FORMATS)))
    loss[0, RISING] = [0.5, np.nan, 0.3, 0.9]
    found = monotone_envelope(_table(loss)).table.loss[0, RISING]
    assert np.isnan(found[1])
    assert found[[0, 2, 3]].tolist() == [0.4, 0.4, 0.9]
