"""Quality is measured against full precision, sample by sample."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.plan import Plan
from mpsearch.errors import MeasurementError
from mpsearch.tasks import TASKS, Batch, Dataset, read_data
from mpsearch.tracing import TracedModel, trace_model
from mpsearch.verification.contest import Contest
from mpsearch.verification.deployment import deploy, simulate
from mpsearch.verification.quality import Quality, measure_quality, reference_outputs

TASK = TASKS["classification"]


@pytest.fixture
def traced() -> TracedModel:
    """Return a linear classifier with three classes."""
    torch.manual_seed(0)
    return trace_model(nn.Sequential(nn.Linear(8, 3)), [torch.zeros(2, 8)])


@pytest.fixture
def data(tmp_path: Path, traced: TracedModel) -> Dataset:
    """Return twenty samples in batches of eight."""
    inputs = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    return read_data(inputs, input_names=traced.input_names, batch_size=8, folder=tmp_path)


def test_the_loss_equals_the_dense_computation(traced: TracedModel, data: Dataset) -> None:
    plan = Plan(assignment={"0": "w2"}, runtime="simulation")
    reference = reference_outputs(traced, task=TASK, data=data)
    found = measure_quality(
        lambda batch: simulate(traced, plan, batch=batch),
        task=TASK,
        data=data,
        reference=reference,
    )
    inputs = torch.cat([batch[traced.input_names[0]] for batch in data])
    weight = traced.weight("0").detach()
    scale = weight.abs().amax(dim=1, keepdim=True)
    rounded = (weight / scale).round().clamp(-1, 1) * scale
    errors = (inputs @ (rounded - weight).T).square().sum(dim=1)
    assert found.samples == 20
    assert found.loss == pytest.approx(float(errors.mean()), rel=1e-4)
    assert found.stderr == pytest.approx(float(errors.std() / math.sqrt(20)), rel=1e-4)
    low, high = found.interval
    assert low < found.loss < high


def test_differences_of_samples_add_up_to_what_the_measures_lost(
    traced: TracedModel, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(1)
    labelled = {
        traced.input_names[0]: torch.randn(20, 8, generator=generator),
        "labels": torch.randint(3, (20,), generator=generator),
    }
    data = read_data(labelled, input_names=traced.input_names, batch_size=8, folder=tmp_path)
    reference = reference_outputs(traced, task=TASK, data=data)

    def found(format_: str) -> Quality:
        plan = Plan(assignment={"0": format_}, runtime="simulation")
        deployed = deploy(traced, base=None, plan=plan, task=TASK, threads=1)
        return measure_quality(deployed.forward, task=TASK, data=data, reference=reference)

    plan, full = found("w2"), found("fp32")
    assert list(plan.differences) == ["accuracy", "agreement"]
    lost = full.labelled["accuracy"] - plan.labelled["accuracy"]
    assert plan.differences["accuracy"].mean() == pytest.approx(lost)
    assert plan.differences["agreement"].mean() == pytest.approx(1 - plan.fidelity["agreement"])
    assert plan.fidelity["agreement"] < 1


def test_the_full_precision_model_loses_nothing(traced: TracedModel, data: Dataset) -> None:
    plan = Plan(assignment={"0": "fp32"}, runtime="simulation")
    deployed = deploy(traced, base=None, plan=plan, task=TASK, threads=1)
    reference = reference_outputs(traced, task=TASK, data=data)
    found = measure_quality(deployed.forward, task=TASK, data=data, reference=reference)
    assert found.loss == 0.0
    assert found.fidelity["agreement"] == 1.0


def test_an_output_that_is_not_finite_is_refused(traced: TracedModel, data: Dataset) -> None:
    def broken(batch: Batch) -> Tensor:
        return torch.full((len(batch[traced.input_names[0]]), 3), math.nan)

    reference = reference_outputs(traced, task=TASK, data=data)
    with pytest.raises(MeasurementError, match="not finite"):
        measure_quality(broken, task=TASK, data=data, reference=reference)


def test_a_contest_judges_each_plan_on_the_same_data(traced: TracedModel, data: Dataset) -> None:
    contest = Contest(
        traced=traced,
        base=None,
        task=TASK,
        data=data,
        reference=reference_outputs(traced, task=TASK, data=data),
        threads=1,
    )
    plans = [
        Plan(assignment={"0": name}, runtime="simulation", forecast={"loss": 1.0, "weight_bits": b})
        for name, b in (("w8", 192.0), ("w4", 96.0), ("w2", 48.0))
    ]
    entries = contest.hold(plans)
    losses = [entry.quality.loss for entry in entries if entry.quality is not None]
    assert len(losses) == 3
    assert losses == sorted(losses)
    assert [entry.amount for entry in entries] == [{"weight_bits": b} for b in (192.0, 96.0, 48.0)]
