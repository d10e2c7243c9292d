"""Ranges of addends, and quantised sums, against NumPy."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mpsearch.core.cache import Cache
from mpsearch.core.placement import RESIDUAL_ADDS, addend_keys
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.errors import PlanError
from mpsearch.execution import addition_overrides, observe_addends, quantised, run
from mpsearch.execution.interpreter import evaluate
from mpsearch.tasks.dataset import Dataset, spill
from mpsearch.testing.networks import forms, residual
from mpsearch.tracing import TracedModel, trace_model


@pytest.fixture(scope="module")
def traced() -> TracedModel:
    module, example = residual()
    return trace_model(module, example)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, traced: TracedModel) -> Dataset:
    return spill([(traced.example, [0, 1])], folder=Path(tmp_path_factory.mktemp("data")))


def _values(traced: TracedModel) -> dict[str, np.ndarray]:
    """Return what every node gives for the example."""
    found: dict[str, np.ndarray] = {}

    def keep(node: torch.fx.Node, value: torch.Tensor) -> torch.Tensor:
        found[node.name] = value.detach().numpy()
        return value

    with torch.no_grad():
        evaluate(traced, traced.example, after=keep)
    return found


def _rounded(values: np.ndarray, quantizer: ActivationQuantizer) -> np.ndarray:
    scale = np.float32(quantizer.scale)
    codes = np.clip(np.rint(values / scale) + quantizer.zero_point, 0, 255)
    return np.asarray((codes - quantizer.zero_point) * scale, dtype=np.float32)


def test_ranges_are_those_of_the_own_and_the_other_addend(
    traced: TracedModel, data: Dataset
) -> None:
    found = observe_addends(traced, data, additions=["same"], method="minmax")
    values = _values(traced)
    for key, node in zip(addend_keys("same"), ("conv2d_1", "relu"), strict=True):
        assert found[key].low == pytest.approx(min(values[node].min(), 0.0))
        assert found[key].high == pytest.approx(values[node].max())


def test_observed_ranges_are_remembered(
    traced: TracedModel, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = Cache(folder=Path(tmp_path_factory.mktemp("cache")))
    first = observe_addends(traced, data, additions=["same"], cache=cache)
    assert observe_addends(traced, data, additions=["same"], cache=cache) == first
    assert cache.sizes()["addend_ranges"][0] == 1


def test_each_addend_is_rounded_by_its_own_quantiser(traced: TracedModel, data: Dataset) -> None:
    quantizers = observe_addends(traced, data, additions=["same"], method="minmax")
    own, other = (quantizers[key] for key in addend_keys("same"))
    assert own.zero_point != other.zero_point
    values = _values(traced)
    (override,) = addition_overrides(traced, quantizers).values()
    found = override(torch.tensor(values["conv2d_1"]), torch.tensor(values["relu"]))
    expected = _rounded(values["conv2d_1"], own) + _rounded(values["relu"], other)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_the_own_addend_may_stand_second() -> None:
    module, example = forms()
    traced = trace_model(module, example)
    coarse, fine = (
        ActivationQuantizer(
            scale=scale, zero_point=zero, low=-1.0, high=1.0, method="minmax", samples=1
        )
        for scale, zero in ((0.5, 10), (0.125, 200))
    )
    quantizers = dict(zip(addend_keys("free"), (coarse, fine), strict=True))
    (override,) = addition_overrides(traced, quantizers).values()
    stream, made = torch.tensor([0.3, 0.2]), torch.tensor([-0.2, 0.6])
    assert override(stream, made).tolist() == [0.25 - 0.0, 0.25 + 0.5]


def test_a_plan_of_another_placement_leaves_sums_alone(traced: TracedModel, data: Dataset) -> None:
    quantizers = observe_addends(traced, data, additions=["same"])
    assignment = dict.fromkeys(traced.graph.names, "fp32")
    plain = run(traced, traced.example)
    for placement, is_same in (("layer_inputs", True), (RESIDUAL_ADDS, False)):
        plan = Plan(assignment=assignment, placement=placement, quantizers=quantizers)
        with quantised(traced, plan) as model:
            assert torch.equal(run(model, traced.example), plain) is is_same


def test_additions_that_the_model_lacks_or_half_quantised_are_refused(
    traced: TracedModel, data: Dataset
) -> None:
    quantizers = observe_addends(traced, data, additions=["same"])
    own, other = addend_keys("same")
    for wrong in ({own: quantizers[own]}, {other: quantizers[other]}):
        with pytest.raises(PlanError, match="one has none"):
            addition_overrides(traced, wrong)
    stranger = dict.fromkeys(addend_keys("stem"), quantizers[own])
    with pytest.raises(PlanError, match="no such addition"):
        addition_overrides(traced, stranger)
