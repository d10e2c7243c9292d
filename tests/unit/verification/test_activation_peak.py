"""A proof shows the predicted peak of activations beside the measured one."""

import logging
from dataclasses import replace

import pytest

from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.cost.activation_memory import peak_activation_bytes
from mpsearch.errors import MeasurementError
from mpsearch.export import export_plan
from mpsearch.testing.small_onnx import small_model
from mpsearch.verification import activation_peak
from mpsearch.verification.activation_peak import peak_rows
from mpsearch.verification.deployment import Deployment

_SHORT = Workload(name="short", shapes={"ids": (1, 8)})
_LONG = Workload(name="long", shapes={"ids": (4, 64)})


def _deployment() -> Deployment:
    model = small_model()
    plan = replace(model.plan(dict.fromkeys(model.layers, "fp32")), workloads=(_SHORT, _LONG))
    file = export_plan(model.onnx(), plan)
    return Deployment(plan=plan, forward=lambda batch: batch, model=file, threads=1)


def test_the_workload_that_holds_most_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Workload] = []

    def measured(model: object, *, workload: Workload, threads: int) -> int:
        assert model is not None
        assert threads == 1
        asked.append(workload)
        return 123_456

    monkeypatch.setattr(activation_peak, "measured_peak_bytes", measured)
    deployment = _deployment()
    assert deployment.model is not None
    (row,) = peak_rows(deployment, device="here")
    assert asked == [_LONG]
    assert row.predicted == peak_activation_bytes(deployment.model, _LONG)
    assert (row.measured, row.unit, row.passed) == (123_456.0, "B", True)
    assert row.tolerance is None
    assert "long" in row.note


def test_what_builds_nothing_has_no_row() -> None:
    plan = Plan(assignment={"a": "w4"}, runtime="simulation")
    assert peak_rows(Deployment(plan=plan, forward=lambda batch: batch), device="here") == ()


def test_a_peak_that_cannot_be_counted_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> int:
        raise MeasurementError("Nothing counts here. Expected Linux. Measure there.")

    monkeypatch.setattr(activation_peak, "measured_peak_bytes", fails)
    with caplog.at_level(logging.WARNING):
        assert peak_rows(_deployment(), device="here") == ()
    assert "Nothing counts here" in caplog.text
