"""Several workloads in one table: each keeps its own latency, everything else is shared."""

from dataclasses import replace

import numpy as np
import pytest

from mpsearch.core.hardware import Device, Resource, Support, Workload
from mpsearch.core.plan import ActivationQuantizer
from mpsearch.core.tables import Calibration, CostTable, MeasuredPlan, SensitivityTable
from mpsearch.cost import profile_workloads
from mpsearch.cost import workloads as module
from mpsearch.cost.workloads import merged
from mpsearch.errors import DataError, InfeasibleBudgetError
from mpsearch.workflow.solve import resolved, solve_tables

LAYERS = ("a", "b")
FORMATS = ("fp32", "w8a8")
# At batch 1 the first layer gains, at batch 32 the second does.
ONE = np.array([[400, 100], [300, 290]])
_ANY = ActivationQuantizer(scale=1.0, zero_point=0, low=0.0, high=1.0, method="none", samples=1)
MANY = np.array([[4000, 3900], [9000, 3000]])


def _table(name: str, *, amount: np.ndarray, constant: int) -> CostTable:
    def measured(*formats: str) -> MeasuredPlan:
        column = [FORMATS.index(each) for each in formats]
        seconds = constant + int(amount[[0, 1], column].sum())
        return MeasuredPlan(
            assignment=dict(zip(LAYERS, formats, strict=True)),
            base="fp32",
            placement="layer_inputs",
            amount={"latency_ns": float(seconds), "latency_p99_ns": 2.0 * seconds},
            role="reference",
        )

    return CostTable(
        layers=LAYERS,
        formats=FORMATS,
        base="fp32",
        placement="layer_inputs",
        amount={
            Resource.WEIGHT_BYTES: np.array([[40, 10], [40, 10]]),
            Resource.LATENCY_NS: amount,
        },
        constant={Resource.WEIGHT_BYTES: 5, Resource.LATENCY_NS: constant},
        support=((Support.NATIVE,) * 2,) * 2,
        edges=((0, 1),),
        edge_amount={Resource.LATENCY_NS: np.array([[[0, constant], [constant, 0]]])},
        calibration={Resource.LATENCY_NS: Calibration(relative_error=constant / 1000)},
        measured=(measured("fp32", "fp32"), measured("w8a8", "w8a8")),
        settings={name: "on"},
        workloads=(Workload(name=name, shapes={"x": (1, 4)}),),
        device=Device(name="cpu", runtime="openvino", threads=1),
    )


def _merged() -> CostTable:
    return merged([_table("b1", amount=ONE, constant=7), _table("b32", amount=MANY, constant=70)])


def test_each_workload_spends_as_in_its_own_table() -> None:
    table = _merged()
    one, many = (
        _table("b1", amount=ONE, constant=7),
        _table("b32", amount=MANY, constant=70),
    )
    for first in FORMATS:
        for second in FORMATS:
            plan = {"a": first, "b": second}
            spent = table.spend(plan)
            assert spent["latency_ns"] == one.spend(plan)["latency_ns"]
            assert spent["latency_ns@b1"] == one.spend(plan)["latency_ns"]
            assert spent["latency_ns@b32"] == many.spend(plan)["latency_ns"]
            assert spent["weight_bytes"] == one.spend(plan)["weight_bytes"]


def test_plans_and_calibration_are_kept_by_workload() -> None:
    table = _merged()
    assert [each.name for each in table.workloads] == ["b1", "b32"]
    assert table.calibration["latency_ns@b1"] == table.calibration["latency_ns"]
    assert table.calibration["latency_ns@b32"].relative_error == 0.07
    amount = table.measured[0].amount
    assert amount["latency_ns"] == amount["latency_ns@b1"] == 707
    assert amount["latency_ns@b32"] == 13070
    assert amount["latency_p99_ns@b32"] == 26140
    assert table.settings == {"b1": "on", "b32": "on"}


def test_a_plan_that_one_workload_lacks_is_left_out() -> None:
    one, many = _table("b1", amount=ONE, constant=7), _table("b32", amount=MANY, constant=70)
    table = merged([one, replace(many, measured=many.measured[:1])])
    assert [dict(plan.assignment) for plan in table.measured] == [{"a": "fp32", "b": "fp32"}]


def test_one_workload_is_a_table_as_it_was() -> None:
    table = _table("b1", amount=ONE, constant=7)
    assert merged([table]) is table


@pytest.mark.parametrize("names", [(), ("b1", "b1")])
def test_workloads_need_names_of_their_own(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match="workloads"):
        profile_workloads(workloads=[Workload(name=name, shapes={}) for name in names])


def test_each_budget_binds_its_own_workload() -> None:
    table = _merged()
    loss = np.array([[0.0, 1.0], [0.0, 1.0]])
    sensitivity = SensitivityTable(
        layers=LAYERS, formats=FORMATS, loss=loss, stderr=loss * 0, metric="m", unit="u",
        quantizers=dict.fromkeys(LAYERS, _ANY),
    )  # fmt: skip

    def formats(**budgets: str) -> list[str]:
        named = {name.replace("_at_", "@"): text for name, text in budgets.items()}
        solved = solve_tables(sensitivity, [table], budgets=named)
        return [solved.plan.assignment[layer] for layer in LAYERS]

    assert formats(latency="500ns") == ["w8a8", "fp32"]
    assert formats(latency_at_b1="500ns") == ["w8a8", "fp32"]
    assert formats(latency_at_b32="8us") == ["fp32", "w8a8"]
    assert formats(latency_at_b1="500ns", latency_at_b32="8us") == ["w8a8", "w8a8"]
    assert formats(latency_at_b32="101% of fastest") == ["w8a8", "w8a8"]
    with pytest.raises(InfeasibleBudgetError, match="latency@b32"):
        formats(latency_at_b32="1us")
    (limit,) = resolved({"latency@b32": "50%"}, costs=[table])
    assert limit.limit == 13070 / 2


def test_the_forecast_of_the_tail_is_as_far_above_the_median_as_of_measured_plans() -> None:
    loss = np.zeros((2, 2))
    sensitivity = SensitivityTable(
        layers=LAYERS, formats=FORMATS, loss=loss, stderr=loss, metric="m", unit="u",
        quantizers=dict.fromkeys(LAYERS, _ANY),
    )  # fmt: skip
    plan = solve_tables(sensitivity, [_merged()], budgets={"latency": "1ms"}).plan
    for suffix in ("", "@b32"):
        median = plan.forecast[f"latency_ns{suffix}"]
        assert plan.forecast[f"latency_p99_ns{suffix}"] == 2 * median


def test_a_layer_graph_is_profiled_at_each_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is not asked here: what `profile` returns is put together by workload."""
    asked = []

    def profile(*, workload: Workload, base: None) -> CostTable:
        asked.append((workload.name, base))
        return _table(workload.name, amount=ONE, constant=len(asked))

    monkeypatch.setattr(module, "profile", profile)
    names = [Workload(name=name, shapes={}) for name in ("short", "long")]
    table = profile_workloads(workloads=names, base=None)
    assert asked == [("short", None), ("long", None)]
    assert table.constant["latency_ns@long"] == 2
