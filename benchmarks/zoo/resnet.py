"""Residual networks for CIFAR-10 (He et al., 2016, section 4.2) with option-A shortcuts."""

from collections.abc import Sequence
from functools import partial
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy import ndarray
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.zoo.case import Batches, Parts, ZooCase
from benchmarks.zoo.place import ZOO

_WIDTHS: Final = (16, 32, 64)
_CLASSES: Final = 10
_MEAN: Final = (0.485, 0.456, 0.406)
_DEVIATION: Final = (0.229, 0.224, 0.225)
_BATCH: Final = 128
CALIBRATION_IMAGES: Final = 512
# The referee tests on the first images; the benchmark of cost chooses plans on what comes after.
TEST_IMAGES: Final = 5000


@final
class CifarResNet(nn.Module):
    """A stem, three stages of basic blocks, an average over the image and a classifier."""

    def __init__(self, *, blocks: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _WIDTHS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(_WIDTHS[0])
        before = (_WIDTHS[0], *_WIDTHS)
        stages = [
            nn.Sequential(
                *(
                    _Block(width if place else came, width, stride=2 if not place and stage else 1)
                    for place in range(blocks)
                )
            )
            for stage, (came, width) in enumerate(zip(before, _WIDTHS, strict=False))
        ]
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(_WIDTHS[-1], _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of shape (images, 10)."""
        hidden = torch.relu(self.bn1(self.conv1(image)))
        hidden = self.layer3(self.layer2(self.layer1(hidden)))
        logits: Tensor = self.linear(hidden.mean((2, 3)))
        return logits


@final
class _Block(nn.Module):
    def __init__(self, came: int, width: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(came, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.padding = (width - came) // 2

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(image)))))
        if self.padding:
            channels = (0, 0, 0, 0, self.padding, self.padding)
            image = nn.functional.pad(image[:, :, ::2, ::2], channels)
        return torch.relu(hidden + image)


def cifar_resnet(name: str) -> ZooCase:
    """Return "cifar10_resnet20" or "cifar10_resnet32" with its trained weights."""
    weights = load_file(ZOO / name / "model.safetensors")
    blocks = sum(key.startswith("layer1.") and key.endswith("conv1.weight") for key in weights)
    module = CifarResNet(blocks=blocks).eval()
    found = module.load_state_dict(weights, strict=False)
    assert not found.unexpected_keys, found
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys), found
    return ZooCase(
        name=name,
        task="classification",
        model=module,
        parts=_parts,
        test=partial(cifar_images, "test.npz", rows=range(TEST_IMAGES)),
    )


def _parts(seed: int) -> Parts:
    """Return the images that the referee calibrates with by this seed; the others validate."""
    count = len(np.load(ZOO / "cifar10" / "calib.npz")["labels"])
    order = np.random.default_rng(seed).permutation(count).tolist()
    return Parts(
        calibration=cifar_images("calib.npz", rows=order[:CALIBRATION_IMAGES]),
        validation=cifar_images("calib.npz", rows=order[CALIBRATION_IMAGES:]),
    )


def cifar_images(file: str, *, rows: Sequence[int]) -> Batches:
    """Return images of a file of the zoo, normalised, with their labels."""
    stored = np.load(ZOO / "cifar10" / file)
    images, labels = stored["images"][rows], stored["labels"][rows]
    return [
        _batch(images[start : start + _BATCH], labels[start : start + _BATCH])
        for start in range(0, len(images), _BATCH)
    ]


def _batch(images: UInt8[ndarray, "S H W C"], labels: Int[ndarray, " S"]) -> dict[str, Tensor]:
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (torch.tensor(v)[:, None, None] for v in (_MEAN, _DEVIATION))
    return {
        "image": ((pixels - mean) / deviation).contiguous(),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }
