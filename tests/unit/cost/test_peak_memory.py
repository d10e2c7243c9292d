"""What a fresh process holds in its first inference is what its tensors take."""

from dataclasses import replace

import pytest

from mpsearch.core.hardware import Workload
from mpsearch.cost import peak_memory
from mpsearch.cost.activation_memory import peak_activation_bytes
from mpsearch.cost.peak_memory import can_measure_peak, measured_peak_bytes
from mpsearch.errors import MeasurementError
from mpsearch.export import export_plan
from mpsearch.runtimes import RUNTIMES
from mpsearch.testing.small_onnx import small_model

# Rows enough that tensors outweigh what a runtime keeps for itself, about a megabyte.
_MANY = Workload(name="many", shapes={"ids": (64, 512)})
_OWN = 4_000_000


@pytest.mark.skipif(not can_measure_peak(), reason="the system does not count peaks")
@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_the_measured_peak_is_near_what_liveness_predicts(name: str) -> None:
    model = small_model()
    settings = RUNTIMES[name].settings("fp32")
    plan = model.plan(dict.fromkeys(model.layers, "fp32"))
    plan = replace(plan, runtime=name, settings=settings, workloads=(_MANY,))
    file = export_plan(model.onnx(), plan)
    predicted = peak_activation_bytes(file, _MANY)
    measured = measured_peak_bytes(file, workload=_MANY, threads=1)
    assert 0.6 * predicted < measured < 1.4 * predicted + _OWN


def test_a_process_that_fails_says_why() -> None:
    model = small_model()
    plan = model.plan(dict.fromkeys(model.layers, "fp32"))
    wrong = Workload(name="wrong", shapes={"no_such_input": (1, 2)})
    file = export_plan(model.onnx(), replace(plan, workloads=(wrong,)))
    with pytest.raises(MeasurementError, match="no_such_input"):
        measured_peak_bytes(file, workload=wrong, threads=1)


def test_a_system_that_does_not_count_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak_memory, "can_measure_peak", lambda: False)
    model = small_model()
    with pytest.raises(MeasurementError, match="Linux"):
        measured_peak_bytes(model.onnx(), workload=_MANY, threads=1)
