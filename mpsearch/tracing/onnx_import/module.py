"""An ONNX graph as a torch module: run it, differentiate it, export it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, final

import torch
import torch.fx.traceback as fx_traceback
from torch import Tensor, nn

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.call import NodeCall, Operators
from mpsearch.tracing.onnx_import.control import CONTROL, run_control
from mpsearch.tracing.onnx_import.graph import OnnxGraph, OnnxNode
from mpsearch.tracing.onnx_import.operators import operator_of
from mpsearch.tracing.onnx_import.sizes import on_known
from mpsearch.tracing.onnx_import.tensors import TORCH_TYPES
from mpsearch.tracing.onnx_import.values import Known, Value, as_tensor, known_constant

# What a node of the traced graph carries in `meta["custom"]`: the ONNX node that it is part of,
# and that node's first output, which no other node shares.
NODE_KEY: Final = "onnx_node"
OUTPUT_KEY: Final = "onnx_output"
_NONE: Final[Operators] = {}


@final
class OnnxModule(nn.Module):
    """Runs a graph with torch operators; its float32 constants are parameters.

    `paths` maps each constant's name in the file to its attribute here. `own` are functions
    that compute nodes instead of their operator's, by the node's first output.
    """

    def __init__(self, graph: OnnxGraph, *, own: Operators = _NONE) -> None:
        super().__init__()
        self.graph = graph
        self.own = own
        self.paths = _paths(tuple(graph.constants))
        numbers = {name: known_constant(tensor) for name, tensor in graph.constants.items()}
        self._known = {name: each for name, each in numbers.items() if isinstance(each, Known)}
        statistics = _statistics(graph)
        for name, tensor in graph.constants.items():
            is_learned = tensor.dtype == torch.float32 and tensor.ndim and name not in statistics
            # A folded constant may be a view of a single number.
            single = (
                tensor.clone(memory_format=torch.contiguous_format) if _is_view(tensor) else tensor
            )
            self._hold(self.paths[name], single, is_learned=bool(is_learned))

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the outputs by name, from the inputs by name.

        Inputs may be of any size of number: data is read as int64 and float32.
        """
        values: dict[str, Value | None] = {
            name: self._constant(name, path) for name, path in self.paths.items()
        }
        values.update({name: self._typed(name, inputs[name]) for name in self.graph.inputs})
        # Keeps what `annotate` says of each node.
        with fx_traceback.preserve_node_meta():
            run_graph(self.graph, values, own=self.own)
        return {name: _output(values, name) for name in self.graph.outputs}

    def _typed(self, name: str, value: Tensor) -> Tensor:
        wanted = TORCH_TYPES.get(self.graph.types.get(name, 0))
        is_same = wanted is None or value.dtype == wanted
        # In float64 a model is checked against finite differences: its floats stay as they are.
        return value if is_same or value.dtype is torch.float64 else value.to(wanted)

    def _constant(self, name: str, path: str) -> Value:
        """Return a constant, with its numbers where it is short."""
        held: Tensor = getattr(self, path)
        numbers = self._known.get(name)
        return held if numbers is None else replace(numbers, tensor=held)

    def _hold(self, path: str, tensor: Tensor, *, is_learned: bool) -> None:
        if is_learned:
            self.register_parameter(path, nn.Parameter(tensor))
        else:
            self.register_buffer(path, tensor)


def run_graph(graph: OnnxGraph, values: dict[str, Value | None], *, own: Operators = _NONE) -> None:
    """Run the nodes one after the other; `values` by name grow by what they give."""
    for node in graph.nodes:
        results = _run_node(node, values, own=own)
        if len(results) < len([name for name in node.outputs if name]):
            raise AssertionError(f"{node.op} gave {len(results)} results")
        named = zip(node.outputs, results, strict=False)
        values.update({name: result for name, result in named if name})


def _run_node(
    node: OnnxNode, values: dict[str, Value | None], *, own: Operators
) -> Sequence[Value | None]:
    call = NodeCall(node, [values[name] if name else None for name in node.inputs])
    if node.op in CONTROL and not node.domain:
        return run_control(call, values, run=run_graph)
    try:
        first = next((name for name in node.outputs if name), "")
        with fx_traceback.annotate({NODE_KEY: node.title, OUTPUT_KEY: first}):
            found = None if first in own else on_known(call)
            result = (own.get(first) or operator_of(node))(call) if found is None else found
    except ModelError:
        raise
    except Exception as error:  # torch raises whatever its operators raise
        shapes = ", ".join(_described(value) for value in call.values)
        raise ModelError(
            f"Node {node.title!r} ({node.op}) cannot run on ({shapes}): {_first_line(error)}. "
            "Expected inputs that the operator takes. Check the model and the shapes of the data."
        ) from error
    return [result] if isinstance(result, Tensor | Known) else list(result)


def _is_view(tensor: Tensor) -> bool:
    return not tensor.is_contiguous() or 0 in tensor.stride()


def _statistics(graph: OnnxGraph) -> frozenset[str]:
    """Return the means and variances of batch norms, which are observed and not learned."""
    nodes = (node for node in graph.walk() if node.op == "BatchNormalization")
    return frozenset(name for node in nodes for name in node.inputs[3:5])


def _output(values: Mapping[str, Value | None], name: str) -> Tensor:
    found = values[name]
    assert found is not None
    tensor = as_tensor(found)
    # An input or a weight that is handed on as it is would be the same object twice.
    return tensor.clone() if isinstance(found, Known) else tensor


def _paths(names: Sequence[str]) -> dict[str, str]:
    """Return an attribute for each name: without what attributes may not hold, never twice."""
    taken: set[str] = set()
    paths: dict[str, str] = {}
    for name in names:
        plain = "c_" + re.sub(r"\W", "_", name, flags=re.ASCII)
        path, count = plain, 1
        while path in taken:
            count += 1
            path = f"{plain}_{count}"
        taken.add(path)
        paths[name] = path
    return paths


def _described(value: Value | None) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Known):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.array.shape)}"
    sizes = ", ".join(map(str, value.shape))
    return f"{str(value.dtype).removeprefix('torch.')} [{sizes}]"


def _first_line(error: Exception) -> str:
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
