"""The output error equals its definition, is cached by content, and survives interruption."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.core.formats import FORMATS
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.core.progress import ProgressEvent
from mpsearch.core.tables import SensitivityTable
from mpsearch.errors import FormatError, MeasurementError
from mpsearch.execution import PrefixStore, quantised, run
from mpsearch.execution.interpreter import Override
from mpsearch.quant.fake_torch import fake_quantise_weight
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.sensitivity import METRICS, Work
from mpsearch.tasks import TASKS, Batch, CallableTask, Dataset, read_data
from mpsearch.tracing import TracedModel, trace_model

METRIC = METRICS["output_error"]
TASK = TASKS["classification"]


@dataclass(frozen=True, kw_only=True)
class _Case:
    model: nn.Sequential
    traced: TracedModel
    samples: Tensor
    data: Dataset
    cache: Cache
    work: list[Work] = field(default_factory=list)

    def measure(self, *formats: str, **changes: object) -> SensitivityTable:
        arguments: dict[str, Any] = {
            "task": TASK,
            "data": self.data,
            "cache": self.cache,
            "report": self.work.append,
            **changes,
        }
        return METRIC.measure(self.traced, formats=formats, **arguments)


@pytest.fixture
def case(tmp_path: Path) -> _Case:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    samples = torch.randn(10, 6)
    data = read_data(
        [{"input": rows} for rows in torch.split(samples, 4)],
        input_names=("input",),
        batch_size=4,
        folder=tmp_path / "data",
    )
    return _Case(
        model=model,
        traced=trace_model(model, {"input": samples[:2]}),
        samples=samples,
        data=data,
        cache=Cache(folder=tmp_path / "cache"),
    )


def _by_definition(case: _Case, layer: str, name: str) -> tuple[float, float]:
    """Replace the weight by hand and compare whole passes of the module."""
    module = case.model.get_submodule(layer)
    assert isinstance(module, nn.Linear)
    before = module.weight.detach().clone()
    with torch.no_grad():
        reference = case.model(case.samples)
        module.weight.copy_(fake_quantise_weight(before, FORMATS[name].weight))
        errors = (case.model(case.samples) - reference).double().square().sum(dim=1)
        module.weight.copy_(before)
    return float(errors.mean()), float(errors.std() / math.sqrt(len(errors)))


def test_losses_and_standard_errors_equal_their_definition(case: _Case) -> None:
    formats = ("w4", "w2")
    table = case.measure(*formats)
    assert (table.metric, table.samples, table.layers) == ("output_error", 10, ("0", "2", "4"))
    for row, layer in enumerate(table.layers):
        for column, name in enumerate(formats):
            loss, stderr = _by_definition(case, layer, name)
            assert table.loss[row, column] == pytest.approx(loss, rel=1e-4)
            assert table.stderr[row, column] == pytest.approx(stderr, rel=1e-4)


def test_the_last_linear_layer_has_a_closed_form(tmp_path: Path) -> None:
    """|x (W_q - W)^T|^2, averaged over samples."""
    torch.manual_seed(1)
    layer, samples = nn.Linear(5, 3), torch.randn(7, 5)
    data = read_data([{"input": samples}], input_names=("input",), batch_size=7, folder=tmp_path)
    traced = trace_model(nn.Sequential(layer), {"input": samples})
    change = fake_quantise_weight(layer.weight, FORMATS["w3"].weight) - layer.weight.detach()
    wanted = float((samples @ change.t()).double().square().sum(dim=1).mean())
    found = METRIC.measure(traced, task=TASK, data=data, formats=["w3"]).loss
    assert found[0, 0] == pytest.approx(wanted, rel=1e-4)


def test_one_layer_of_a_plan_equals_the_table(case: _Case) -> None:
    """A second method: the whole model as deployed, for formats with activations too."""
    ranges = {name: quantizer_of_range(-3.0, 3.0) for name in case.traced.graph.names}
    table = case.measure("w8a8", "bf16", "w8", quantizers=ranges, dynamic_group=None)
    for row, layer in enumerate(table.layers):
        for column, name in enumerate(table.formats):
            assignment = dict.fromkeys(table.layers, "fp32") | {layer: name}
            plan = Plan(assignment=assignment, quantizers=ranges, runtime="simulation")
            with quantised(case.traced, plan) as model:
                output = run(model, {"input": case.samples})
            reference = run(case.traced, {"input": case.samples})
            loss = float((output - reference).double().square().sum(dim=1).mean())
            assert table.loss[row, column] == pytest.approx(loss, rel=1e-3)


def test_inputs_quantised_on_the_fly_are_part_of_the_error(case: _Case) -> None:
    plain = case.measure("w8").loss
    dynamic = case.measure("w8", dynamic_group=2).loss
    assert not np.array_equal(plain, dynamic)
    plan = Plan(
        assignment=dict.fromkeys(case.traced.graph.names, "fp32") | {"4": "w8"},
        runtime="openvino",
        settings={"DYNAMIC_QUANTIZATION_GROUP_SIZE": "2"},
    )
    with quantised(case.traced, plan) as model:
        output = run(model, {"input": case.samples})
    reference = run(case.traced, {"input": case.samples})
    loss = float((output - reference).double().square().sum(dim=1).mean())
    assert dynamic[2, 0] == pytest.approx(loss, rel=1e-3)


def test_a_second_run_makes_no_pass_at_all(case: _Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first = case.measure("w4", "w2")

    def forbidden(*_: object) -> None:
        raise AssertionError("a pass was run")

    monkeypatch.setattr("mpsearch.sensitivity.exact_pass.PrefixStore", forbidden)
    second = case.measure("w4", "w2")
    np.testing.assert_array_equal(first.loss, second.loss)
    np.testing.assert_array_equal(first.stderr, second.stderr)
    assert case.work[1] == Work(cached_pairs=3 * 3 * 2)


def test_a_new_format_measures_only_itself(case: _Case) -> None:
    case.measure("w4", "w2")
    table = case.measure("w4", "w3", "w2")
    assert (case.work[1].measured_pairs, case.work[1].cached_pairs) == (9, 18)
    alone = case.measure("w4", "w3", "w2", cache=None)
    np.testing.assert_array_equal(table.loss, alone.loss)


def test_prefix_reuse_saves_the_layers_before_the_change(case: _Case) -> None:
    case.measure("w4", "w3", "w2", cache=None)
    (work,) = case.work
    macs = [48, 64, 32]  # of the layers, per sample
    suffixes = sum(sum(macs[place:]) for place in range(3))
    assert work.macs == 10 * (sum(macs) + 3 * suffixes)
    assert work.full_macs == 10 * 9 * sum(macs)
    assert work.share == pytest.approx(work.macs / work.full_macs)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("after", [1, 4, 7])
def test_an_interrupted_run_loses_at_most_one_entry(
    case: _Case, monkeypatch: pytest.MonkeyPatch, *, error: type[BaseException], after: int
) -> None:
    whole = case.measure("w4", "w2", cache=None)
    reruns: list[int] = []
    original = PrefixStore.rerun

    def counted(store: PrefixStore, overrides: Mapping[str, Override]) -> object:
        if len(reruns) == 2 * after + 1:  # in the middle of a layer, at its second format
            raise error
        reruns.append(1)
        return original(store, overrides)

    monkeypatch.setattr(PrefixStore, "rerun", counted)
    with pytest.raises(error):
        case.measure("w4", "w2")
    monkeypatch.undo()
    again = case.measure("w4", "w2")
    assert case.work[-1].cached_pairs == 2 * after + 1
    np.testing.assert_array_equal(whole.loss, again.loss)
    np.testing.assert_array_equal(whole.stderr, again.stderr)


def test_a_damaged_cache_file_is_measured_again(
    case: _Case, caplog: pytest.LogCaptureFixture
) -> None:
    first = case.measure("w4")
    path = next(path for path in case.cache.folder.glob("output_error/*/*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-3] + b"xyz")
    second = case.measure("w4")
    np.testing.assert_array_equal(first.loss, second.loss)
    assert case.work[1].measured_pairs == 1
    assert "measured again" in caplog.text


def test_whatever_decides_a_value_is_in_its_key(case: _Case) -> None:
    """Each change below must measure everything again."""
    ranges = {name: quantizer_of_range(-3.0, 3.0) for name in case.traced.graph.names}
    case.measure("w8a8", quantizers=ranges)
    pairs = case.work[0].measured_pairs
    wider: dict[str, ActivationQuantizer] = {
        name: replace(each, scale=each.scale * 2) for name, each in ranges.items()
    }
    case.measure("w8a8", quantizers=wider)
    assert case.work[1].measured_pairs == pairs
    case.measure("w8a8", quantizers=ranges, task=CallableTask(function=_doubled))
    assert case.work[2].measured_pairs == pairs
    last = case.model[4]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.add_(0.5)
    changed = replace(case, traced=trace_model(case.model, {"input": case.samples[:2]}))
    changed.measure("w8a8", quantizers=ranges)
    assert case.work[3].measured_pairs == pairs


def _doubled(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    return raw * 2


def test_callables_that_cannot_be_identified_are_not_cached(
    case: _Case, caplog: pytest.LogCaptureFixture
) -> None:
    for factor in (1.0, 2.0):

        def scaled(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
            return raw * factor  # noqa: B023 - the closure is the point

        case.measure("w4", task=CallableTask(function=scaled))
    assert [work.cached_pairs for work in case.work] == [0, 0]
    assert "not cached" in caplog.text


def test_progress_tells_each_step_and_the_time_left(case: _Case) -> None:
    events: list[ProgressEvent] = []
    case.measure("w4", progress=events.append)
    assert [event.done for event in events] == list(range(10))
    assert events[-1].total == 3 * 3
    assert events[-1].seconds_left == 0
    assert all(event.seconds_left is not None for event in events[1:])


def test_activations_that_are_not_finite_name_the_first_layer(case: _Case) -> None:
    first, middle = case.model[0], case.model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(middle, nn.Linear)
    with torch.no_grad():
        first.bias.fill_(100.0)  # Saturates tanh at one.
        middle.weight.fill_(3e38)
    broken = replace(case, traced=trace_model(case.model, {"input": torch.zeros(2, 6)}))
    with pytest.raises(MeasurementError, match="Layer '2' gives"):
        broken.measure("w4")


def test_a_missing_quantiser_is_named(case: _Case) -> None:
    with pytest.raises(MeasurementError, match="Layer '0' has no quantiser"):
        case.measure("w8a8")


@pytest.mark.parametrize("formats", [[], ["w4", "w4"], ["w44"]])
def test_wrong_formats_are_refused(case: _Case, formats: list[str]) -> None:
    with pytest.raises(FormatError):
        case.measure(*formats)


def test_offering_what_a_layer_cannot_take_is_refused(case: _Case) -> None:
    with pytest.raises(FormatError, match=r"Layer '0'.*'w4g128', which it cannot take"):
        case.measure("w4", "w4g128", offered={"0": ["w4g128"]})


def test_one_sample_has_no_standard_error(case: _Case) -> None:
    table = case.measure("w4", data=case.data.take(1))
    assert np.isfinite(table.loss).all()
    assert np.isnan(table.stderr).all()
