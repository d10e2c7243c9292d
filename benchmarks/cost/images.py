"""ResNet-32 on CIFAR-10 and EfficientNet-Lite0 on samples of ImageNet: shares of images right."""

import io
from typing import Final

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray

from benchmarks.cost.lite0 import SIZE, lite0
from benchmarks.cost.subjects import Forward, Part, Subject
from benchmarks.zoo.case import Batches
from benchmarks.zoo.place import ZOO
from benchmarks.zoo.resnet import TEST_IMAGES, cifar_images, cifar_resnet
from mpsearch.tasks import TASKS

_BATCH: Final = 50
_PARTS: Final = {"calibration": (0, 300), "validation": (300, 650), "test": (650, 1000)}
_CALIBRATING: Final = 512  # CIFAR images
_ALL: Final = 10_000


def resnet32_on_cifar(*, share: int) -> Subject:
    """Return the model with each `share`-th batch of the images that choose and report."""
    parts: dict[Part, Batches] = {
        "validation": cifar_images("test.npz", rows=range(TEST_IMAGES, _ALL))[::share],
        "test": cifar_images("test.npz", rows=range(TEST_IMAGES))[::share],
    }
    return Subject(
        name="ResNet-32",
        model=cifar_resnet("cifar10_resnet32").model,
        task="classification",
        calibration=cifar_images("calib.npz", rows=range(_CALIBRATING)),
        judging=parts["validation"],
        parts=parts,
        score=_accuracy,
        shape=(3, 32, 32),
    )


def lite0_on_imagenet(*, share: int) -> Subject:
    """Return the model with each `share`-th batch of the images that choose and report."""
    parts: dict[Part, Batches] = {
        "validation": _images(*_PARTS["validation"])[::share],
        "test": _images(*_PARTS["test"])[::share],
    }
    return Subject(
        name="Lite0",
        model=lite0(),
        task="classification",
        calibration=_images(*_PARTS["calibration"]),
        judging=parts["validation"],
        parts=parts,
        score=_accuracy,
        shape=(3, SIZE, SIZE),
    )


def _accuracy(forward: Forward, batches: Batches) -> float:
    task = TASKS["classification"]
    hits = [
        task.outputs(forward({"image": each["image"]}), each).argmax(1) == each["labels"]
        for each in batches
    ]
    return float(torch.cat(hits).double().mean())


def _images(first: int, last: int) -> Batches:
    """Return images of the seed's order, from -1 to 1, with their labels."""
    from PIL import Image

    stored = np.load(ZOO / "imagenet1k_samples" / "images_jpeg224.npz")
    data, offsets, labels = stored["data"], stored["offsets"], stored["labels"]
    rows: Int[ndarray, " S"] = np.random.default_rng(0).permutation(len(labels))[first:last]
    images = [
        np.asarray(Image.open(io.BytesIO(data[offsets[row] : offsets[row + 1]].tobytes())))
        for row in rows
    ]
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    found = torch.from_numpy(labels[rows].astype(np.int64))
    return [
        {"image": pixels[at : at + _BATCH].contiguous(), "labels": found[at : at + _BATCH]}
        for at in range(0, len(rows), _BATCH)
    ]
