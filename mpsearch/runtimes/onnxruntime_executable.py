"""A session of ONNX Runtime: running it, and reading back what really runs."""

import json
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias, final

import numpy as np
import onnx
from numpy import ndarray

from mpsearch.core.plan import Plan
from mpsearch.errors import DataError, DeploymentError, UsageError
from mpsearch.export.graph_edit import LAYER_KEY, PART_KEY, constant_layers, metadata
from mpsearch.runtimes.kernel_check import check_kernels
from mpsearch.runtimes.runtime import AbstractExecutable, Kernel, NodeTime

Session: TypeAlias = Any  # onnxruntime ships no types
Options: TypeAlias = Any  # the same
# Which input of a node is the weight, by its operator.
_WEIGHT_SLOT: Final = {
    "MatMul": 1, "FusedMatMul": 1, "Gemm": 1, "FusedGemm": 1, "Conv": 1, "FusedConv": 1,
    "ConvTranspose": 1, "Gather": 0, "MatMulIntegerToFloat": 1, "QLinearConv": 3, "ConvInteger": 1,
    "MatMulNBits": 1, "GatherBlockQuantized": 0, "DynamicQuantizeMatMul": 1,
}  # fmt: skip
_OF_CODES: Final = frozenset(
    {"MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearConv", "ConvInteger"}
)
_STORED: Final = {
    onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.FLOAT16: "f16",
    onnx.TensorProto.INT8: "i8", onnx.TensorProto.UINT8: "i8",
    onnx.TensorProto.INT4: "i4", onnx.TensorProto.UINT4: "i4",
}  # fmt: skip
# What is made of a node keeps its name, and a number where that is taken.
_AGAIN: Final = re.compile(r"_token_\d+$")
# A product that took in its nonlinearity is called so before its name.
_TAKEN_IN: Final = "fused "
_BLOCKED: Final = "_nchwc"
_BENDS: Final = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
_NODE_EVENT: Final = "_kernel_time"
# What the arena was asked for and has not got back after a node, and how that node changed it.
_HELD: Final = "mem_bytes_requested_in_use"
_HELD_MORE: Final = "mem_requested_in_use_delta"
_MICROSECONDS: Final = 1e6
# Counters are whole microseconds and a run disturbs one at a time: a median over so many.
_COUNTED_SECONDS: Final = 0.1
_FEWEST_COUNTED: Final = 10
_WARMING: Final = 3


@final
class OnnxRuntimeExecutable(AbstractExecutable):
    """An open session with its inputs bound; made by `OnnxRuntime.build`."""

    def __init__(
        self,
        *,
        model: onnx.ModelProto,
        session: Session,
        optimised: onnx.ModelProto,
        shapes: Mapping[str, tuple[int, ...]] | None,
        profiled: Callable[..., Session] | None,
    ) -> None:
        self._session = session
        self._nodes = tuple(optimised.graph.node)
        self._stored = {t.name: t.data_type for t in optimised.graph.initializer}
        self._shapes = shapes
        self._profiled = profiled
        self._constant = constant_layers(model)
        self._names = dict(_marked(model, LAYER_KEY)) | dict(_blocked(model))
        self._parts = dict(_marked(model, PART_KEY))
        self._inputs = {value.name: value for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]
        self._binding = session.io_binding()
        self._bound: dict[str, ndarray] = {}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs, in the file's order."""
        return tuple(self._inputs)

    def infer(self) -> None:
        """Run once more on the inputs of the last `run`."""
        self._session.run_with_iobinding(self._binding)

    def kernels(self) -> dict[str, Kernel]:
        """Return {layer: the kernel that runs it}."""
        found = {layer: Kernel.folded() for layer in self._constant}
        for node in self._nodes:
            layer = self._layer_of(node.name, self._names)
            if layer is not None and node.op_type in _WEIGHT_SLOT:
                found[layer] = self._kernel(node)
        return found

    def node_times(self) -> list[NodeTime]:
        """Return each executed node's median time over runs of a session that counts.

        Counting slows a session down, so it is one of its own.
        """
        if self._profiled is None or not self._bound:
            raise UsageError(
                "The times of nodes are not known. Expected a model built with profile=True and "
                "run at least once. Build and run it so."
            )
        times: dict[str, list[float]] = defaultdict(list)
        facts: dict[str, Mapping[str, Any]] = {}
        for event in _events(self._profiled, inputs=self._bound, outputs=self._outputs):
            name = event["name"].removesuffix(_NODE_EVENT)
            times[name].append(event["dur"] / _MICROSECONDS)
            facts[name] = event["args"]
        return [
            NodeTime(
                name=name,
                type=str(facts[name]["op_name"]),
                kernel=str(facts[name]["op_name"]),
                layers=self._layers_of(name),
                seconds=float(np.median(seconds)),
                signature=_signature(facts[name]),
            )
            for name, seconds in times.items()
        ]

    def own_peak_bytes(self) -> int | None:
        """Return what the arena held at most in the first run of a session of its own.

        What it held before (weights, packed) does not count, the inputs do. None where this
        version's profile says nothing of memory.
        """
        if self._profiled is None or not self._bound:
            return None
        events = _first_run(self._profiled, inputs=self._bound, outputs=self._outputs)
        held = [int(event["args"].get(_HELD, -1)) for event in events]
        if not held or min(held) < 0:
            return None
        before = held[0] - int(events[0]["args"][_HELD_MORE])
        return max(held) - before + sum(array.nbytes for array in self._bound.values())

    def assert_kernels(self, plan: Plan) -> None:
        """Check that each layer of the plan runs in its format."""
        check_kernels(plan, self.kernels())

    def _run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        self._bound = {name: self._fitting(name, array) for name, array in inputs.items()}
        self._binding.clear_binding_inputs()
        self._binding.clear_binding_outputs()
        for name, array in self._bound.items():
            self._binding.bind_cpu_input(name, array)
        for name in self._outputs:
            self._binding.bind_output(name)
        try:
            self._session.run_with_iobinding(self._binding)
        except Exception as error:  # its bindings raise classes of their own
            raise DeploymentError(
                f"ONNX Runtime fails on inputs { ({n: a.shape for n, a in inputs.items()}) }: "
                f"{' '.join(str(error).split())[:400]} Expected it to run what it opened. Change "
                "the format of the layer it names."
            ) from error
        found = self._binding.copy_outputs_to_cpu()
        return {name: np.array(a) for name, a in zip(self._outputs, found, strict=True)}

    def _fitting(self, name: str, array: ndarray) -> ndarray:
        value = self._inputs[name]
        kind = _dtype(value.type)
        wanted = value.shape if self._shapes is None else list(self._shapes[name])
        fits = len(wanted) == array.ndim and all(
            not isinstance(size, int) or size == given
            for size, given in zip(wanted, array.shape, strict=True)
        )
        if not fits or not np.can_cast(array.dtype, kind, "same_kind"):
            raise DataError(
                f"Input {name!r} has shape {array.shape} and type {array.dtype}. Expected "
                f"{wanted} and {kind}, which the model was built for. Pass such an array, or "
                "build it for this shape."
            )
        return array.astype(kind, copy=False)

    def _layers_of(self, name: str) -> tuple[str, ...]:
        layer = self._layer_of(name, self._names) or self._layer_of(name, self._parts)
        return () if layer is None else (layer,)

    @staticmethod
    def _layer_of(name: str, known: Mapping[str, str]) -> str | None:
        """Return whose node this is; a fusion appends to the name of what it took in."""
        plain = _AGAIN.sub("", name.partition("/")[0]).removeprefix(_TAKEN_IN)
        return known.get(name) or known.get(plain)

    def _kernel(self, node: onnx.NodeProto) -> Kernel:
        bits = next((each.i for each in node.attribute if each.name == "bits"), None)
        weight = f"i{bits}" if bits else self._weight(node.input[_WEIGHT_SLOT[node.op_type]])
        plain = node.op_type in ("Gather", "GatherBlockQuantized", "MatMulNBits")
        precision = "u8" if node.op_type in _OF_CODES else (weight if plain else "f32")
        return Kernel(
            type=node.op_type,
            name=f"{node.domain or 'ai.onnx'}.{node.op_type}",
            precision=precision,
            weight=weight,
        )

    def _weight(self, name: str) -> str:
        """Return what the weight is stored as: the initialiser at the start of its path."""
        while name not in self._stored:
            source = next((node for node in self._nodes if name in node.output), None)
            if source is None or not source.input:
                return "computed"
            name = source.input[0]
        return _STORED.get(self._stored[name], "computed")


def _marked(model: onnx.ModelProto, key: str) -> Iterator[tuple[str, str]]:
    for node in model.graph.node:
        layer = metadata(node.metadata_props).get(key)
        if layer is not None:
            yield node.name, layer


def _blocked(model: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """Yield what ONNX Runtime calls a convolution in blocks of channels: after its output.

    A bend that nothing else reads before is taken in, and its output counts.
    """
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    for node in model.graph.node:
        layer = metadata(node.metadata_props).get(LAYER_KEY)
        if layer is None or node.op_type != "Conv":
            continue
        tensor = node.output[0]
        yield f"{tensor}{_BLOCKED}", layer
        while len(readers[tensor]) == 1 and readers[tensor][0].op_type in _BENDS:
            tensor = readers[tensor][0].output[0]
            yield f"{tensor}{_BLOCKED}", layer


def _events(
    profiled: Callable[..., Session], *, inputs: Mapping[str, ndarray], outputs: list[str]
) -> list[dict[str, Any]]:
    """Return what each node took in each run, in order of execution, warming runs left out."""
    with tempfile.TemporaryDirectory() as folder:
        session = profiled(prefix=str(Path(folder) / "profile"))
        runs, start = 0, time.perf_counter()
        while runs < _WARMING + _FEWEST_COUNTED or time.perf_counter() - start < _COUNTED_SECONDS:
            session.run(outputs, dict(inputs))
            runs += 1
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [e for e in events if e["cat"] == "Node" and e["name"].endswith(_NODE_EVENT)]
    return nodes[_WARMING * len(nodes) // runs :]


def _first_run(
    profiled: Callable[..., Session], *, inputs: Mapping[str, ndarray], outputs: list[str]
) -> list[dict[str, Any]]:
    """Return the events of a first run, before the arena has a pattern to follow."""
    with tempfile.TemporaryDirectory() as folder:
        session = profiled(prefix=str(Path(folder) / "profile"))
        session.run(outputs, dict(inputs))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [e for e in events if e["cat"] == "Node" and e["name"].endswith(_NODE_EVENT)]


def _signature(facts: Mapping[str, Any]) -> str:
    shapes = (json.dumps(facts.get(key, [])) for key in ("input_type_shape", "output_type_shape"))
    return "|".join([str(facts["op_name"]), *shapes])


def _dtype(type_: str) -> np.dtype[Any]:
    name = type_.removeprefix("tensor(").removesuffix(")")
    return np.dtype({"float": "float32", "double": "float64"}.get(name, name))
