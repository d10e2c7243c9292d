"""Summed changes predict outputs: exactly where the model is linear in its layers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.search import true_loss
from mpsearch.search.output_sum import OutputSum
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.output_changes import measure_changes
from mpsearch.tasks import TASKS, AbstractTask, CallableTask, read_data
from mpsearch.tasks.dataset import Batch
from mpsearch.tracing import trace_model

FORMATS = ("w6", "w4", "w3")


class _Sum(nn.Module):
    """Two layers that are added: any change of one leaves the other's alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(6, 5), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) + self.right(x.square())  # type: ignore[no-any-return]  # torch types the call of a module as Any


class _Normed(nn.Module):
    """The same sum, then a norm and a head that is wider than what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.sum, self.norm, self.head = _Sum(), nn.LayerNorm(5), nn.Linear(5, 12)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.sum(x)))  # type: ignore[no-any-return]  # torch types the call of a module as Any


def as_it_is(raw: Tensor, batch: Batch) -> Tensor:  # noqa: ARG001 - a task's callable
    """Return the output."""
    return raw


SQUARED = CallableTask(function=as_it_is)


def request_of(model: nn.Module, *, folder: Path, task: AbstractTask) -> ChangeRequest:
    """Return a request for every pair over ten samples."""
    x = torch.randn(10, 6)
    traced = trace_model(model.eval(), {"x": x[:2]})
    data = read_data(
        [{"x": rows} for rows in torch.split(x, 4)],
        input_names=("x",),
        batch_size=4,
        folder=folder,
    )
    pairs = dict.fromkeys(traced.graph.names, FORMATS)
    return ChangeRequest(traced=traced, task=task, data=data, pairs=pairs)


def every_plan(request: ChangeRequest, *, count: int) -> list[dict[str, str]]:
    """Return random assignments."""
    random = np.random.default_rng(0)
    names = ("fp32", *FORMATS)
    return [
        {layer: names[place] for layer, place in zip(request.pairs, row, strict=True)}
        for row in random.integers(0, len(names), (count, len(request.pairs))).tolist()
    ]


@pytest.mark.parametrize("task", [TASKS["classification"], SQUARED], ids=["kl", "squared"])
@pytest.mark.parametrize("network", [_Sum, _Normed])
def test_prediction_is_exact_where_layers_add_up(
    network: type[nn.Module], task: AbstractTask, tmp_path: Path
) -> None:
    """With a norm behind the sum and a quantised head behind the norm too."""
    torch.manual_seed(0)
    request = request_of(network(), folder=tmp_path, task=task)
    changes = measure_changes(request, cache=None)
    truth = TrueLoss(request, cache=None)
    plans = every_plan(request, count=12)
    wanted = [truth.loss(plan) for plan in plans]
    # Changes are kept in half precision.
    np.testing.assert_allclose(OutputSum(changes).predicted(plans), wanted, rtol=2e-2, atol=1e-5)


def test_one_change_alone_is_predicted_as_measured(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    request = request_of(_named(model), folder=tmp_path, task=TASKS["classification"])
    changes = measure_changes(request, cache=None)
    singles = [{layer: name} for layer in request.pairs for name in FORMATS]
    wanted = changes.divergence.mean(axis=0).ravel()
    found = OutputSum(changes).predicted(singles)
    np.testing.assert_allclose(found, wanted, rtol=1e-2, atol=1e-6)


def test_around_a_plan_its_own_formats_add_nothing(tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4))
    plain = request_of(_named(model), folder=tmp_path, task=TASKS["classification"])
    around = dict.fromkeys(plain.pairs, "w3")
    changes = measure_changes(replace(plain, around=around), cache=None)
    truth = TrueLoss(plain, cache=None)
    total = OutputSum(changes)
    assert total.predicted([around])[0] == pytest.approx(truth.loss(around), rel=1e-5)
    one = {**around, next(iter(around)): "w6"}
    assert total.predicted([one])[0] == pytest.approx(truth.loss(one), rel=1e-2)


def test_around_a_plan_full_precision_is_a_change_like_any_other(tmp_path: Path) -> None:
    """The plan's own formats need not have been measured, and fp32 is not taken for one."""
    torch.manual_seed(2)
    plain = request_of(_Sum(), folder=tmp_path, task=TASKS["classification"])
    around = dict.fromkeys(plain.pairs, "w3")
    pairs = dict.fromkeys(plain.pairs, ("fp32", "w6"))
    total = OutputSum(measure_changes(replace(plain, around=around, pairs=pairs), cache=None))
    truth = TrueLoss(plain, cache=None)
    first, second = plain.pairs
    for plan in ({first: "w3", second: "fp32"}, {first: "w6", second: "w3"}, around):
        assert total.predicted([plan])[0] == pytest.approx(truth.loss(plan), rel=2e-2, abs=1e-5)


def test_many_plans_at_once_are_each_predicted_as_alone(tmp_path: Path) -> None:
    """A second method: sample by sample, without the product of matrices."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    for task in (TASKS["classification"], SQUARED):
        request = request_of(_named(model), folder=tmp_path, task=task)
        total = OutputSum(measure_changes(request, cache=None))
        plans = every_plan(request, count=7)
        alone = [total.per_sample(plan).mean() for plan in plans]
        np.testing.assert_allclose(total.predicted(plans), alone, rtol=1e-3, atol=1e-7)


def test_fewer_samples_are_the_first_ones(tmp_path: Path) -> None:
    torch.manual_seed(4)
    request = request_of(_Normed(), folder=tmp_path, task=TASKS["classification"])
    changes = measure_changes(request, cache=None)
    plan = every_plan(request, count=1)[0]
    whole, part = OutputSum(changes), OutputSum(changes, samples=6)
    assert (whole.samples, part.samples) == (10, 6)
    np.testing.assert_array_equal(part.per_sample(plan), whole.per_sample(plan)[:6])


def test_a_true_loss_is_run_once_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(5)
    request = request_of(_Sum(), folder=tmp_path / "data", task=TASKS["classification"])
    cache = Cache(folder=tmp_path / "cache")
    plans: list[Mapping[str, str]] = [*every_plan(request, count=4)]
    first = TrueLoss(request, cache=cache)
    losses = [first.loss(plan) for plan in (*plans, *plans)]
    assert first.passes == len({tuple(plan.items()) for plan in plans})

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a pass was run")

    monkeypatch.setattr(true_loss, "evaluate", forbidden)
    again = TrueLoss(request, cache=cache)
    assert [again.loss(plan) for plan in (*plans, *plans)] == losses
    assert again.passes == first.passes


def _named(model: nn.Sequential) -> nn.Module:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x)  # type: ignore[no-any-return]  # torch types the call of a module as Any

    return Named()
