"""Random numbers of a sample: the right distribution, the same in every batch."""

import math

import numpy as np
import pytest
import torch

from mpsearch.sensitivity.draws import random_classes, random_normals, random_signs

COUNT = 4000
# Of a mean of COUNT bounded numbers; a miss by 5 deviations has a probability below 1e-6.
WIDE = 5 / math.sqrt(COUNT)


@pytest.mark.parametrize("draw", [random_signs, random_normals, random_classes])
def test_a_sample_has_the_same_numbers_in_every_batch(draw: object) -> None:
    assert callable(draw)
    like = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    whole = draw(like, seed=1, draw=2, places=[7, 8, 9])
    alone = draw(like[1:2], seed=1, draw=2, places=[8])
    assert torch.equal(whole[1:2], alone)


@pytest.mark.parametrize("draw", [random_signs, random_classes])
def test_padding_does_not_change_what_stands_before_it(draw: object) -> None:
    assert callable(draw)
    like = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    short = draw(like[:, :4], seed=1, draw=0, places=[3])
    assert torch.equal(draw(like, seed=1, draw=0, places=[3])[:, :4], short)


def test_signs_are_ones_of_mean_zero_and_independent() -> None:
    signs = random_signs(torch.zeros(COUNT, 2), seed=0, draw=0, places=range(COUNT))
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    assert (signs.mean(dim=0).abs() < WIDE).all()
    assert abs(float((signs[:, 0] * signs[:, 1]).mean())) < WIDE


def test_normals_have_mean_zero_and_variance_one() -> None:
    normals = random_normals(torch.zeros(COUNT, 2), seed=0, draw=0, places=range(COUNT))
    assert (normals.mean(dim=0).abs() < WIDE).all()
    assert ((normals.square().mean(dim=0) - 1).abs() < math.sqrt(2) * WIDE).all()


def test_classes_come_up_by_their_probability() -> None:
    probability = np.array([0.1, 0.0, 0.6, 0.3])
    logits = torch.from_numpy(np.log(np.maximum(probability, 1e-30))).float().expand(COUNT, 4)
    drawn = random_classes(logits, seed=0, draw=0, places=range(COUNT))
    assert torch.equal(drawn.sum(dim=1), torch.ones(COUNT))
    assert np.abs(drawn.mean(dim=0).numpy() - probability).max() < WIDE
    assert drawn[:, 1].sum() == 0
