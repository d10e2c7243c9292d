"""True losses at every temperature from one forward pass."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mpsearch.core.cache import Cache
from mpsearch.execution import run
from mpsearch.execution.interpreter import evaluate
from mpsearch.search.true_loss import TrueLoss
from mpsearch.sensitivity.change_request import ChangeRequest
from mpsearch.sensitivity.divergence import Divergence
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model

SAMPLES = 200
PLAN = {"0": "w3", "2": "w2"}


class _Sure(nn.Module):
    """Logits that are far apart but for few samples, so that those carry the divergence."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x) * 40.0
        return logits


@pytest.fixture
def request_of_few(tmp_path: Path) -> ChangeRequest:
    torch.manual_seed(0)
    samples = torch.randn(SAMPLES, 6)
    traced = trace_model(_Sure().eval(), {"x": samples[:2]})
    data = read_data([{"x": samples}], input_names=("x",), batch_size=64, folder=tmp_path)
    return ChangeRequest(traced=traced, task=TASKS["classification"], data=data, pairs={})


def by_hand(request: ChangeRequest, plan: dict[str, str], *, temperature: float) -> np.ndarray:
    """Return divergences from passes of their own."""
    found = []
    for batch in request.data:
        full = request.task.outputs(run(request.traced, batch), batch)
        with torch.no_grad():
            other = evaluate(request.traced, batch, overrides=request.plan_overrides(plan))
        divergence = Divergence(request.task, reference=full, batch=batch, temperature=temperature)
        found.append(divergence.samples(request.task.outputs(other, batch)))
    return np.concatenate(found)


def named(request: ChangeRequest, plan: dict[str, str]) -> dict[str, str]:
    """Return the plan with the traced model's own layer names."""
    return {request.traced.graph.names[int(key) // 2]: name for key, name in plan.items()}


def test_losses_are_undivided_until_settled(request_of_few: ChangeRequest) -> None:
    plan = named(request_of_few, PLAN)
    truth = TrueLoss(request_of_few, cache=None)
    wanted = by_hand(request_of_few, plan, temperature=1.0)
    assert truth.per_sample(plan) == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    assert truth.loss(plan) == pytest.approx(wanted.mean(), rel=1e-5)


def test_settling_takes_the_telling_temperature_for_all_that_follows(
    request_of_few: ChangeRequest, tmp_path: Path
) -> None:
    mild = dict.fromkeys(named(request_of_few, PLAN), "w6")
    truth = TrueLoss(request_of_few, cache=Cache(folder=tmp_path / "cache"))
    truth.settle(mild)
    assert truth.temperature > 1.0
    plain = by_hand(request_of_few, mild, temperature=1.0)
    assert plain.sum() ** 2 < 20 * np.square(plain).sum()
    for plan in (mild, named(request_of_few, PLAN)):
        wanted = by_hand(request_of_few, plan, temperature=truth.temperature)
        assert truth.per_sample(plan) == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    assert truth.passes == 2
    again = TrueLoss(request_of_few, cache=Cache(folder=tmp_path / "cache"))
    again.settle(mild)
    assert again.temperature == truth.temperature
    assert np.array_equal(again.per_sample(mild), truth.per_sample(mild))
