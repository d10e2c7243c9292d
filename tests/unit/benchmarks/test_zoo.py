"""Real models as the benchmarks call them agree with their records and with the referee."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks.zoo.case import Batches, ZooCase
from benchmarks.zoo.minilm import minilm
from benchmarks.zoo.place import ZOO, is_present, referee_scores
from benchmarks.zoo.resnet import cifar_resnet
from benchmarks.zoo.stories import stories
from mpsearch.tracing import LoadedModel, trace_model

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not is_present(), reason="the zoo does not lie beside the project"),
]


def _record(name: str) -> dict[str, Any]:
    meta = json.loads((ZOO / name / "meta.json").read_text(encoding="utf-8"))
    return dict(meta["metric"])


def _made(name: str, folder: Path) -> ZooCase:
    makers: dict[str, Callable[[], ZooCase]] = {
        "cifar10_resnet20": lambda: cifar_resnet("cifar10_resnet20"),
        "cifar10_resnet32": lambda: cifar_resnet("cifar10_resnet32"),
        "stories260k": stories,
        "minilm_l6_v2": lambda: minilm(folder),
    }
    return makers[name]()


_NAMES = ("cifar10_resnet20", "cifar10_resnet32", "stories260k", "minilm_l6_v2")


@pytest.mark.parametrize("name", _NAMES)
def test_layers_are_those_that_the_referee_scores(name: str, tmp_path: Path) -> None:
    case = _made(name, tmp_path)
    example = case.parts(0).calibration[0]
    if isinstance(case.model, LoadedModel):
        traced = trace_model(case.model.module, case.model.example, root=case.model.root)
    else:
        inputs = {key: value[:2] for key, value in example.items() if key in ("image", "input_ids")}
        traced = trace_model(case.model, inputs)
    assert set(case.fixed) < set(traced.graph.names) or not case.fixed
    bits = dict.fromkeys(set(traced.graph.names) - set(case.fixed), 32)
    assert referee_scores(name, bits, split="calib")["kl"] < 1e-6


@pytest.mark.parametrize("name", _NAMES)
def test_no_sample_both_calibrates_and_validates(name: str, tmp_path: Path) -> None:
    parts = _made(name, tmp_path).parts(1)
    calibration, validation = (_samples(each) for each in (parts.calibration, parts.validation))
    # A story or a sentence may be there twice, but the parts are not one and the same.
    shared = calibration & validation
    assert len(shared) <= 0.02 * len(calibration)


def _samples(batches: Batches) -> set[bytes]:
    first = next(iter(batches[0]))
    return {row.numpy().tobytes().rstrip(b"\0") for batch in batches for row in batch[first]}


def test_a_residual_network_classifies_as_well_as_its_record() -> None:
    case = cifar_resnet("cifar10_resnet20")
    assert isinstance(case.model, nn.Module)
    batches = case.test()[:4]
    with torch.no_grad():
        right = [_right(case.model(batch["image"]), batch["labels"]) for batch in batches]
    share = np.mean(right)
    recorded = _record(case.name)["test_top1"]
    # Of 512 images the share has a standard error of .012.
    assert abs(share - recorded) < 4 * 0.0125


def _right(logits: Tensor, labels: Tensor) -> float:
    return float((logits.argmax(1) == labels).double().mean())


def test_stories_predicts_as_well_as_its_record() -> None:
    case = stories()
    assert isinstance(case.model, nn.Module)
    surprise = count = 0.0
    with torch.no_grad():
        for batch in (*case.parts(0).calibration, *case.parts(0).validation, *case.test()):
            real = batch["attention_mask"][:, 1:].bool()
            logits = case.model(batch["input_ids"])[:, :-1][real]
            following = batch["input_ids"][:, 1:][real]
            surprise += float(nn.functional.cross_entropy(logits, following, reduction="sum"))
            count += len(following)
    assert surprise / count == pytest.approx(_record(case.name)["loss"], abs=0.01)
