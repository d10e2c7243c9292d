"""Retrieval: who is found, and at which place."""

import math

import pytest
import torch

from mpsearch.errors import DataError
from mpsearch.tasks import TASKS


def _at(*degrees: float) -> torch.Tensor:
    """Return unit vectors at angles, so that the nearest by cosine is the nearest by angle."""
    return torch.tensor([[math.cos(math.radians(d)), math.sin(math.radians(d))] for d in degrees])


def _quality(vectors: torch.Tensor, *labels: int) -> dict[str, float]:
    task = TASKS["retrieval"]
    batch = {"x": vectors, "labels": torch.tensor(labels)}
    return task.quality([task.outputs(vectors, batch)], [batch])


def test_recall_and_reciprocal_rank_by_hand() -> None:
    """At 0, 10, 25 and 60 degrees with labels a, b, a, b.

    The nearest of 0 is 10 (wrong) then 25: rank 2. Of 10: 0, 25, then 60: rank 3. Of 25: 10,
    then 0: rank 2. Of 60: 25, then 10: rank 2.
    """
    found = _quality(_at(0, 10, 25, 60), 0, 1, 0, 1)
    assert found["recall_at_1"] == 0.0
    assert found["mrr_at_10"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)


def test_who_has_nothing_to_find_does_not_count() -> None:
    found = _quality(_at(0, 5, 90, 170), 0, 0, 1, 2)
    assert found == {"recall_at_1": 1.0, "mrr_at_10": 1.0}


def test_nothing_within_ten_counts_as_nothing() -> None:
    vectors = _at(0, *(float(place) for place in range(1, 12)), 40)
    labels = [7, *range(20, 31), 7]
    found = _quality(vectors, *labels)
    assert found["mrr_at_10"] == 0.0


def test_where_no_two_belong_together_quality_is_zero_and_without_labels_there_is_none() -> None:
    assert _quality(_at(0, 50, 90), 0, 1, 2) == {"recall_at_1": 0.0, "mrr_at_10": 0.0}
    task = TASKS["retrieval"]
    vectors = _at(0, 50)
    assert task.quality([vectors], [{"x": vectors}]) == {}


def test_fidelity_is_that_of_the_embedding() -> None:
    full, other = torch.randn(2, 12, 6, generator=torch.Generator().manual_seed(0))
    batch = {"x": full}
    measured = {
        name: TASKS[name].fidelity(
            [TASKS[name].outputs(full, batch)], [TASKS[name].outputs(other, batch)], [batch]
        )
        for name in ("retrieval", "embedding")
    }
    assert measured["retrieval"] == measured["embedding"]


def test_labels_of_another_shape_are_refused() -> None:
    vectors = _at(0, 50)
    with pytest.raises(DataError, match="one number per sample"):
        TASKS["retrieval"].quality([vectors], [{"x": vectors, "labels": torch.zeros(2, 3)}])
