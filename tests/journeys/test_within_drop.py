"""The question most people have: the smallest plan that loses no more than so much."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mpsearch
from mpsearch.errors import BoundNotHeldError

CLASSES = 4


def samples(count: int, *, seed: int) -> dict[str, Tensor]:
    """Return points around four centres, and which one each belongs to."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    centres = 2 * torch.eye(CLASSES).repeat(1, 4)
    points = centres[labels] + torch.randn(count, 16, generator=generator)
    return {"input": points, "labels": labels}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """Return a classifier trained on such points."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
    network.append(nn.Linear(64, CLASSES))
    data = samples(2_000, seed=1)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(data["input"]), data["labels"])
        torch.autograd.backward(loss)
        optimiser.step()
    return network.eval()


def test_the_smallest_plan_that_loses_at_most_a_point(model: nn.Module, tmp_path: Path) -> None:
    found = mpsearch.search(
        model,
        samples(200, seed=2),
        validation=samples(3_000, seed=3),
        test=samples(3_000, seed=4),
        task="classification",
        runtime="simulation",
        max_drop=1.0,
        minimise="weight_bytes",
        cache=str(tmp_path),
    )
    rows = {row.quantity: row for row in found.verification}
    row = rows["drop of accuracy on validation data"]
    assert row.passed
    assert row.interval is not None
    assert row.limit == 0.01
    assert row.interval[1] <= row.limit
    # By the classifier's own accuracy on data that nothing saw.
    assert rows["drop of accuracy on test data"].measured < 0.01 + 0.01
    full = 4 * sum(p.numel() for p in model.parameters() if p.ndim > 1)
    assert found.plan.forecast["weight_bytes"] < 0.25 * full


def test_too_little_validation_data_is_answered_with_how_much_it_takes(
    model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(BoundNotHeldError) as caught:
        mpsearch.search(
            model,
            samples(100, seed=2),
            validation=samples(50, seed=3),
            task="classification",
            runtime="simulation",
            max_drop=0.1,
            minimise="weight_bytes",
            cache=tmp_path,
        )
    assert caught.value.samples == 50
    assert caught.value.needed is not None
    assert caught.value.needed > 2_000
