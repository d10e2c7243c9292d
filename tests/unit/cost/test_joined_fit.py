"""What is timed later moves the table as far as its noise allows, and says how far it was off."""

from dataclasses import replace
from typing import Final

import numpy as np
import pytest
from jaxtyping import Float
from numpy import ndarray

from mpsearch.core.hardware import Device, Support
from mpsearch.core.tables import Calibration, CostTable, MeasuredPlan
from mpsearch.cost.joined_fit import with_measurements

_LAYERS: Final = ("a", "b", "c", "d")
_FORMATS: Final = ("fp32", "w8a8", "w4")
_LATENCY: Final = "latency_ns"
# The presumed deviation of an entry, and of a plan, as shares of a plan's time.
_ENTRY: Final = 0.30 / len(_LAYERS)
_PLAN: Final = 0.015


def _table(*, measured: tuple[MeasuredPlan, ...] = ()) -> CostTable:
    return CostTable(
        layers=_LAYERS,
        formats=_FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={
            _LATENCY: np.array([[100_000, 50_000, 70_000]] * 4),
            "weight_bytes": np.array([[4, 1, 1]] * 4),
        },
        constant={_LATENCY: 5_000},
        support=((Support.NATIVE,) * 3,) * 4,
        edges=((0, 1),),
        edge_amount={_LATENCY: np.array([[[0, 3_000, 0], [2_000, 0, 0], [0, 0, 0]]])},
        calibration={_LATENCY: Calibration(relative_error=0.01, repeatability=0.02)},
        measured=measured,
        device=Device(name="test", runtime="simulation", threads=1),
    )


def _plan(formats: str, *, factor: float, stderr: float = 0.0, role: str = "") -> MeasuredPlan:
    """Return a plan of formats by their first letters, timed at so many times its forecast."""
    names = {"f": "fp32", "w": "w8a8", "4": "w4"}
    assignment = {layer: names[letter] for layer, letter in zip(_LAYERS, formats, strict=True)}
    forecast = float(_table().spend(assignment)[_LATENCY])
    return MeasuredPlan(
        assignment=assignment,
        base="fp32",
        placement="layer_inputs",
        amount={_LATENCY: factor * forecast, "latency_stderr_ns": stderr * forecast},
        role=role,
    )


def _forecast(table: CostTable, plan: MeasuredPlan) -> int:
    return table.spend(plan.assignment)[_LATENCY]


def test_one_plan_moves_by_the_share_that_noise_leaves() -> None:
    plan = _plan("ffww", factor=1.1, stderr=0.02)
    before, time = _forecast(_table(), plan), plan.amount[_LATENCY]
    prior = len(_LAYERS) * (_ENTRY * time) ** 2
    noise = (_PLAN * time) ** 2 + plan.amount["latency_stderr_ns"] ** 2
    after = _forecast(with_measurements(_table(), [plan]), plan)
    assert after - before == pytest.approx((time - before) * prior / (prior + noise), abs=2)


def test_plans_follow_in_proportion_to_what_they_share() -> None:
    table = with_measurements(_table(), [_plan("wwww", factor=1.2)])
    shifts = [
        _forecast(table, plan) - _forecast(_table(), plan)
        for plan in (_plan(letters, factor=1) for letters in ("wwww", "wwff", "wfff", "ffff"))
    ]
    assert shifts[0] > 0
    assert shifts[1] == pytest.approx(shifts[0] / 2, abs=2)
    assert shifts[2] == pytest.approx(shifts[0] / 4, abs=2)
    assert shifts[3] == 0


def test_it_is_the_ridge_solution_over_all_plans() -> None:
    """A second method: least squares with one more row for each entry's presumption."""
    known = (_plan("ffff", factor=1.01), _plan("wwww", factor=0.99), _plan("4444", factor=1.0))
    new = [_plan("fw4w", factor=1.07, stderr=0.01), _plan("ww44", factor=0.95)]
    table = _table(measured=known)
    found = with_measurements(table, new).amount[_LATENCY] - table.amount[_LATENCY]
    np.testing.assert_allclose(found, _ridge([*known, *new]), atol=1)


def _ridge(plans: list[MeasuredPlan]) -> Float[ndarray, "L F"]:
    times = np.array([plan.amount[_LATENCY] for plan in plans])
    noise = np.hypot(_PLAN * times, [plan.amount["latency_stderr_ns"] for plan in plans])
    rows = np.zeros((len(plans), len(_LAYERS) * len(_FORMATS)))
    for row, plan in zip(rows, plans, strict=True):
        for place, layer in enumerate(_LAYERS):
            row[place * len(_FORMATS) + _FORMATS.index(plan.assignment[layer])] = 1
    missed = times - [_forecast(_table(), plan) for plan in plans]
    presumed = np.eye(rows.shape[1]) / (_ENTRY * float(np.median(times)))
    matrix = np.concatenate([rows / noise[:, None], presumed])
    target = np.concatenate([missed / noise, np.zeros(len(presumed))])
    solution: Float[ndarray, "L F"] = np.linalg.lstsq(matrix, target, rcond=None)[0].reshape(4, 3)
    return solution


def test_what_was_known_stays_where_it_was() -> None:
    reference = _plan("wwww", factor=1.0)
    alone = with_measurements(_table(), [_plan("wwwf", factor=1.2)])
    held = with_measurements(_table(measured=(reference,)), [_plan("wwwf", factor=1.2)])
    before = _forecast(_table(), reference)
    assert _forecast(held, reference) - before < 0.4 * (_forecast(alone, reference) - before)


def test_the_error_of_new_plans_widens_the_promise() -> None:
    profiled = tuple(_plan("ffww", factor=1.0, role="random") for _ in range(3))
    table = _table(measured=profiled)
    joined = with_measurements(table, [_plan("wwff", factor=1 / 1.08)])
    expected = np.sqrt((3 * 0.01**2 + 0.08**2) / 4)
    assert joined.calibration[_LATENCY].relative_error == pytest.approx(expected, rel=1e-6)
    assert joined.calibration[_LATENCY].repeatability == 0.02


def test_only_latencies_change_and_every_plan_is_kept() -> None:
    plan = _plan("ffww", factor=1.3)
    joined = with_measurements(_table(), [plan])
    np.testing.assert_array_equal(joined.amount["weight_bytes"], _table().amount["weight_bytes"])
    assert joined.amount[_LATENCY].dtype == np.int64
    assert joined.measured == (plan,)
    untimed = replace(plan, amount={"weight_bytes": 10.0})
    same = with_measurements(_table(), [untimed])
    np.testing.assert_array_equal(same.amount[_LATENCY], _table().amount[_LATENCY])


def test_each_workload_is_corrected_by_its_own_times() -> None:
    other = f"{_LATENCY}@b32"
    amount = _table().amount
    table = replace(
        _table(),
        amount={**amount, other: 10 * amount[_LATENCY]},
        constant={_LATENCY: 5_000, other: 0},
    )
    plan = _plan("wwww", factor=1.0)
    slower = {**plan.amount, other: 1.2 * table.spend(plan.assignment)[other]}
    joined = with_measurements(table, [replace(plan, amount=slower)])
    assert joined.spend(plan.assignment)[other] > 1.15 * table.spend(plan.assignment)[other]
    np.testing.assert_array_equal(joined.amount[_LATENCY], amount[_LATENCY])
