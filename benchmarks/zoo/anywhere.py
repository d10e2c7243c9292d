"""The zoo's models by name; where the zoo is absent, models of their shapes made of noise."""

import sys
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

from benchmarks.zoo.case import Parts, ZooCase
from benchmarks.zoo.place import is_present
from benchmarks.zoo.resnet import CALIBRATION_IMAGES, CifarResNet, cifar_resnet
from benchmarks.zoo.stories import Stories, stories

_STORIES: Final = "stories260k"
# Residual networks by the blocks of each stage.
_BLOCKS: Final[Mapping[str, int]] = {"cifar10_resnet20": 3, "cifar10_resnet32": 5}
_BATCH: Final = 16
_TOKENS: Final = 160  # of a text; the real ones have 200 on average
_VOCABULARY: Final = 512


def case_named(name: str) -> ZooCase:
    """Return "cifar10_resnet20", "cifar10_resnet32" or "stories260k".

    Where the zoo does not lie beside the checkout, a model of the same shape with random
    weights and random data stands in, under a name that says so: its work is the same, what
    formats do to it is not.
    """
    if is_present():
        return stories() if name == _STORIES else cifar_resnet(name)
    print(
        f"The zoo is not beside this checkout: {name} is SKIPPED. A model of its shape with "
        "random weights and data is measured instead.",
        file=sys.stderr,
    )
    return _made(name)


def made_up(name: str, *, blocks: int) -> ZooCase:
    """Return a residual network of so many blocks in each stage, its weights and data noise."""
    torch.manual_seed(0)
    return _case(name, CifarResNet(blocks=blocks), is_text=False)


def _made(name: str) -> ZooCase:
    told = f"{name} of random weights"
    if name != _STORIES:
        return made_up(told, blocks=_BLOCKS[name])
    torch.manual_seed(0)
    return _case(told, Stories(), is_text=True)


def _case(name: str, module: nn.Module, *, is_text: bool) -> ZooCase:
    return ZooCase(
        name=name,
        task="causal_lm" if is_text else "classification",
        model=module.eval(),
        parts=lambda seed: Parts(
            calibration=_noise(seed, is_text=is_text),
            validation=_noise(seed + 1000, is_text=is_text),
        ),
        test=lambda: _noise(-1, is_text=is_text),
        fixed=("tok_embeddings", "output") if is_text else (),
    )


def _noise(seed: int, *, is_text: bool) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed % 2**32)
    if is_text:
        shape = (CALIBRATION_IMAGES // 4 // _BATCH, _BATCH, _TOKENS)
        tokens = torch.randint(_VOCABULARY, shape, generator=generator)
        return [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in tokens]
    images = torch.randn(CALIBRATION_IMAGES // _BATCH, _BATCH, 3, 32, 32, generator=generator)
    labels = torch.randint(10, (len(images), _BATCH), generator=generator)
    return [{"image": x, "labels": y} for x, y in zip(images, labels, strict=True)]
