"""SSIM equals its definition, window by window, and knows when nothing changed."""

import numpy as np
import pytest
import torch

from mpsearch.sensitivity.structural_similarity import structural_similarity


def by_definition(full: np.ndarray, other: np.ndarray, *, span: float) -> float:
    """Return the SSIM of two windows from their covariance matrix."""
    covariance = np.cov(full.ravel(), other.ravel())
    low, high = (0.01 * span) ** 2, (0.03 * span) ** 2
    means = full.mean(), other.mean()
    luminance = (2 * means[0] * means[1] + low) / (means[0] ** 2 + means[1] ** 2 + low)
    contrast = (2 * covariance[0, 1] + high) / (covariance[0, 0] + covariance[1, 1] + high)
    return float(luminance * contrast)


def test_images_are_compared_window_by_window() -> None:
    random = np.random.default_rng(0)
    full = random.random((2, 3, 12, 10)).astype(np.float32)
    other = full + 0.2 * random.standard_normal(full.shape).astype(np.float32)
    expected = [
        np.mean(
            [
                by_definition(
                    full[s, c, y : y + 7, x : x + 7].astype(float),
                    other[s, c, y : y + 7, x : x + 7].astype(float),
                    span=float(full[s].max() - full[s].min()),
                )
                for c in range(3)
                for y in range(12 - 6)
                for x in range(10 - 6)
            ]
        )
        for s in range(2)
    ]
    found = structural_similarity(torch.from_numpy(full), torch.from_numpy(other))
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_other_outputs_are_one_window() -> None:
    random = np.random.default_rng(1)
    full, other = random.random((4, 9)), random.random((4, 9))
    expected = [
        by_definition(full[s], other[s], span=float(np.ptp(full[s]))) for s in range(len(full))
    ]
    found = structural_similarity(torch.from_numpy(full), torch.from_numpy(other))
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (3, 5), (2, 1, 3, 3)])
def test_what_did_not_change_is_similar_by_one(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    assert structural_similarity(values, values).tolist() == pytest.approx([1.0] * shape[0])


def test_a_constant_image_is_compared_too() -> None:
    assert torch.isfinite(structural_similarity(torch.ones(1, 1, 8, 8), torch.zeros(1, 1, 8, 8)))
