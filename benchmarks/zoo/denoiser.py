"""A small diffusion model of digits: it predicts the noise in an image from image and time."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, final

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.zoo.case import Batches
from benchmarks.zoo.place import ZOO

_NAME: Final = "mnist_ddpm_starter"
_WIDTHS: Final = (1, 16, 32, 32, 16)
_SIZE: Final = 28
_TIME: Final = (32, 128, 128, 128, 16)
STEPS: Final = 1000
_BATCH: Final = 64


@final
class Denoiser(nn.Module):
    """Four blocks of convolution, norm and GELU with the time added behind the first."""

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = [_Block(came, width) for came, width in pairwise(_WIDTHS)]
        self.blocks = nn.ModuleList([*blocks, nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1)])
        linears = [nn.Linear(came, to) for came, to in pairwise(_TIME)]
        gaps = [part for linear in linears for part in (linear, nn.GELU())]
        self.time_embed = nn.Sequential(*gaps[:-1])
        for name, size in (("frequencies", 16), ("alpha_bar", STEPS + 1), ("beta", STEPS + 1)):
            self.register_buffer(name, torch.zeros(size))

    def forward(self, image: Tensor, time: Tensor) -> Tensor:
        """Return the noise in images (S, 1, 28, 28) at times (S,) between 0 and 1."""
        angles = time[:, None] * self.get_buffer("frequencies")
        embedded = self.time_embed(torch.cat([angles.sin(), angles.cos() - 1], dim=1))
        hidden = self.blocks[0](image) + embedded[:, :, None, None]
        for block in list(self.blocks)[1:]:
            hidden = block(hidden)
        noise: Tensor = hidden
        return noise


@final
class _Block(nn.Module):
    def __init__(self, came: int, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(came, width, 7, padding=3), nn.LayerNorm((width, _SIZE, _SIZE)), nn.GELU()
        )

    def forward(self, hidden: Tensor) -> Tensor:
        out: Tensor = self.net(hidden)
        return out


def denoiser() -> Denoiser:
    """Return the trained model."""
    module = Denoiser().eval()
    module.load_state_dict(load_file(ZOO / _NAME / "model.safetensors"))
    return module


def noised(model: Denoiser, *, rows: Sequence[int], seed: int) -> Batches:
    """Return digits with noise at times drawn by seed: image, time, and the noise as label."""
    stored = np.load(ZOO / "mnist" / "test.npz")
    name = "images" if "images" in stored.files else stored.files[0]
    digits = torch.from_numpy(stored[name][list(rows)]).reshape(-1, 1, _SIZE, _SIZE) / 255 - 0.5
    generator = torch.Generator().manual_seed(seed)
    step = torch.randint(1, STEPS, (len(digits),), generator=generator)
    noise = torch.randn(digits.shape, generator=generator)
    kept = model.get_buffer("alpha_bar")[step][:, None, None, None]
    images = kept.sqrt() * digits + (1 - kept).sqrt() * noise
    return [
        {
            "image": images[at : at + _BATCH],
            "time": step[at : at + _BATCH] / STEPS,
            "label": noise[at : at + _BATCH],
        }
        for at in range(0, len(digits), _BATCH)
    ]


@torch.no_grad()
def drawn(model: nn.Module, schedule: Denoiser, *, images: int, steps: int, seed: int) -> Tensor:
    """Return images drawn by deterministic sampling (Song et al., 2021, DDIM) in few steps."""
    generator = torch.Generator().manual_seed(seed)
    current = torch.randn((images, 1, _SIZE, _SIZE), generator=generator)
    kept = schedule.get_buffer("alpha_bar")
    times = torch.linspace(STEPS - 1, 0, steps + 1).round().long()
    for now, then in pairwise(times.tolist()):
        noise = model(current, torch.full((images,), now / STEPS))
        clean = (current - (1 - kept[now]).sqrt() * noise) / kept[now].sqrt()
        clean = clean.clamp(-0.5, 0.5)
        current = kept[then].sqrt() * clean + (1 - kept[then]).sqrt() * noise
    return current
