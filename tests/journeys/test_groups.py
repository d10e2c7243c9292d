"""Groups of layers judged by metrics of their own, the winner by the end metric."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mpsearch
from mpsearch.errors import UnknownLayerError, UsageError


class Denoiser(nn.Module):
    """Convolutions around a linear layer that mixes channels: a small image in, one out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv_in = nn.Conv2d(1, 8, 3, padding=1)
        self.ff = nn.Linear(8, 8)
        self.conv_out = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        hidden = torch.relu(self.conv_in(image))
        hidden = hidden + self.ff(hidden.movedim(1, -1)).movedim(-1, 1)
        result: Tensor = self.conv_out(hidden)
        return result


def whole_image(raw: Tensor, batch: object) -> Tensor:  # noqa: ARG001  # as tasks are called
    return raw


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(24, 1, 12, 12, generator=torch.Generator().manual_seed(1))


GROUPING = """
[[group]]
name = "content"
layers = ["*ff*"]
metric = "structural_similarity"

[[group]]
name = "quality"
layers = ["kind:conv"]
metric = "sqnr_list"
"""


def test_groups_propose_beside_the_other_metrics_and_the_end_metric_decides(
    images: Tensor, tmp_path: Path
) -> None:
    file = tmp_path / "groups.toml"
    file.write_text(GROUPING)
    search = partial(
        mpsearch.search,
        Denoiser(),
        images,
        budgets={"weight_bits": "4"},
        task=whole_image,
        runtime="simulation",
        cache=tmp_path / "cache",
    )
    plain, found = search(), search(groups=file)
    origins = {step.origin for step in found.trace}
    assert any("groups content" in origin for origin in origins)
    loss = {row.quantity: row.measured for row in found.verification}["loss on validation data"]
    before = {row.quantity: row.measured for row in plain.verification}["loss on validation data"]
    assert loss <= before


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (GROUPING.replace("*ff*", "*attn2*"), UnknownLayerError),
        (GROUPING.replace("sqnr_list", "beauty"), UsageError),
    ],
)
def test_a_grouping_that_does_not_fit_is_refused(
    text: str, error: type[Exception], images: Tensor, tmp_path: Path
) -> None:
    file = tmp_path / "groups.toml"
    file.write_text(text)
    with pytest.raises(error):
        mpsearch.search(
            Denoiser(),
            images,
            budgets={"weight_bits": "4"},
            task=whole_image,
            runtime="simulation",
            groups=file,
            cache=tmp_path,
        )
