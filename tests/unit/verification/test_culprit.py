"""The setting that is named is the one without which the plan holds."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from numpy import ndarray
from torch import nn

from mpsearch.core.hardware import Workload
from mpsearch.core.plan import Plan
from mpsearch.errors import DeploymentError
from mpsearch.runtimes import RUNTIMES
from mpsearch.runtimes.openvino_executable import OpenVinoExecutable
from mpsearch.tasks import TASKS
from mpsearch.tracing import base_onnx, trace_model
from mpsearch.verification.culprit import culprit_told
from mpsearch.verification.deployment import deploy


def _only_with(name: str, value: str, *, seen: list[Mapping[str, str]]) -> object:
    def attempt(settings: Mapping[str, str]) -> None:
        seen.append(settings)
        if settings.get(name) != value:
            raise DeploymentError("It fails.")

    return attempt


def test_the_first_setting_that_helps_is_named_with_both_values() -> None:
    seen: list[Mapping[str, str]] = []
    attempt = _only_with("HINT", "f32", seen=seen)
    assert callable(attempt)
    told = culprit_told(
        attempt,
        settings={"HINT": "bf16", "GROUP": "128"},
        suspects=[("MODE", "off"), ("HINT", "f32"), ("GROUP", "0")],
    )
    assert "HINT=bf16" in told
    assert "with HINT=f32 the plan holds" in told
    # One at a time, the others as they were, and none after the one that helps.
    assert seen == [
        {"HINT": "bf16", "GROUP": "128", "MODE": "off"},
        {"HINT": "f32", "GROUP": "128"},
    ]


def test_a_setting_that_was_not_set_is_said_to_be_unset() -> None:
    attempt = _only_with("MODE", "off", seen=[])
    assert callable(attempt)
    assert "MODE left unset" in culprit_told(attempt, settings={}, suspects=[("MODE", "off")])


def test_that_no_setting_helps_is_told() -> None:
    attempt = _only_with("NOTHING", "at all", seen=[])
    assert callable(attempt)
    told = culprit_told(attempt, settings={}, suspects=[("MODE", "off"), ("HINT", "f32")])
    assert told.startswith("No single setting")
    assert "MODE=off, HINT=f32" in told
    assert "no setting" in culprit_told(attempt, settings={}, suspects=[])


def test_a_plan_that_does_not_compile_names_what_was_planted() -> None:
    traced = trace_model(nn.Sequential(nn.Linear(8, 8), nn.Tanh()).eval(), (torch.zeros(2, 8),))
    base = base_onnx(traced)
    shapes = {each.name: (1, 8) for each in base.graph.input}
    plan = Plan(
        assignment=dict.fromkeys(traced.graph.names, "fp32"),
        settings=RUNTIMES["openvino"].settings("fp32"),
        workloads=(Workload(name="one", shapes=shapes),),
    )
    task = TASKS["embedding"]
    assert deploy(traced, base=base, plan=plan, task=task, threads=1).agreement is not None
    planted = replace(plan, settings={**plan.settings, "SNIPPETS_MODE": "NO_SUCH_MODE"})
    with pytest.raises(DeploymentError, match="setting SNIPPETS_MODE=NO_SUCH_MODE") as caught:
        deploy(traced, base=base, plan=planted, task=task, threads=1)
    assert "with SNIPPETS_MODE=DISABLE the plan holds" in str(caught.value)


def test_wrong_numbers_name_the_setting_that_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups that the simulation does not know of: the plan runs, and is off."""
    traced = trace_model(nn.Sequential(nn.Linear(128, 8)).eval(), (torch.ones(2, 128),))
    base = base_onnx(traced)
    shapes = {each.name: (1, 128) for each in base.graph.input}
    plan = Plan(
        assignment=dict.fromkeys(traced.graph.names, "fp32"),
        settings=RUNTIMES["openvino"].settings("fp32"),
        workloads=(Workload(name="one", shapes=shapes),),
    )
    right = OpenVinoExecutable.run

    def wrong_under_groups(self: OpenVinoExecutable, inputs: Mapping[str, ndarray]) -> object:
        group = self._compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")
        return {name: array + float(group) for name, array in right(self, inputs).items()}

    monkeypatch.setattr(OpenVinoExecutable, "run", wrong_under_groups)
    with pytest.raises(DeploymentError, match="differs from its simulation") as caught:
        deploy(traced, base=base, plan=plan, task=TASKS["embedding"], threads=1)
    assert "DYNAMIC_QUANTIZATION_GROUP_SIZE=128: with" in str(caught.value)


@pytest.mark.parametrize("bend", [nn.Tanh(), nn.ReLU(), nn.GELU()])
def test_onnxruntime_tells_a_layer_that_took_in_its_nonlinearity(bend: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(8, 8), bend, nn.Linear(8, 4)).eval()
    traced = trace_model(model, (torch.zeros(2, 8),))
    base = base_onnx(traced)
    shapes = {each.name: (1, 8) for each in base.graph.input}
    plan = Plan(
        assignment=dict.fromkeys(traced.graph.names, "fp32"),
        runtime="onnxruntime",
        settings=RUNTIMES["onnxruntime"].settings("fp32"),
        workloads=(Workload(name="one", shapes=shapes),),
    )
    found = deploy(traced, base=base, plan=plan, task=TASKS["embedding"], threads=1)
    assert found.executable is not None
    assert set(found.executable.kernels()) == set(traced.graph.names)
