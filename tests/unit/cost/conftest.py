"""A small ONNX file of real layers, and a device whose times are known."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, final

import numpy as np
import onnx
import pytest
from numpy import ndarray
from onnx import TensorProto, helper, numpy_helper

from mpsearch.core.graph import Layer, LayerGraph, Op
from mpsearch.core.hardware import Device, Support, Workload
from mpsearch.core.plan import ActivationQuantizer, Plan
from mpsearch.cost.timing import CoreState
from mpsearch.errors import DeploymentError
from mpsearch.runtimes import AbstractExecutable, AbstractRuntime, Kernel, NodeTime

WIDTH, ROWS, LINEARS = 128, 50, 9
SECONDS = {"fp32": 90e-6, "w8a8": 20e-6, "w8": 40e-6, "w4g128": 60e-6}
BOUNDARY = 12e-6  # where a w8a8 layer follows one that is not


@dataclass(kw_only=True)
class HandClock:
    """A clock that only moves when work is done."""

    now: float = 0.0

    def __call__(self) -> float:
        self.now += 1e-8
        return self.now


@final
@dataclass(frozen=True, kw_only=True)
class KnownExecutable(AbstractExecutable):
    """Moves the clock by what its plan takes."""

    clock: HandClock
    assignment: Mapping[str, str]
    added: float = 0.0

    @property
    def input_names(self) -> tuple[str, ...]:
        return ("ids",)

    @cached_property
    def seconds(self) -> float:
        """Return what an inference takes: added up once, as there are thousands of them."""
        return sum(node.seconds for node in self.node_times()) + self.added

    def infer(self) -> None:
        self.clock.now += self.seconds

    def kernels(self) -> dict[str, Kernel]:
        return {}

    def node_times(self) -> list[NodeTime]:
        nodes, before = [], "fp32"
        for name, format_name in self.assignment.items():
            if format_name == "w8a8" and before != "w8a8":
                nodes.append(_node("reorder", BOUNDARY))
            nodes.append(_node(name, SECONDS[format_name], name))
            before = format_name
        return nodes

    def assert_kernels(self, plan: Plan) -> None:
        pass

    def _run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        return dict(inputs)


@final
@dataclass(frozen=True, kw_only=True)
class KnownRuntime(AbstractRuntime):
    """Runs plans in known time; `refused` and `fuse` make it fail."""

    name: ClassVar[str] = "known"
    formats: ClassVar[tuple[str, ...]] = ("w8a8", "w8", "w4g128")
    revision: ClassVar[int] = 1

    clock: HandClock = field(default_factory=HandClock)
    builds: list[dict[str, str]] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    fuse: int = 1_000_000
    profiles: bool = True
    added: float = 0.0  # seconds that quantised additions take more
    refuses_additions: bool = False

    @property
    def bases(self) -> tuple[str, ...]:
        return ("fp32",)

    @property
    def state(self) -> CoreState:
        return CoreState(clock=self.clock, processor_clock=self.clock)

    def known(self, assignment: Mapping[str, str]) -> float:
        """Return the seconds that a plan takes here."""
        executable = KnownExecutable(clock=self.clock, assignment=assignment)
        return sum(node.seconds for node in executable.node_times())

    def device(self, threads: int) -> Device:
        return Device(name="known", runtime=self.name, threads=threads)

    def _settings(self, base: str) -> dict[str, str]:
        return {"base": base}

    def _support(self, layer: Layer, format_name: str, *, base: str) -> Support:
        assert base == "fp32"
        is_whole = format_name == "w8" or layer.op is not Op.EMBEDDING
        return Support.NATIVE if is_whole else Support.NONE

    def _build(
        self,
        model: onnx.ModelProto,
        *,
        settings: Mapping[str, str],
        threads: int,
        workload: Workload | None,
        profile: bool,
    ) -> AbstractExecutable:
        assert (dict(settings), threads, profile) == ({"base": "fp32"}, 1, self.profiles)
        assert workload is not None
        raw = next(entry.value for entry in model.metadata_props if entry.key == "mpsearch.plan")
        assignment: dict[str, str] = json.loads(raw)["assignment"]
        if len(self.builds) >= self.fuse:
            raise KeyboardInterrupt
        self.builds.append(assignment)
        if self.refused & set(assignment.values()):
            raise DeploymentError("The model does not compile. Expected it to. Change it.")
        has_additions = any(":addend" in each.name for each in model.graph.node)
        if has_additions and self.refuses_additions:
            raise DeploymentError("The model does not compile. Expected it to. Change it.")
        added = self.added if has_additions else 0.0
        return KnownExecutable(clock=self.clock, assignment=assignment, added=added)


def _node(name: str, seconds: float, *layers: str) -> NodeTime:
    return NodeTime(name=name, type="t", kernel="k", layers=layers, seconds=seconds, signature="s")


@pytest.fixture
def graph() -> LayerGraph:
    """Return an embedding and a chain of linear layers; the third has twice the outputs."""
    layers = [_layer("words", (ROWS, WIDTH), op=Op.EMBEDDING, source="ids")]
    for place in range(LINEARS):
        wide = (2 * WIDTH, WIDTH) if place == 2 else (WIDTH, WIDTH)
        wide = (WIDTH, 2 * WIDTH) if place == 3 else wide
        layers.append(_layer(f"linear.{place}", wide, source=f"x{place}"))
    return LayerGraph(
        layers=tuple(layers),
        edges=tuple((place, place + 1) for place in range(LINEARS)),
        fingerprint="chain",
    )


def _layer(name: str, shape: tuple[int, int], *, op: Op = Op.LINEAR, source: str) -> Layer:
    outputs, inputs = shape
    is_lookup = op is Op.EMBEDDING
    return Layer(
        name=name,
        op=op,
        weight_shape=shape,
        input_shape=(1, 8) if is_lookup else (1, 8, inputs),
        output_shape=(1, 8, inputs if is_lookup else outputs),
        macs=0 if is_lookup else 8 * outputs * inputs,
        inputs_from=source,
    )


@pytest.fixture
def base(graph: LayerGraph) -> onnx.ModelProto:
    """Return the base file of the graph: biases and tanh between the layers."""
    generator = np.random.default_rng(0)
    nodes, tensors, current = [], [], "ids"
    for layer in graph.layers:
        weight = generator.standard_normal(layer.weight_shape, dtype=np.float32)
        if layer.op is Op.EMBEDDING:
            tensors.append(numpy_helper.from_array(weight, f"{layer.name}.weight"))
            nodes.append(helper.make_node("Gather", [tensors[-1].name, current], [layer.name]))
            main, current = nodes[-1], layer.name
        else:
            tensors.append(numpy_helper.from_array(weight.T.copy(), f"{layer.name}.weight"))
            nodes.append(helper.make_node("MatMul", [current, tensors[-1].name], [layer.name]))
            main = nodes[-1]
            bias = numpy_helper.from_array(weight[:, 0].copy(), f"{layer.name}.bias")
            tensors.append(bias)
            nodes.append(helper.make_node("Add", [layer.name, bias.name], [f"{layer.name}.sum"]))
            nodes.append(helper.make_node("Tanh", [f"{layer.name}.sum"], [f"{layer.name}.out"]))
            current = f"{layer.name}.out"
        main.metadata_props.add(key="mpsearch.layer", value=layer.name)
    for place, node in enumerate(nodes):
        node.name = f"node_{place}"
    made = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [None, None])],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, [None] * 3)],
        initializer=tensors,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


@pytest.fixture
def quantizers(graph: LayerGraph) -> dict[str, ActivationQuantizer]:
    return {
        layer.name: ActivationQuantizer(
            scale=0.01, zero_point=128, low=-1.28, high=1.27, method="none", samples=1
        )
        for layer in graph.layers
    }


@pytest.fixture
def workload() -> Workload:
    return Workload(name="b1", shapes={"ids": (1, 8)})


@pytest.fixture
def runtime() -> KnownRuntime:
    return KnownRuntime()
