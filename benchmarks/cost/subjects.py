"""Models with data cut in three: to calibrate, to choose on, and to report on once.

STS-B calibrates on its training part, chooses on dev and reports on test. CIFAR-10 calibrates on
training images, chooses on the test images from 5,000 and reports on those before. ImageNet's
thousand samples are cut into 300, 350 and 350 by seed 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, final

from torch import Tensor, nn

from benchmarks.zoo.case import Batches
from mpsearch.tracing import LoadedModel, TracedModel, trace_model

Forward: TypeAlias = Callable[[Mapping[str, Tensor]], Any]
# Samples that are run together: a batch of images, pairs of sentences.
Piece: TypeAlias = Any
Part: TypeAlias = Literal["validation", "test"]


@final
@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and its data; `score` runs a plan over pieces of a part.

    `judging` is what a search judges plans by, `shape` is the shape of every input but the batch.
    """

    name: str
    model: nn.Module | LoadedModel
    task: str
    calibration: Batches
    judging: Batches
    parts: Mapping[Part, Sequence[Piece]]
    score: Callable[[Forward, Sequence[Piece]], float]
    shape: tuple[int, ...]

    def traced(self) -> TracedModel:
        """Return the model as a graph."""
        if isinstance(self.model, LoadedModel):
            return trace_model(self.model.module, self.model.example, root=self.model.root)
        return trace_model(self.model, {"image": self.calibration[0]["image"][:2]})

    def workload(self, samples: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each input for so many samples at once."""
        names = [name for name in self.calibration[0] if name != "labels"]
        return dict.fromkeys(names, (samples, *self.shape))
