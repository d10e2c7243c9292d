"""Changes of the output are what one layer does to it, kept as soon as they are measured."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.errors import MeasurementError
from mpsearch.execution import PrefixStore
from mpsearch.execution.interpreter import Override, evaluate
from mpsearch.sensitivity import METRICS
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.output_changes import (
    OutputChanges,
    measure_changes,
    measure_layers,
    missing_pairs,
)
from mpsearch.tasks import TASKS, read_data
from mpsearch.tasks.predictions import kl_divergence
from mpsearch.tracing import trace_model

FORMATS = ("w4", "w2")
LAYERS = ("0", "2", "4")


@dataclass(frozen=True, kw_only=True)
class _Case:
    request: ChangeRequest
    samples: Tensor
    cache: Cache

    def outputs(self, assignment: Mapping[str, str]) -> Tensor:
        """Run the whole graph: a second method."""
        overrides = self.request.plan_overrides(assignment)
        with torch.no_grad():
            found = evaluate(self.request.traced, {"input": self.samples}, overrides=overrides)
        assert isinstance(found, Tensor)
        return found

    def measure(self, **changes: object) -> OutputChanges:
        request = replace(self.request, **changes)  # type: ignore[arg-type]  # fields by name
        return measure_changes(request, cache=self.cache)


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
    request = ChangeRequest(
        traced=trace_model(model, {"input": samples[:2]}),
        task=TASKS["classification"],
        data=data,
        pairs=dict.fromkeys(LAYERS, FORMATS),
    )
    return _Case(request=request, samples=samples, cache=Cache(folder=tmp_path / "cache"))


def _change(found: OutputChanges, layer: str, name: str) -> Tensor:
    return torch.cat([batch.changes[layer, name].tensor() for batch in found.batches])


def test_single_losses_equal_those_of_the_exact_metric(case: _Case) -> None:
    found = case.measure()
    table = METRICS["output_error"].measure(
        case.request.traced, task=case.request.task, data=case.request.data, formats=FORMATS
    )
    assert found.layers == table.layers
    np.testing.assert_array_equal(found.squared.mean(axis=0), table.loss)


def test_divergences_equal_their_definition(case: _Case) -> None:
    found = case.measure()
    full = case.outputs({})
    for row, layer in enumerate(LAYERS):
        for column, name in enumerate(FORMATS):
            wanted = kl_divergence(full, case.outputs({layer: name})).numpy()
            np.testing.assert_allclose(found.divergence[:, row, column], wanted, atol=2e-6)


@pytest.mark.parametrize("around", [{}, dict.fromkeys(LAYERS, "w3"), {"2": "w8", "4": "fp32"}])
def test_a_change_is_the_difference_that_its_layer_makes(
    case: _Case, around: dict[str, str]
) -> None:
    found = case.measure(around=around)
    before = case.outputs(around)
    for layer in LAYERS:
        for name in FORMATS:
            wanted = case.outputs({**around, layer: name}) - before
            got = _change(found, layer, name)
            # Half precision keeps eleven bits of the largest number.
            assert float((got - wanted).abs().max()) <= 2**-10 * float(wanted.abs().max())
    value = torch.cat([batch.value for batch in found.batches])
    torch.testing.assert_close(value, before)


def test_full_precision_is_a_change_of_a_plan_too(case: _Case) -> None:
    around = dict.fromkeys(LAYERS, "w2")
    found = case.measure(around=around, pairs={"2": ("fp32",)})
    wanted = case.outputs({"0": "w2", "4": "w2"}) - case.outputs(around)
    torch.testing.assert_close(_change(found, "2", "fp32"), wanted, atol=1e-3, rtol=1e-2)


def test_a_second_run_measures_nothing(case: _Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first = case.measure()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pass was run")

    monkeypatch.setattr("mpsearch.sensitivity.output_changes.PrefixStore", forbidden)
    second = case.measure()
    assert (second.work.measured_pairs, second.work.cached_pairs) == (0, 18)
    np.testing.assert_array_equal(first.squared, second.squared)
    np.testing.assert_array_equal(first.divergence, second.divergence)
    assert torch.equal(_change(first, "2", "w2"), _change(second, "2", "w2"))


@pytest.mark.parametrize("after", [1, 7, 12])
def test_a_killed_run_measures_at_most_one_pair_twice(
    case: _Case, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = measure_changes(case.request, cache=None)
    original, runs = PrefixStore.rerun, list[int]()

    def counted(store: PrefixStore, overrides: Mapping[str, Override]) -> object:
        if len(runs) == after:
            raise KeyboardInterrupt
        runs.append(1)
        return original(store, overrides)

    monkeypatch.setattr(PrefixStore, "rerun", counted)
    with pytest.raises(KeyboardInterrupt):
        case.measure()
    monkeypatch.undo()
    again = case.measure()
    assert again.work.cached_pairs == after
    np.testing.assert_array_equal(whole.divergence, again.divergence)


def test_another_plan_around_is_not_taken_from_the_cache(case: _Case) -> None:
    plain = case.measure()
    other = case.measure(around=dict.fromkeys(LAYERS, "w3"))
    assert other.work.cached_pairs == 0
    assert not np.array_equal(plain.divergence, other.divergence)


def test_little_room_keeps_fewer_samples_and_all_losses(case: _Case) -> None:
    whole = case.measure()
    part = measure_changes(case.request, cache=case.cache, largest_bytes=10 * 4 * 6)
    assert [batch.rows for batch in part.batches] == [2, 2, 1]
    np.testing.assert_array_equal(part.squared, whole.squared)
    torch.testing.assert_close(
        part.batches[0].changes["0", "w2"].tensor(),
        whole.batches[0].changes["0", "w2"].tensor()[:2],
        atol=1e-3,
        rtol=1e-2,
    )


def test_an_output_that_is_not_finite_names_the_pair(case: _Case) -> None:
    """Weights so large that rounding them up overflows the sum."""
    model = nn.Sequential(nn.Linear(6, 8), nn.Linear(8, 4))
    first, last = model[0], model[1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        first.weight.zero_()
        first.bias.fill_(1.8)
        last.weight.fill_(1.6e37)
        last.weight[:, 0] = 3e37
    traced = trace_model(model, {"input": case.samples[:2]})
    request = replace(case.request, traced=traced, pairs={"1": ("w2",)})
    with pytest.raises(MeasurementError, match="Layer '1' in 'w2' makes the output NaN"):
        measure_changes(request, cache=None)


@pytest.mark.parametrize("largest_bytes", [1 << 30, 500])
def test_layers_measured_by_several_processes_are_all_that_one_would_measure(
    case: _Case, tmp_path: Path, largest_bytes: int
) -> None:
    alone = measure_changes(
        case.request, cache=Cache(folder=tmp_path / "alone"), largest_bytes=largest_bytes
    )
    for layers in (("4",), ("0", "2")):
        measure_layers(case.request, layers, cache=case.cache, largest_bytes=largest_bytes)
    found = measure_changes(case.request, cache=case.cache, largest_bytes=largest_bytes)
    assert (found.work.measured_pairs, found.work.macs) == (0, 0)
    assert found.squared.tobytes() == alone.squared.tobytes()
    assert found.divergence.tobytes() == alone.divergence.tobytes()
    for one, other in zip(found.batches, alone.batches, strict=True):
        for pair, change in one.changes.items():
            assert change.half.tobytes() == other.changes[pair].half.tobytes()


def test_what_is_missing_is_counted_by_layer(case: _Case) -> None:
    batches = len(case.request.data)
    assert missing_pairs(case.request, cache=case.cache) == dict.fromkeys(LAYERS, 2 * batches)
    work = measure_layers(case.request, ("2",), cache=case.cache)
    assert work.measured_pairs == 2 * batches
    assert missing_pairs(case.request, cache=case.cache) == {
        "0": 2 * batches,
        "2": 0,
        "4": 2 * batches,
    }
