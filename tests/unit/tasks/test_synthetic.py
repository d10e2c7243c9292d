"""Inputs made from weights: batch norms see what they stored, tokens are ones that were trained."""

import pytest
import torch
from torch import Tensor, nn

from mpsearch.errors import DataError
from mpsearch.tasks.synthetic import (
    SyntheticInputs,
    distilled,
    norm_mismatch,
    synthetic_batches,
)

torch.set_num_threads(1)
_EXAMPLE = {"x": torch.zeros(1, 3, 12, 12)}


def _network(*, seed: int = 0) -> nn.Module:
    """Return a network whose batch norms have seen pictures with edges, far from noise."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 4),
    )
    for _ in range(60):
        corner = torch.rand(64, 3, 1, 1) * 4
        picture = torch.where(torch.arange(12) > torch.randint(12, (64, 1, 1, 1)), corner, -0.5)
        network(picture + 0.1 * torch.randn(64, 3, 12, 12))
    return network.eval()


def test_distilled_pictures_match_the_statistics_a_hundred_times_better_than_noise() -> None:
    network = _network()
    noise = {"x": torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(1))}
    with torch.no_grad():
        before = float(norm_mismatch(network, noise))
        after = float(norm_mismatch(network, distilled(network, noise)))
    assert after < before / 100


def test_the_mismatch_is_zero_for_what_the_norm_has_seen_and_known_beside_it() -> None:
    """A closed form: a shift by d deviations costs d squared, of two norms half of it."""
    data = torch.randn(500, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    norm = nn.BatchNorm2d(3, momentum=None, eps=1e-12)
    norm(data)
    norm.running_var = data.transpose(0, 1).flatten(1).var(dim=1, correction=0)
    norm.eval()
    assert float(norm_mismatch(norm, {"input": data})) == pytest.approx(0, abs=1e-10)
    moved = data + 0.5 * norm.running_var.sqrt()[None, :, None, None]
    assert float(norm_mismatch(norm, {"input": moved})) == pytest.approx(0.25, rel=1e-4)
    center = data.mean(dim=(0, 2, 3), keepdim=True)
    wider = (data - center) * 3 + center
    assert float(norm_mismatch(norm, {"input": wider})) == pytest.approx(4.0, rel=1e-4)


def test_the_model_is_left_as_it_was() -> None:
    network = _network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    list(synthetic_batches(network, example=_EXAMPLE, wanted=SyntheticInputs(samples=4, steps=2)))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert all(each.requires_grad and each.grad is None for each in network.parameters())


def test_the_same_seed_gives_the_same_inputs_and_another_one_others() -> None:
    network = _network()

    def made(seed: int) -> Tensor:
        wanted = SyntheticInputs(samples=3, steps=2, seed=seed)
        return next(iter(synthetic_batches(network, example=_EXAMPLE, wanted=wanted)))[0]["x"]

    assert torch.equal(made(0), made(0))
    assert not torch.allclose(made(0), made(1))


def test_samples_and_places_are_those_asked_for() -> None:
    network = nn.Linear(5, 2)
    wanted = SyntheticInputs(samples=70)
    batches = list(synthetic_batches(network, example={"input": torch.zeros(2, 5)}, wanted=wanted))
    assert [place for _, places in batches for place in places] == list(range(70))
    values = torch.cat([batch["input"] for batch, _ in batches])
    assert float(values.std()) == pytest.approx(1, abs=0.1)


class _Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(400, 4)
        self.words = nn.Embedding(200, 4)
        with torch.no_grad():
            self.words.weight[0] = 0.0
            self.words.weight[7] *= 1e3

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden: Tensor = self.words(input_ids) + self.positions(places)
        return hidden * attention_mask[:, :, None]


def test_tokens_are_those_of_the_embedding_that_reads_them_less_its_outliers() -> None:
    torch.manual_seed(0)
    example = {
        "input_ids": torch.arange(16).reshape(2, 8) + 20,
        "attention_mask": torch.ones(2, 8, dtype=torch.long),
    }
    ((batch, _),) = synthetic_batches(
        _Reader(), example=example, wanted=SyntheticInputs(samples=32)
    )
    tokens = set(batch["input_ids"].flatten().tolist())
    assert tokens <= set(range(200)) - {0, 7}
    assert len(tokens) > 100
    assert bool((batch["attention_mask"] == 1).all())


def test_one_sample_cannot_be_split() -> None:
    with pytest.raises(DataError, match="at least 2"):
        next(
            iter(synthetic_batches(_network(), example=_EXAMPLE, wanted=SyntheticInputs(samples=1)))
        )
