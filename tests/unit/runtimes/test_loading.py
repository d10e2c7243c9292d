"""A written file runs with its own settings, at its workloads and at any other shape."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from mpsearch.core.hardware import Workload
from mpsearch.core.provenance import Provenance
from mpsearch.errors import DataError, PlanError, UnsupportedFeatureError
from mpsearch.export import export_plan
from mpsearch.runtimes import RUNTIMES, load
from mpsearch.testing.small_onnx import small_model

_MODEL = small_model()
_ASSIGNMENT = {"table": "w8", "left": "w8a8", "right": "w8", "out": "w4g128", "head": "w8a8"}


def _file(folder: Path, **changes: Any) -> Path:  # noqa: ANN401 - fields of a plan
    plan = replace(
        _MODEL.plan(_ASSIGNMENT),
        settings=RUNTIMES["openvino"].settings("fp32"),
        workloads=(Workload(name="short", shapes={"ids": (2, 5)}),),
        **changes,
    )
    path = folder / "model.onnx"
    path.write_bytes(export_plan(_MODEL.onnx(), plan).SerializeToString())
    return path


def test_it_runs_by_name_and_by_position_at_any_shape(tmp_path: Path) -> None:
    runnable = load(_file(tmp_path))
    assert runnable.input_names == ("ids",)
    assert runnable.plan.assignment == _ASSIGNMENT
    for shape in ((2, 5), (1, 9)):
        inputs = _MODEL.inputs(*shape)
        found = runnable(inputs)
        expected = _MODEL.forward(runnable.plan, inputs)
        for name, array in expected.items():
            assert np.linalg.norm(found[name] - array) < 0.03 * np.linalg.norm(array)
            np.testing.assert_array_equal(found[name], runnable(inputs["ids"])[name])


def test_settings_of_the_file_are_used(tmp_path: Path) -> None:
    path = _file(tmp_path)
    model = onnx.load(path)
    for entry in model.metadata_props:
        entry.value = entry.value.replace("INFERENCE_PRECISION_HINT", "NO_SUCH_SETTING")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(Exception, match="NO_SUCH_SETTING"):
        load(path)


def test_wrong_numbers_of_arrays_are_refused(tmp_path: Path) -> None:
    runnable = load(_file(tmp_path))
    with pytest.raises(DataError, match="0 arrays"):
        runnable()
    with pytest.raises(DataError):
        runnable({"stranger": np.zeros(1)})


def test_what_is_no_file_of_a_plan_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.onnx"
    text.write_bytes(b"no onnx at all")
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(_MODEL.onnx().SerializeToString())
    for path in (text, plain, tmp_path / "absent.onnx"):
        with pytest.raises(PlanError):
            load(path)


def test_a_plan_of_another_runtime_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFeatureError, match="simulation"):
        load(_file(tmp_path, runtime="simulation"))


def test_a_plan_of_another_device_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load(_file(tmp_path, provenance=Provenance(device="abacus")))
    assert "abacus" in caplog.text
    caplog.clear()
    load(_file(tmp_path))
    assert not caplog.records
