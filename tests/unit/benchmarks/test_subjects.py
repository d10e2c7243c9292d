"""Real models with data cut in three: the measures agree with their records, parts are apart."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.cost.images import lite0_on_imagenet, resnet32_on_cifar
from benchmarks.cost.lite0 import is_installed
from benchmarks.cost.sentences import minilm_on_stsb
from benchmarks.cost.subjects import Subject
from benchmarks.zoo.place import ZOO, is_present
from mpsearch.execution import run

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not is_present(), reason="the zoo does not lie beside the project"),
]


def _full_precision(subject: Subject) -> float:
    traced = subject.traced()
    with torch.no_grad():
        return subject.score(lambda batch: run(traced, batch), subject.parts["test"])


def test_minilm_ranks_pairs_as_its_record_says(tmp_path: Path) -> None:
    record = json.loads((ZOO / "minilm_l6_v2" / "meta.json").read_text(encoding="utf-8"))
    found = _full_precision(minilm_on_stsb(tmp_path / "model", share=1))
    assert found == pytest.approx(record["metric"]["stsb_test_spearman_fp32"], abs=5e-4)


def test_a_part_of_pairs_is_in_one_part_alone(tmp_path: Path) -> None:
    parts = minilm_on_stsb(tmp_path / "model", share=1).parts
    pairs = {
        part: {pair[:2] for piece in pieces for pair in piece} for part, pieces in parts.items()
    }
    assert len(pairs["validation"]) > 1000
    assert not pairs["validation"] & pairs["test"]


@pytest.mark.parametrize("make", [resnet32_on_cifar, lite0_on_imagenet])
def test_an_image_is_in_one_part_alone(make: Callable[..., Subject]) -> None:
    if make is lite0_on_imagenet and not is_installed():
        pytest.skip("the weights of Lite0 are not installed")
    subject = make(share=1)
    parts = [subject.calibration, subject.parts["validation"], subject.parts["test"]]
    seen = [_digests([batch["image"] for batch in part]) for part in parts]
    assert all(seen)
    assert not (seen[0] & seen[1]) | (seen[0] & seen[2]) | (seen[1] & seen[2])


def _digests(images: list[Tensor]) -> set[bytes]:
    return {np.asarray(image).tobytes() for batch in images for image in batch}
