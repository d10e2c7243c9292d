"""Where the programs of torch run: which kernels compute layers, who tells, who keeps time."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from mpsearch.runtimes.onednn_log import Executed, listening
from mpsearch.runtimes.runtime import Kernel
from mpsearch.runtimes.torch_kernels import operators
from mpsearch.runtimes.torch_lowering import LayerWork, Lowered
from mpsearch.runtimes.torch_program import Program, Step
from mpsearch.tracing.onnx_import.call import Operator

_TYPES: Final = {
    torch.float32: "f32", torch.bfloat16: "bf16", torch.int8: "i8", torch.uint8: "u8",
}  # fmt: skip
_SIGNED: Final = {"s8": "i8", "s4": "i4"}  # oneDNN's words for what other runtimes call so
# Operators that compute a layer whose kernel nobody reports: rows of a table, and products.
_COMPUTING: Final = ("embedding", "index", "gather", "matmul", "mm", "conv", "linear")
_KIND_OF: Final = {
    "Gather": "Gather", "Conv": "Convolution", "ConvTranspose": "Convolution",
}  # fmt: skip
_PRODUCT: Final = "FullyConnected"
_WEIGHT_PLACE: Final = {"Gather": 0, _PRODUCT: -1, "Convolution": 1}


@final
@dataclass(frozen=True, kw_only=True)
class TimedStep:
    """One operator that was run: its tensor, what it is, and how long it took."""

    tensor: str
    described: str
    seconds: float


class AbstractPlace(ABC):
    """A device for programs that were recorded on the processor."""

    @abstractmethod
    def operators(self, lowered: Lowered, *, base: torch.dtype) -> dict[str, Operator]:
        """Return how the nodes of layers and quantisers are computed, by their output tensor."""

    @abstractmethod
    def placed(self, program: Program, *, works: Mapping[str, LayerWork]) -> Program:
        """Return a program as it runs here; may change the given one."""

    @abstractmethod
    def taken(self, value: Tensor) -> Tensor:
        """Return a tensor of the processor as programs here take it."""

    @abstractmethod
    def watched(self, step: Step, *, operator: str) -> Kernel | None:
        """Run a step of a layer's ONNX operator; return its kernel, None where it prepares."""

    @abstractmethod
    def timed(self, steps: Iterable[Step]) -> Iterator[TimedStep]:
        """Run the steps and yield the time of each."""

    @abstractmethod
    def wait(self) -> None:
        """Return when all that was started has ended."""

    @abstractmethod
    def peak_bytes(self, compute: Callable[[], object], *, given: Sequence[Tensor]) -> int | None:
        """Return the most bytes that a run holds beside the weights; None where nobody counts."""

    def computing(self) -> AbstractContextManager[None]:
        """Return what holds while programs run."""
        return nullcontext()


@final
@dataclass(frozen=True, kw_only=True)
class OneDnn(AbstractPlace):
    """The processor, with kernels of oneDNN."""

    def operators(self, lowered: Lowered, *, base: torch.dtype) -> dict[str, Operator]:
        """Return layers as kernels with packed weights."""
        return operators(lowered.works, quantizers=lowered.quantizers, base=base)

    def placed(self, program: Program, *, works: Mapping[str, LayerWork]) -> Program:  # noqa: ARG002 - it is there already
        """Return the program as it is."""
        return program

    def taken(self, value: Tensor) -> Tensor:
        """Return the tensor as it is."""
        return value

    def watched(self, step: Step, *, operator: str) -> Kernel | None:
        """Return the kernel that oneDNN logs while the step runs."""
        with listening() as heard:
            step.run()
        return _heard(heard, operator=operator) if heard else kernel_by_name(step, operator)

    def timed(self, steps: Iterable[Step]) -> Iterator[TimedStep]:
        """Yield times of the processor's clock."""
        for step in steps:
            described = step.described()
            start = time.perf_counter_ns()
            step.run()
            seconds = (time.perf_counter_ns() - start) / 1e9
            yield TimedStep(tensor=step.tensor, described=described, seconds=seconds)

    def wait(self) -> None:
        """Return at once: operators end before they return."""

    def peak_bytes(self, compute: Callable[[], object], *, given: Sequence[Tensor]) -> int | None:  # noqa: ARG002 - nobody counts
        """Return None."""
        return None


def kernel_by_name(step: Step, operator: str) -> Kernel | None:
    """Return the kernel of a step that has run, told by its name and by what it read."""
    if not any(word in step.operator for word in _COMPUTING):
        return None
    kind = kind_of(operator)
    weight = _TYPES.get(step.read()[_WEIGHT_PLACE[kind]].dtype, "computed")
    precision = weight if kind == "Gather" else _TYPES.get(step.read()[0].dtype, "")
    return Kernel(type=kind, name=step.operator, precision=precision, weight=weight)


def kind_of(operator: str) -> str:
    """Return what kernels for an ONNX operator are called in all runtimes.

    Example:
        >>> kind_of("Gemm"), kind_of("Conv")
        ('FullyConnected', 'Convolution')
    """
    return _KIND_OF.get(operator, _PRODUCT)


def _heard(heard: Sequence[Executed], *, operator: str) -> Kernel:
    last = heard[-1]
    return Kernel(
        type=kind_of(operator),
        name=f"{last.kind}.{last.implementation}",
        precision=last.source,
        weight=_SIGNED.get(last.weight, last.weight),
    )
