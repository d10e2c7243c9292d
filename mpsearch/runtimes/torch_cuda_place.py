"""The GPU as a place for programs: recorded on the processor, moved, timed by its own clock."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Final, final

import torch
from torch import Tensor, fx

from mpsearch.errors import UnsupportedFeatureError
from mpsearch.runtimes.runtime import Kernel
from mpsearch.runtimes.torch_cuda_kernels import int4_of, operators, packed_for_gpu, pairs
from mpsearch.runtimes.torch_lowering import LayerWork, Lowered
from mpsearch.runtimes.torch_place import (
    AbstractPlace,
    OneDnn,
    TimedStep,
    kernel_by_name,
    kind_of,
)
from mpsearch.runtimes.torch_program import PART_OF, Program, Step
from mpsearch.tracing.onnx_import.call import Operator

_INT4_HERE: Final = torch.ops.aten._weight_int4pack_mm_for_cpu.default  # noqa: SLF001 - torch names its kernels so
_INT4_ON_GPU: Final = torch.ops.aten._weight_int4pack_mm.default  # noqa: SLF001 - the same
# What kernels of few bits read: their input, their weight.
_NARROW: Final = {
    "_int_mm": ("u8", "i8"), "_scaled_mm": ("f8", "f8"), "_weight_int4pack_mm": ("i4", "i4"),
}  # fmt: skip
_Key = tuple[int, torch.dtype, tuple[int, ...], tuple[int, ...]]


@final
@dataclass(frozen=True, kw_only=True)
class Gpu:
    """What torch says of a GPU: its name, what it can do, and the versions that drive it."""

    name: str
    capability: tuple[int, int]
    versions: Mapping[str, str]


def this_gpu() -> Gpu:
    """Return the GPU that torch would use.

    Raises:
        UnsupportedFeatureError: There is none.
    """
    if not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "finds no NVIDIA GPU"
        raise UnsupportedFeatureError(
            f"Torch {torch.__version__} {why}. Expected a GPU with its driver, and torch for CUDA, "
            "for runtime 'torch_cuda'. Install torch for CUDA (see pytorch.org) and look whether "
            "`nvidia-smi` lists the GPU, or choose another runtime, such as 'openvino'."
        )
    major, minor = torch.cuda.get_device_capability()
    inside: Any = torch._C  # noqa: SLF001 - torch has no public name for the driver's version
    driver = inside._cuda_getDriverVersion()  # noqa: SLF001 - the same
    versions = {
        "cuda": str(torch.version.cuda),
        "driver": f"{driver // 1000}.{driver % 1000 // 10}",
    }
    return Gpu(name=torch.cuda.get_device_name(), capability=(major, minor), versions=versions)


@final
@dataclass(frozen=True, kw_only=True)
class Cuda(AbstractPlace):
    """A GPU; with `device` "cpu" the same operators on the processor, to test their arithmetic."""

    device: str = "cuda"
    _moved: dict[_Key, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)
    _packed: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def operators(self, lowered: Lowered, *, base: torch.dtype) -> dict[str, Operator]:
        """Return layers as kernels of few bits."""
        return operators(lowered.works, quantizers=lowered.quantizers, base=base)

    def placed(self, program: Program, *, works: Mapping[str, LayerWork]) -> Program:
        """Move a program's constants, of which all shapes share one copy; changes the program."""
        if self.device == "cpu":
            return program
        graph = program.module.graph
        for node in graph.nodes:
            if node.op == "get_attr":
                held = getattr(program.module, node.target)
                setattr(program.module, node.target, self._there(held))
            elif node.op == "call_function":
                node.args = _on(self.device, node.args)
                node.kwargs = _on(self.device, node.kwargs)
                if node.target is _INT4_HERE:
                    self._replace_(program.module, node, works=works)
        program.module.recompile()
        return program

    def taken(self, value: Tensor) -> Tensor:
        """Return a copy on the device."""
        return value.to(self.device)

    def watched(self, step: Step, *, operator: str) -> Kernel | None:
        """Run a step; its operator names the kernel."""
        step.run()
        for name, (precision, weight) in _NARROW.items():
            if f".{name}" in step.operator:
                return Kernel(
                    type=kind_of(operator), name=step.operator, precision=precision, weight=weight
                )
        return kernel_by_name(step, operator)

    def timed(self, steps: Iterable[Step]) -> Iterator[TimedStep]:
        """Yield times by events of the device's stream, after all steps have ended."""
        if self.device == "cpu":
            yield from OneDnn().timed(steps)
            return
        marks: list[tuple[str, str, Any, Any]] = []
        for step in steps:
            described = step.described()
            before, after = self._mark(), self._mark()
            before.record()
            step.run()
            after.record()
            marks.append((step.tensor, described, before, after))
        self.wait()
        for tensor, described, before, after in marks:
            seconds = before.elapsed_time(after) / 1e3
            yield TimedStep(tensor=tensor, described=described, seconds=seconds)

    def wait(self) -> None:
        """Return when the device has done all that was asked of it."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def peak_bytes(self, compute: Callable[[], object], *, given: Sequence[Tensor]) -> int | None:
        """Return what torch's allocator held at most in a run, with the inputs."""
        if self.device == "cpu":
            return None
        self.wait()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        compute()
        self.wait()
        return torch.cuda.max_memory_allocated() - before + sum(each.nbytes for each in given)

    def computing(self) -> AbstractContextManager[None]:
        """Keep convolutions of fp32 in fp32: cuDNN would round their inputs to 10 bits."""
        flags: AbstractContextManager[None] = torch.backends.cudnn.flags(
            enabled=True, allow_tf32=False
        )
        return flags

    def _mark(self) -> Any:  # noqa: ANN401 - an event of the device's own class
        return torch.Event(device=self.device, enable_timing=True)

    def _there(self, held: Tensor) -> Tensor:
        key = (held.data_ptr(), held.dtype, tuple(held.shape), tuple(held.stride()))
        if key not in self._moved:
            # The original is kept, so that no other tensor gets its address.
            self._moved[key] = (held, held.to(self.device))
        return self._moved[key][1]

    def _replace_(
        self, module: fx.GraphModule, node: fx.Node, *, works: Mapping[str, LayerWork]
    ) -> None:
        """Multiply by the weight as the GPU's kernel reads it."""
        value, packed, group, scales = node.args
        assert isinstance(packed, fx.Node)
        name = str(node.meta[PART_OF])
        if name not in self._packed:
            codes, _ = int4_of(works[name])
            self._packed[name] = packed_for_gpu(pairs(codes).to(self.device))
        setattr(module, str(packed.target), self._packed[name])
        node.target = _INT4_ON_GPU
        node.args = (value, packed, group, scales)


def _on(device: str, arguments: Any) -> Any:  # noqa: ANN401 - any operator's arguments
    """Return arguments in which no tensor is asked for on the processor."""
    if isinstance(arguments, torch.device):
        return torch.device(device)
    if isinstance(arguments, list | tuple):
        return type(arguments)(_on(device, each) for each in arguments)
    if isinstance(arguments, dict):
        return {key: _on(device, value) for key, value in arguments.items()}
    return arguments
