"""A model compiled by OpenVINO: running it, and reading back what really runs."""

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final, final

import numpy as np
import onnx
from numpy import ndarray

from mpsearch.core.plan import Plan
from mpsearch.errors import DataError, DeploymentError, UsageError
from mpsearch.export.graph_edit import constant_layers, fused_names, part_names
from mpsearch.runtimes.kernel_check import check_kernels
from mpsearch.runtimes.runtime import AbstractExecutable, Kernel, NodeTime

# What OpenVINO calls a node that multiplies or gathers a weight.
_COMPUTING: Final = frozenset(
    {"FullyConnected", "MatMul", "Convolution", "Deconvolution", "Gather"}
)
_CONSTANT: Final = "Const"
_PRODUCT: Final = "/WithoutBiases"
_GENERATED: Final = "Subgraph"  # a loop that OpenVINO compiles for several operators at once


@final
class OpenVinoExecutable(AbstractExecutable):
    """A compiled model with one inference request; made by `OpenVino.build`."""

    def __init__(self, *, model: onnx.ModelProto, compiled: Any, profiled: bool) -> None:  # noqa: ANN401 - openvino ships no types
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._profiled = profiled
        self._constant = constant_layers(model)
        self._parts = part_names(model)
        self._names = {
            layer: (*names, *self._parts.get(layer, ()))
            for layer, names in fused_names(model).items()
        }
        given = {value.name for value in model.graph.input}
        made = {value.name for value in model.graph.output}
        self._ports = {_name_of(port, given): port for port in compiled.inputs}
        self._outputs = {_name_of(port, made): port for port in compiled.outputs}
        # OpenVINO does not keep the arrays alive that its tensors point into.
        self._bound: dict[str, ndarray] = {}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Return the names of the inputs, in the file's order."""
        return tuple(self._ports)

    def infer(self) -> None:
        """Run once more on the inputs of the last `run`."""
        self._request.infer()

    def kernels(self) -> dict[str, Kernel]:
        """Return {layer: the kernel that runs it}."""
        found: dict[str, Kernel] = {}
        for node in self._nodes():
            type_ = _fact(node, "layerType")
            for layer in self._layers_of(node, type_):
                if type_ in _COMPUTING and not self._is_part(node, layer):
                    found[layer] = _kernel(node, type_)
        # Folded into a constant of another name.
        return {layer: Kernel.folded() for layer in self._constant} | found

    def swallowed(self) -> tuple[str, ...]:
        """Return the layers that run inside a loop compiled for several operators at once.

        Nothing tells what such a loop computes them in, or how long each of them takes.
        """
        seen = self.kernels()
        return tuple(
            layer
            for node in self._nodes()
            if _fact(node, "layerType") == _GENERATED
            for layer in self._layers_of(node, _GENERATED)
            if layer not in seen
        )

    def node_times(self) -> list[NodeTime]:
        """Return each executed node's mean time over all inferences since building."""
        if not self._profiled or not self._bound:
            raise UsageError(
                "The times of nodes are not known. Expected a model built with profile=True and "
                "run at least once. Build and run it so."
            )
        seconds = {
            entry.node_name: entry.real_time / timedelta(seconds=1)
            for entry in self._request.profiling_info
        }
        return [
            NodeTime(
                name=node.get_friendly_name(),
                type=_fact(node, "layerType"),
                kernel=_fact(node, "primitiveType"),
                layers=self._layers_of(node, _fact(node, "layerType")),
                seconds=seconds[node.get_friendly_name()],
                signature=_signature(node),
            )
            for node in self._nodes()
            if node.get_friendly_name() in seconds and _fact(node, "layerType") != _CONSTANT
        ]

    def assert_kernels(self, plan: Plan) -> None:
        """Check that each layer of the plan runs in its format."""
        check_kernels(plan, self.kernels())

    def _run(self, inputs: Mapping[str, ndarray]) -> dict[str, ndarray]:
        import openvino

        bound = {name: self._fitting(name, array) for name, array in inputs.items()}
        for name, array in bound.items():
            self._request.set_tensor(self._ports[name], openvino.Tensor(array, shared_memory=True))
        self._bound = bound
        try:
            self._request.infer()
        except RuntimeError as error:
            raise DeploymentError(
                f"OpenVINO fails on inputs { ({n: a.shape for n, a in inputs.items()}) }: "
                f"{str(error).strip()[-400:]} Expected it to run what it compiled. Change the "
                "format of the layer it names."
            ) from error
        return {
            name: np.array(self._request.get_tensor(port).data)
            for name, port in self._outputs.items()
        }

    def _fitting(self, name: str, array: ndarray) -> ndarray:
        port = self._ports[name]
        shape, kind = port.get_partial_shape(), port.get_element_type().to_dtype()
        fits = len(shape) == array.ndim and all(
            size.is_dynamic or size.get_length() == given
            for size, given in zip(shape, array.shape, strict=True)
        )
        if not fits or not np.can_cast(array.dtype, kind, "same_kind"):
            raise DataError(
                f"Input {name!r} has shape {array.shape} and type {array.dtype}. Expected "
                f"{shape} and {kind}, which the model was built for. Pass such an array, or "
                "build it for this shape."
            )
        return array.astype(kind, copy=False)

    def _nodes(self) -> Iterator[Any]:
        yield from self._compiled.get_runtime_model().get_ordered_ops()

    def _is_part(self, node: Any, layer: str) -> bool:  # noqa: ANN401 - openvino ships no types
        return node.get_friendly_name() in self._parts.get(layer, ())

    def _layers_of(self, node: Any, type_: str) -> tuple[str, ...]:  # noqa: ANN401 - openvino ships no types
        """Return whose work a node does; by its own name first, as fusions copy others' names."""
        own = {node.get_friendly_name()}
        # A Gemm is read as a product of this name and an addition.
        fused = {
            name.removesuffix(_PRODUCT) for name in _fact(node, "originalLayersNames").split(",")
        }
        direct = tuple(layer for layer, names in self._names.items() if own.intersection(names))
        if direct or type_ == _CONSTANT:
            return direct
        return tuple(layer for layer, names in self._names.items() if fused.intersection(names))


def _fact(node: Any, key: str) -> str:  # noqa: ANN401 - openvino ships no types
    facts = node.get_rt_info()
    return str(facts[key].astype(str)) if key in facts else ""


def _kernel(node: Any, type_: str) -> Kernel:  # noqa: ANN401 - openvino ships no types
    return Kernel(
        type=type_,
        name=_fact(node, "primitiveType"),
        precision=_fact(node, "runtimePrecision"),
        weight=_weight_precision(node, gathers=type_ == "Gather"),
    )


def _weight_precision(node: Any, *, gathers: bool) -> str:  # noqa: ANN401 - openvino ships no types
    """Return what the weight is stored as: the constant at the start of the weight's input."""
    source = node.input(0 if gathers else 1).get_source_output().get_node()
    while _fact(source, "layerType") != _CONSTANT and source.inputs():
        source = source.input(0).get_source_output().get_node()
    if _fact(source, "layerType") != _CONSTANT:
        return "computed"
    return _fact(source, "outputPrecisions")


def _signature(node: Any) -> str:  # noqa: ANN401 - openvino ships no types
    shapes = [
        str(port.get_source_output().get_partial_shape())
        + _fact(port.get_source_output().get_node(), "outputPrecisions")
        for port in node.inputs()
    ]
    facts = [_fact(node, key) for key in ("layerType", "primitiveType", "runtimePrecision")]
    outputs = [str(port.get_partial_shape()) for port in node.outputs()]
    return "|".join([*facts, _fact(node, "outputPrecisions"), *shapes, "->", *outputs])


def _name_of(port: Any, known: set[str]) -> str:  # noqa: ANN401 - openvino ships no types
    """Return a port's name in the file; it has others too where a node beside it is folded away."""
    own = sorted(known.intersection(port.get_names()))
    return own[0] if own else str(port.get_any_name())
