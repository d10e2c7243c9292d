"""Tasks whose outputs are pictures, against closed forms."""

import math

import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import TASKS
from mpsearch.tasks.dense import Dense

SHAPE = (3, 2, 4, 5)


def _rand(seed: int = 0) -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("error", [0.5, 0.1, 1e-3])
def test_the_peak_ratio_of_an_even_error_is_known(error: float) -> None:
    """Of values from 0 to 1, each off by e, it is 20 log10(1 / e)."""
    wanted = _rand()
    batch = {"x": wanted, "labels": wanted}
    signs = torch.where(_rand(1) > 0.5, error, -error)
    found = TASKS["dense"].quality([wanted + signs], [batch])["labelled_psnr"]
    assert found == pytest.approx(20 * math.log10(1 / error), abs=1e-3)


def test_labels_of_whole_numbers_peak_at_255_unless_said() -> None:
    wanted = (_rand() * 255).to(torch.uint8)
    batch = {"x": _rand(), "labels": wanted}
    found = TASKS["dense"].quality([wanted.float() + 5], [batch])["labelled_psnr"]
    assert found == pytest.approx(20 * math.log10(255 / 5))
    said = Dense(peak=10.0).quality([wanted.float() + 5], [batch])["labelled_psnr"]
    assert said == pytest.approx(20 * math.log10(10 / 5))


def test_against_full_precision_the_peak_is_the_range_of_each_sample() -> None:
    full = _rand() * torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1)
    wide = full.flatten(start_dim=1)
    spread = wide.amax(dim=1) - wide.amin(dim=1)
    other = full + 0.01 * spread.reshape(3, 1, 1, 1)
    found = TASKS["dense"].fidelity_samples([full], [other], [{"x": full}])["psnr"]
    assert found.tolist() == pytest.approx([40.0] * 3, abs=1e-2)


def test_an_output_without_error_has_a_hundred_decibels() -> None:
    full = _rand()
    for name, measure in (("dense", "psnr"), ("denoiser", "sqnr")):
        found = TASKS[name].fidelity([full], [full], [{"x": full}])
        assert found == {measure: pytest.approx(100.0)}


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_prediction_that_is_scaled_has_a_known_ratio(share: float) -> None:
    """Noise is `share` of the signal: -20 log10(share) dB, and 1 - share^2 is explained."""
    noise = _rand() - 0.5
    batch = {"x": noise, "labels": noise}
    other = noise * (1 + share)
    task = TASKS["denoiser"]
    assert task.fidelity([noise], [other], [batch])["sqnr"] == pytest.approx(
        -20 * math.log10(share), abs=1e-3
    )
    assert task.quality([other], [batch])["explained"] == pytest.approx(1 - share**2, abs=1e-5)


@pytest.mark.parametrize("name", ["dense", "denoiser"])
def test_the_squared_error_is_a_mean_over_places(name: str) -> None:
    full = _rand()
    found = TASKS[name].squared_error(full, full + 0.5, {"x": full})
    torch.testing.assert_close(found, torch.full((3,), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("name", ["dense", "denoiser"])
def test_without_labels_there_is_no_quality_and_wrong_ones_are_refused(name: str) -> None:
    full = _rand()
    assert TASKS[name].quality([full], [{"x": full}]) == {}
    with pytest.raises(DataError, match="labels have the shape"):
        TASKS[name].quality([full], [{"x": full, "labels": full[:, :1]}])
