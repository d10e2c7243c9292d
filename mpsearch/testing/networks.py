"""Small real networks that cover the forms in which weights appear.

Each function returns a network with fixed weights and example inputs by name.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Network: TypeAlias = Callable[[], tuple[nn.Module, dict[str, Tensor]]]


class Forms(nn.Module):
    """Every form of a linear layer; one weight thrice, an embedding tied to the head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(10, 8)
        self.twice = nn.Linear(8, 8)
        self.free = nn.Linear(8, 8, bias=False)
        self.turned = nn.Parameter(torch.randn(8, 8) / 3)
        self.matrix = nn.Parameter(torch.randn(8, 6) / 3)
        self.back = nn.Parameter(torch.randn(6, 8) / 3)
        self.offset = nn.Parameter(torch.randn(8) / 3)
        self.head = nn.Linear(8, 10, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Run the network."""
        x = functional.relu(self.twice(self.emb(ids)), inplace=True)
        x = self.twice(x)
        x += self.free(x)
        x = x @ self.turned.t()
        x = torch.matmul(x, self.matrix)
        x = torch.addmm(self.offset, x.reshape(-1, 6), self.back).reshape(*ids.shape, 8)
        x = functional.linear(x, self.matrix.t(), None)
        x = functional.linear(x, self.back.t(), self.offset)
        return _tensor(self.head(x))


class Convolutions(nn.Module):
    """Convolutions of one and two dimensions, depthwise, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4, padding="same")
        self.flat = nn.Conv1d(4, 4, 3)
        self.flat_norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5)
        for norm in (self.norm, self.flat_norm):
            norm.running_mean = torch.randn(4)
            norm.running_var = torch.rand(4) + 0.5

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        x = functional.relu(self.norm(self.first(image)), inplace=True)
        x = self.flat_norm(self.flat((self.depthwise(x) + x).flatten(2)))
        return _tensor(self.head(x.mean(2)))


class Residual(nn.Module):
    """Two-dimensional convolutions as images meet them: strided, depthwise, 1 x 1, an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.same = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.wide = nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 5)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        x = functional.relu(self.stem(image))
        x = functional.relu(self.same(x) + x)
        x = self.wide(functional.relu6(self.depthwise(x)))
        return _tensor(self.head(x.mean((2, 3))))


class Upscaling(nn.Module):
    """Transposed convolutions, plain, grouped and depthwise, behind one of one dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.ConvTranspose1d(16, 16, 3, padding=1, bias=False)
        self.whole = nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1)
        self.grouped = nn.ConvTranspose2d(16, 32, 4, stride=2, padding=1, groups=4)
        self.depthwise = nn.ConvTranspose2d(32, 32, 3, padding=1, groups=32)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        x = functional.relu(self.flat(image.flatten(2)).view_as(image))
        x = functional.relu(self.grouped(functional.relu(self.whole(x))))
        return _tensor(self.depthwise(x))


class Transformer(nn.Module):
    """Tokens to logits through torch's own encoder layer; named, structured outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Run the network."""
        hidden = self.block(
            self.tokens(input_ids), src_key_padding_mask=attention_mask.logical_not()
        )
        return {"logits": self.head(hidden), "hidden": hidden}


class Wrapped(nn.Module):
    """A wrapper that takes one dict."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Run the network."""
        return _tensor(self.model(batch["left"] - batch["right"]))


def forms() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the linear forms with two sequences of five tokens."""
    torch.manual_seed(0)
    return Forms(), {"ids": torch.randint(0, 10, (2, 5))}


def convolutions() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the convolutions with two images."""
    torch.manual_seed(1)
    return Convolutions(), {"image": torch.randn(2, 3, 8, 8)}


def residual() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the small residual network with two images."""
    torch.manual_seed(4)
    return Residual().eval(), {"image": torch.randn(2, 3, 16, 16)}


def upscaling() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the transposed convolutions with two small images."""
    torch.manual_seed(5)
    return Upscaling().eval(), {"image": torch.randn(2, 16, 4, 4)}


def transformer() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the transformer with two sequences, one of them padded."""
    torch.manual_seed(2)
    mask = torch.ones(2, 6, dtype=torch.long)
    mask[1, 4:] = 0
    return Transformer(), {"input_ids": torch.randint(0, 20, (2, 6)), "attention_mask": mask}


def wrapped() -> tuple[nn.Module, dict[str, Tensor]]:
    """Return the wrapper with its two inputs."""
    torch.manual_seed(3)
    return Wrapped(), {"left": torch.randn(2, 4), "right": torch.randn(2, 4)}


def _tensor(value: object) -> Tensor:
    assert isinstance(value, Tensor)  # torch types the call of a module as Any
    return value
