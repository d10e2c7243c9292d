"""Peak memory of a sensitivity pass over a model as large as ResNet-50, in a process of its own.

Run as `python -m benchmarks.sensitivity.memory METRIC IMAGES SIZE LIMIT BLOCKS FOLDER` to measure
here, where BLOCKS are those of each stage, such as 3,4,6,3.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, final

import torch
from torch import Tensor, nn

from benchmarks.bar import Bar, judged
from benchmarks.sensitivity.targets import TARGETS
from mpsearch.quant.ranges import quantizer_of_range
from mpsearch.sensitivity import METRICS, OutputProbe
from mpsearch.tasks import TASKS, read_data
from mpsearch.tracing import trace_model

FORMATS: Final = ("w8a8", "w8", "w7", "w6", "w5", "w4", "w3", "w2")
_BLOCKS: Final = (3, 4, 6, 3)
_SMALL_BLOCKS: Final = (1, 1, 1, 1)
_BATCH: Final = 16
_BAR: Final = "peak memory"
_PROBE, _EXACT = "output_probe", "output_error"
_IMAGES: Final = 256
_SIZE: Final = 224
_LIMIT: Final = 2**28
_SMALL: Final = (4, 64, 2**26)
# Exact passes take hours over all layers; memory does not depend on how many there are.
_EXACT_LAYERS: Final = ("stem.0", "fc")
_RANGE: Final = 4.0
_KIB: Final = 1024
_BLOCK_BYTES: Final = 2**18


@final
@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes: of the model, the limit given, and the peak above the process before the model."""

    model: int
    limit: int
    peak: int

    @property
    def share(self) -> float:
        """Return the peak over what is allowed: 1.5 x model + limit."""
        return self.peak / (1.5 * self.model + self.limit)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.body = nn.Sequential(
            *_convolution(inputs, width, kernel=1),
            nn.ReLU(),
            *_convolution(width, width, kernel=3, stride=stride),
            nn.ReLU(),
            *_convolution(width, outputs, kernel=1),
        )
        same = stride == 1 and inputs == outputs
        shortcut = _convolution(inputs, outputs, kernel=1, stride=stride)
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Run the block."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """The sizes of ResNet-50 (25.6 million parameters), random weights; less with less blocks."""

    def __init__(self, *, blocks: Sequence[int] = _BLOCKS) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, 64, kernel=7, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        )
        parts: list[nn.Module] = []
        inputs = 64
        for stage, count in enumerate(blocks):
            width = 64 * 2**stage
            for place in range(count):
                stride = 2 if stage and not place else 1
                parts.append(Bottleneck(inputs, width, stride=stride))
                inputs = 4 * width
        self.blocks = nn.Sequential(*parts)
        self.fc = nn.Linear(inputs, 1000)

    def forward(self, image: Tensor) -> Tensor:
        """Run the network."""
        result = self.fc(self.blocks(self.stem(image)).mean((2, 3)))
        assert isinstance(result, Tensor)
        return result


def bars(*, small: bool) -> Iterator[Bar]:
    """Measure one gradient metric over all layers, and the exact one over the two ends.

    The small form leaves out the exact one, and most of the images and blocks.
    """
    images, size, limit = _SMALL if small else (_IMAGES, _SIZE, _LIMIT)
    blocks = _SMALL_BLOCKS if small else _BLOCKS
    for metric in (_PROBE,) if small else (_PROBE, _EXACT):
        use = memory_use(metric, images=images, size=size, limit=limit, blocks=blocks)
        layers = "first and last layer" if metric == _EXACT else "all layers"
        yield judged(
            f"{_BAR} of {metric}, {layers}",
            [use.share],
            target=TARGETS[_BAR],
            extra=asdict(use) | {"images": images, "pixels": size, "formats": len(FORMATS)},
        )


def memory_use(
    metric: str, *, images: int, size: int, limit: int, blocks: Sequence[int] = _BLOCKS
) -> MemoryUse:
    """Measure in a fresh process, whose peak is its own."""
    with TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.sensitivity.memory", metric]
        numbers = [*map(str, (images, size, limit)), ",".join(map(str, blocks))]
        found = subprocess.run(
            [*command, *numbers, folder],
            check=True,
            capture_output=True,
            text=True,
            # Large blocks go back at once; glibc otherwise keeps what was freed, in pieces.
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(_BLOCK_BYTES)},
        )
    return MemoryUse(**json.loads(found.stdout.splitlines()[-1]))


def main() -> None:
    """Measure here and print the bytes."""
    metric = sys.argv[1]
    images, size, limit = (int(each) for each in sys.argv[2:5])
    torch.manual_seed(0)
    # Tracing once warms what libraries allocate for themselves.
    trace_model(nn.Sequential(nn.Conv2d(3, 4, 3)), [torch.zeros(2, 3, 8, 8)])
    data = read_data(
        _made(images, size=size),
        input_names=("image",),
        batch_size=_BATCH,
        folder=Path(sys.argv[6]),
    )
    before = _peak()
    model = ResNet50(blocks=[int(each) for each in sys.argv[5].split(",")]).eval()
    traced = trace_model(model, {"image": torch.zeros(2, 3, size, size)})
    is_exact = metric == _EXACT
    chosen = METRICS[metric] if is_exact else OutputProbe(draws=1)
    chosen.measure(
        traced,
        task=TASKS["classification"],
        data=data,
        formats=FORMATS,
        offered=dict.fromkeys(_EXACT_LAYERS, FORMATS) if is_exact else None,
        quantizers=dict.fromkeys(traced.graph.names, quantizer_of_range(-_RANGE, _RANGE)),
        memory_limit_bytes=limit,
    )
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    use = MemoryUse(model=weights, limit=limit, peak=_peak() - before)
    print(json.dumps(asdict(use)))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB


def _made(count: int, *, size: int) -> Iterator[dict[str, Tensor]]:
    for start in range(0, count, _BATCH):
        yield {"image": torch.randn(min(_BATCH, count - start), 3, size, size)}


def _convolution(
    inputs: int, outputs: int, *, kernel: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    padding = kernel // 2
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm2d(outputs),
    )


if __name__ == "__main__":
    main()
