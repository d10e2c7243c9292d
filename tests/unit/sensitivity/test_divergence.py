"""How far outputs are apart, and at which temperature that tells plans apart."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mpsearch.sensitivity.divergence import Divergence, telling_temperature, temperatures_of
from mpsearch.tasks import TASKS

SAMPLES = 160


def carried_by(count: int, *, samples: int = SAMPLES) -> np.ndarray:
    """Return losses that `count` samples carry in equal parts."""
    return (np.arange(samples) < count).astype(float)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_at_another_temperature_it_is_that_of_divided_logits(temperature: float) -> None:
    """Against torch's own KL; the square of the temperature keeps its size."""
    generator = torch.Generator().manual_seed(0)
    full, other = (torch.randn(5, 4, generator=generator) * 3 for _ in range(2))
    plain = Divergence(TASKS["classification"], reference=full, batch={"input": full})
    wanted = torch.nn.functional.kl_div(
        (other / temperature).log_softmax(dim=1),
        (full / temperature).log_softmax(dim=1),
        log_target=True,
        reduction="none",
    ).sum(dim=1)
    found = plain.at(temperature).samples(other)
    assert found == pytest.approx(temperature**2 * wanted.numpy(), rel=1e-4)


def test_the_least_temperature_that_enough_samples_carry_is_taken() -> None:
    few, enough = carried_by(19), carried_by(20)
    assert telling_temperature({1.0: enough, 2.0: carried_by(90)}) == 1.0
    assert telling_temperature({1.0: few, 2.0: enough, 4.0: carried_by(90)}) == 2.0
    assert telling_temperature({4.0: few, 1.0: few, 2.0: few}) == 4.0


def test_of_few_samples_an_eighth_is_enough() -> None:
    of_16 = {1.0: carried_by(2, samples=16), 2.0: carried_by(16, samples=16)}
    assert telling_temperature(of_16) == 1.0
    of_24 = {1.0: carried_by(2, samples=24), 2.0: carried_by(24, samples=24)}
    assert telling_temperature(of_24) == 2.0


@given(
    losses=st.lists(st.floats(0, 1e3), min_size=1, max_size=30),
    factor=st.floats(1e-3, 1e3),
)
def test_the_size_of_a_divergence_decides_nothing(losses: list[float], factor: float) -> None:
    each = np.array(losses)
    pair = {1.0: each, 4.0: np.ones(len(each))}
    scaled = {1.0: each * factor, 4.0: np.ones(len(each))}
    one, other = telling_temperature(pair), telling_temperature(scaled)
    near = np.isclose(each.sum() ** 2, min(20, len(each) / 8) * np.square(each).sum())
    assert one == other or near


def test_a_plan_that_loses_nothing_needs_no_softening() -> None:
    assert telling_temperature({1.0: np.zeros(9), 2.0: np.zeros(9)}) == 1.0


def test_only_logits_have_temperatures() -> None:
    assert temperatures_of(TASKS["classification"])[0] == 1.0
    assert len(temperatures_of(TASKS["classification"])) > 1
    assert temperatures_of(TASKS["embedding"]) == (1.0,)
