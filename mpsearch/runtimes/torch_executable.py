"""A model in torch: running it at a place, and hearing there what really runs."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, final

import numpy as np
import onnx
import torch
from numpy import ndarray
from torch import Tensor

from mpsearch.core.plan import Plan
from mpsearch.errors import DataError, DeploymentError, ModelError, UsageError
from mpsearch.export.graph_edit import LAYER_KEY, constant_layers, metadata
from mpsearch.runtimes.kernel_check import check_kernels
from mpsearch.runtimes.runtime import AbstractExecutable, Kernel, NodeTime
from mpsearch.runtimes.torch_lowering import Lowered
from mpsearch.runtimes.torch_place import AbstractPlace
from mpsearch.runtimes.torch_program import Program, record
from mpsearch.tracing.onnx_import.call import Operators
from mpsearch.tracing.onnx_import.checks import versions_of
from mpsearch.tracing.onnx_import.graph import graph_of
from mpsearch.tracing.onnx_import.module import OnnxModule
from mpsearch.tracing.onnx_import.tensors import read_tensor

_BASES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}
_KEPT: Final = 8  # programs of different shapes; an older one is recorded again
_TRIED: Final = 8  # of a size that the file leaves open, when kernels are asked for before a run
_COUNTED_SECONDS: Final = 0.1
_FEWEST_COUNTED: Final = 10
_WARMING: Final = 3


def has_bfloat16() -> bool:
    """Return whether oneDNN has kernels for bfloat16 on this processor."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 - torch's own name


@final
class TorchExecutable(AbstractExecutable):
    """A model as programs of operators, one for each shape; made by runtimes of torch."""

    def __init__(
        self,
        *,
        model: onnx.ModelProto,
        lowered: Lowered,
        base: str,
        place: AbstractPlace,
        threads: int,
        shapes: Mapping[str, tuple[int, ...]] | None,
        profiled: bool,
    ) -> None:
        self._graph = lowered.model.graph
        self._base = _BASES[base]
        self._place = place
        self._works = lowered.works
        self._threads = threads
        self._shapes = shapes
        self._profiled = profiled
        self._constant = constant_layers(model)
        self._layers = dict(_layers(lowered.model))
        self._operators = {n.output[0]: n.op_type for n in self._graph.node if n.output}
        held = {tensor.name for tensor in self._graph.initializer}
        self._inputs = {v.name: v for v in model.graph.input if v.name not in held}
        self._module = _importable(lowered, own=place.operators(lowered, base=self._base))
        self._programs: dict[tuple[tuple[int, ...], ...], Program] = {}
        self._bound: tuple[Tensor, ...] = ()
        self._program: Program | None = None
        if shapes is not None:
            self._program_for(self._made_up())

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs, in the file's order."""
        return tuple(self._inputs)

    def infer(self) -> None:
        """Run once more on the inputs of the last `run`."""
        assert self._program is not None
        with self._computing():
            self._program(*self._bound)
            self._place.wait()

    def kernels(self) -> dict[str, Kernel]:
        """Return {layer: the kernel that runs it}, as the place tells while it runs."""
        program, inputs = self._current()
        found = {layer: Kernel.folded() for layer in self._constant}
        with self._computing():
            for step in program.steps(inputs):
                layer = self._layers.get(step.tensor)
                if layer is None:
                    step.run()
                    continue
                kernel = self._place.watched(step, operator=self._operators[step.tensor])
                if kernel is not None:
                    found[layer] = kernel
        return found

    def node_times(self) -> list[NodeTime]:
        """Return each ONNX node's median time over runs in which every operator is timed."""
        if not self._profiled or not self._bound:
            raise UsageError(
                "The times of nodes are not known. Expected a model built with profile=True and "
                "run at least once. Build and run it so."
            )
        assert self._program is not None
        times: dict[str, list[float]] = defaultdict(list)
        signatures: dict[str, list[str]] = {}
        runs, start = 0, time.perf_counter()
        with self._computing():
            while runs < _FEWEST_COUNTED or time.perf_counter() - start < _COUNTED_SECONDS:
                seconds, signatures = self._timed()
                runs += 1
                for name, each in seconds.items():
                    times[name].append(each)
        return [
            NodeTime(
                name=name,
                type=self._operators.get(name, ""),
                kernel=signatures[name][-1].partition("(")[0],
                layers=(self._layers[name],) if name in self._layers else (),
                seconds=float(np.median(each[_WARMING:])),
                signature="|".join(signatures[name]),
            )
            for name, each in times.items()
        ]

    def own_peak_bytes(self) -> int | None:
        """Return what the place counts in one more run; None where it counts nothing."""
        if self._program is None:
            return None
        with self._computing():
            return self._place.peak_bytes(self.infer, given=self._bound)

    def assert_kernels(self, plan: Plan) -> None:
        """Check that each layer of the plan runs in its format."""
        check_kernels(plan, self.kernels())

    def _run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        bound = tuple(self._fitting(name, inputs[name]) for name in self._inputs)
        program = self._program_for(bound)
        try:
            with self._computing():
                self._bound, self._program = tuple(map(self._place.taken, bound)), program
                results = program(*self._bound)
        except RuntimeError as error:
            raise _failed({n: a.shape for n, a in inputs.items()}, error) from error
        return {
            name: np.array(_plain(value).cpu().numpy())
            for name, value in zip(program.outputs, results, strict=True)
        }

    def _program_for(self, inputs: Sequence[Tensor]) -> Program:
        key = tuple(tuple(each.shape) for each in inputs)
        if key not in self._programs:
            try:
                with self._computing():
                    made = record(self._module, dict(zip(self._inputs, inputs, strict=True)))
                    made = self._place.placed(made, works=self._works)
            except (ModelError, RuntimeError, NotImplementedError) as error:
                raise _failed(key, error) from error
            while len(self._programs) >= _KEPT:
                self._programs.pop(next(iter(self._programs)))
            self._programs[key] = made
        return self._programs[key]

    def _current(self) -> tuple[Program, tuple[Tensor, ...]]:
        """Return what ran last, or, before a run, a program of made-up inputs."""
        if self._program is not None:
            return self._program, self._bound
        inputs = self._made_up()
        return self._program_for(inputs), tuple(map(self._place.taken, inputs))

    def _timed(self) -> tuple[dict[str, float], dict[str, list[str]]]:
        """Return the seconds and operators of each ONNX node in one run."""
        assert self._program is not None
        seconds: dict[str, float] = defaultdict(float)
        signatures: dict[str, list[str]] = defaultdict(list)
        for step in self._place.timed(self._program.steps(self._bound)):
            seconds[step.tensor] += step.seconds
            signatures[step.tensor].append(step.described)
        return seconds, signatures

    def _fitting(self, name: str, array: ndarray) -> Tensor:
        value = self._inputs[name].type.tensor_type
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.elem_type)
        declared = [each.dim_value or None for each in value.shape.dim]
        wanted = declared if self._shapes is None else list(self._shapes[name])
        fits = len(wanted) == array.ndim and all(
            size is None or size == given for size, given in zip(wanted, array.shape, strict=True)
        )
        if not fits or not np.can_cast(array.dtype, kind, "same_kind"):
            raise DataError(
                f"Input {name!r} has shape {array.shape} and type {array.dtype}. Expected "
                f"{wanted} and {kind}, which the model was built for. Pass such an array, or "
                "build it for this shape."
            )
        # A copy: the caller may change its array before `infer` runs on it again.
        return self._typed(torch.from_numpy(array.astype(kind)))

    def _typed(self, value: Tensor) -> Tensor:
        return value.to(self._base) if value.dtype == torch.float32 else value

    def _made_up(self) -> tuple[Tensor, ...]:
        """Return inputs of the built shapes, or of some that the file allows: ones, or noise."""
        generator = np.random.default_rng(0)
        found = []
        for name, value in self._inputs.items():
            tensor = value.type.tensor_type
            shape = [
                each.dim_value or (_TRIED if place else 1)
                for place, each in enumerate(tensor.shape.dim)
            ]
            if self._shapes is not None:
                shape = list(self._shapes[name])
            kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            is_float = np.issubdtype(kind, np.floating)
            numbers = generator.standard_normal(shape) if is_float else np.ones(shape)
            found.append(self._typed(torch.from_numpy(numbers.astype(kind))))
        return tuple(found)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Use as many threads as it was built for; torch has one number for the process."""
        before = torch.get_num_threads()
        if before != self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode(), self._place.computing():
                yield
        finally:
            if before != self._threads:
                torch.set_num_threads(before)


def _importable(lowered: Lowered, *, own: Operators) -> OnnxModule:
    model = lowered.model
    graph = graph_of(
        model.graph,
        versions=versions_of(model),
        constants={each.name: read_tensor(each, extent=None) for each in model.graph.initializer},
        types={each.name: each.data_type for each in model.graph.initializer},
    )
    return OnnxModule(graph, own=own)


def _layers(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        layer = metadata(node.metadata_props).get(LAYER_KEY)
        if layer is not None:
            yield node.output[0], layer


def _failed(shapes: object, error: Exception) -> DeploymentError:
    reason = " ".join(str(error).split())[:400]
    if isinstance(error, torch.OutOfMemoryError):
        return DeploymentError(
            f"The device has no room for the model on {shapes}: {reason} Expected its weights and "
            "activations to fit. Choose smaller formats or a smaller batch, or free the device."
        )
    return DeploymentError(
        f"Torch does not run the model on {shapes}: {reason} Expected shapes and formats that its "
        "operators take. Change the format of the layer it names, or the shapes."
    )


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.bfloat16 else value
