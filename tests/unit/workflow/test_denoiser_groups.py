"""A search of a real diffusion model in groups with metrics of their own, end to end."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import mpsearch
from benchmarks.zoo.denoiser import Denoiser, denoiser, drawn, noised
from benchmarks.zoo.place import is_present
from mpsearch.search.grouping import LayerGroup
from mpsearch.tasks import Batch
from mpsearch.workflow.search import SearchResult

pytestmark = [
    pytest.mark.zoo,
    pytest.mark.skipif(not is_present(), reason="the zoo does not lie beside the project"),
]
# As MixDQ: what conditions the image by SQNR, what makes it by its similarity.
_GROUPS = (
    LayerGroup(name="time", layers=("time_embed*",), metric="sqnr_list"),
    LayerGroup(name="image", layers=("kind:conv",), metric="structural_similarity"),
)
_BITS = 4.0


def _noise(raw: Any, batch: Batch) -> Tensor:  # noqa: ANN401, ARG001 - any model's raw output
    assert isinstance(raw, Tensor)
    return raw


def _unlabelled(batches: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    return [{name: batch[name] for name in ("image", "time")} for batch in batches]


@pytest.fixture(scope="module")
def model() -> Denoiser:
    return denoiser()


@pytest.fixture(scope="module")
def found(model: Denoiser, tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return mpsearch.search(
        model,
        _unlabelled(noised(model, rows=range(5000, 5006), seed=1)),
        budgets={"weight_bits": str(_BITS)},
        task=_noise,
        validation=_unlabelled(noised(model, rows=range(6000, 6006), seed=2)),
        formats=("w8", "w4", "w2"),
        runtime="simulation",
        groups=_GROUPS,
        effort=4.0,
        cache=tmp_path_factory.mktemp("cache"),
    )


def test_the_model_predicts_noise_as_its_record_says(model: Denoiser) -> None:
    """0.018098 over 2000 digits; a tenth of them is within a tenth of it."""
    batches = noised(model, rows=range(200), seed=0)
    with torch.no_grad():
        errors = [
            (model(batch["image"], batch["time"]) - batch["label"]).square().flatten(1).mean(1)
            for batch in batches
        ]
    assert float(torch.cat(errors).mean()) == pytest.approx(0.018098, rel=0.1)


def test_groups_propose_splits_and_the_end_metric_decides(found: SearchResult) -> None:
    splits = [step for step in found.trace if "groups time" in step.origin]
    others = [step for step in found.trace if "groups time" not in step.origin]
    assert splits
    assert others
    least = min(found.trace, key=lambda step: step.measured)
    assert least.origin in found.plan.origin


def test_the_plan_keeps_the_budget_of_all_groups_together(
    found: SearchResult, model: Denoiser
) -> None:
    sizes = {name: model.get_parameter(f"{name}.weight").numel() for name in found.plan.assignment}
    bits = {
        name: int(form[1:]) if form != "fp32" else 32
        for name, form in found.plan.assignment.items()
    }
    spent = sum(sizes[name] * bits[name] for name in sizes)
    assert spent <= _BITS * sum(sizes.values())
    assert {name.split(".")[0] for name in sizes} == {"blocks", "time_embed"}


def test_held_out_noise_is_still_predicted_and_images_still_drawn(
    found: SearchResult, model: Denoiser
) -> None:
    stored = mpsearch.apply(model, found.plan)
    (batch,) = noised(model, rows=range(32), seed=0)
    with torch.no_grad():
        full = model(batch["image"], batch["time"])
        lost = (stored(batch["image"], batch["time"]) - full).square().mean()
        # Predicting nothing would lose the power of the noise, about 1.
        assert 0 < float(lost) < 0.1 * float(full.square().mean())
    images = drawn(stored, model, images=2, steps=3, seed=0)
    assert bool(torch.isfinite(images).all())
