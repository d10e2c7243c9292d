"""The models whose latency is predicted, each in a runtime, at a workload."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import onnx
import torch

from benchmarks.cost.lite0 import SIZE, is_installed, lite0
from benchmarks.path import minilm
from benchmarks.zoo.place import is_present
from benchmarks.zoo.resnet import cifar_resnet
from mpsearch.core.graph import LayerGraph
from mpsearch.core.hardware import Workload
from mpsearch.runtimes import RUNTIMES, AbstractRuntime
from mpsearch.tracing import TracedModel, base_onnx, trace_model

_LENGTH: Final = 32


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """A model as its base ONNX file and layers, the runtime, its base precision, the shapes."""

    name: str
    base: onnx.ModelProto
    graph: LayerGraph
    runtime: AbstractRuntime
    precision: str
    workload: Workload

    @property
    def title(self) -> str:
        """Return how the case is called in results."""
        return f"{self.name} in {self.runtime.name}, base {self.precision}"


def small_case() -> Case:
    """Return MiniLM in ONNX Runtime, which has the fewest plans to measure."""
    return next(_cases("MiniLM", minilm.traced(), runtime="onnxruntime", shape=(1, _LENGTH)))


def cases() -> Iterator[Case]:
    """Yield each model that is there, under each base of its runtimes."""
    traced = minilm.traced()
    for runtime in ("openvino", "onnxruntime"):
        yield from _cases("MiniLM", traced, runtime=runtime, shape=(1, _LENGTH))
    if is_present():
        module = cifar_resnet("cifar10_resnet32").model
        assert isinstance(module, torch.nn.Module)
        traced = trace_model(module, (torch.zeros(2, 3, 32, 32),))
        yield from _cases("ResNet-32", traced, runtime="openvino", shape=(1, 3, 32, 32))
    if is_installed():
        traced = trace_model(lite0(), (torch.zeros(2, 3, SIZE, SIZE),))
        yield from _cases("Lite0", traced, runtime="openvino", shape=(1, 3, SIZE, SIZE))


def _cases(
    name: str, traced: TracedModel, *, runtime: str, shape: tuple[int, ...]
) -> Iterator[Case]:
    base = base_onnx(traced)
    engine = RUNTIMES[runtime]
    shapes = {value.name: shape for value in base.graph.input}
    for precision in engine.bases:
        yield Case(
            name=name,
            base=base,
            graph=traced.graph,
            runtime=engine,
            precision=precision,
            workload=Workload(name="deployment", shapes=shapes),
        )
