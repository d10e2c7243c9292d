"""An ONNX graph without what is constant: folded nodes, chosen branches, no bare copies.

What stays is what the searched model and the base file both show, node for node.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, final

import onnx
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from mpsearch.errors import ModelError
from mpsearch.tracing.onnx_import.call import NodeCall
from mpsearch.tracing.onnx_import.checks import title_of
from mpsearch.tracing.onnx_import.graph import OnnxNode, names_read, node_of, subgraphs
from mpsearch.tracing.onnx_import.operators import is_known, operator_of
from mpsearch.tracing.onnx_import.tensors import read_tensor
from mpsearch.tracing.onnx_import.values import Known, Value, as_tensor, known_constant

_MATRIX: Final = 2  # dimensions
# Left as they are: they say how a weight is stored.
_STORAGE: Final = frozenset({"DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear"})
# Random numbers differ from run to run.
_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
    | {"Multinomial"}
)
# These can make much out of little, so what they would make is asked first.
_GROWING: Final = frozenset(
    {"ConstantOfShape", "Expand", "Tile", "Range", "OneHot", "EyeLike", "Pad", "Resize", "Upsample"}
)
_MOST_FOLDED: Final = 2**20  # numbers; larger ones are made anew in each run, as in the file
_DEEPEST: Final = 20  # branches within branches


@final
class Simplifier:
    """Simplifies one graph; `constants` grow by what is folded."""

    def __init__(
        self,
        constants: dict[str, Tensor],
        *,
        types: dict[str, int],
        versions: Mapping[str, int],
    ) -> None:
        self.constants = constants
        self._types = types
        self._versions = versions
        self._names: dict[str, str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._outputs: frozenset[str] = frozenset()

    def run_(self, graph: onnx.GraphProto) -> None:
        """Simplify the graph in place; the names of its inputs and outputs stay."""
        self._outputs = frozenset(output.name for output in graph.output)
        self._take(graph.node, depth=0)
        del graph.node[:]
        graph.node.extend(_used(self._nodes, outputs=self._outputs))
        del graph.value_info[:]

    def _take(self, nodes: Iterable[onnx.NodeProto], *, depth: int) -> None:
        for node in nodes:
            self._rename_(node)
            if not (self._chose(node, depth=depth) or self._copied(node) or self._folded(node)):
                self._nodes.append(node)

    def _rename_(self, node: onnx.NodeProto) -> None:
        for place, name in enumerate(node.input):
            if name in self._names:
                node.input[place] = self._names[name]
        for inner in subgraphs(node):
            own = {each.name for each in (*inner.input, *inner.initializer)}
            for child in inner.node:
                self._rename_(child)
                own.update(child.output)
            for output in inner.output:
                if output.name not in own:
                    output.name = self._names.get(output.name, output.name)

    def _chose(self, node: onnx.NodeProto, *, depth: int) -> bool:
        """Put the nodes of the one branch in the place of an If whose condition is constant."""
        if node.op_type != "If" or node.input[0] not in self.constants:
            return False
        if depth > _DEEPEST:
            raise ModelError(
                f"Node {title_of(node)!r} (If) lies in {depth} others. Expected at most "
                f"{_DEEPEST}. Export the model again."
            )
        wanted = "then_branch" if bool(self.constants[node.input[0]].any()) else "else_branch"
        branch = next((each.g for each in node.attribute if each.name == wanted), None)
        if branch is None or len(branch.output) != len(node.output):
            raise ModelError(
                f"Node {title_of(node)!r} (If) has no {wanted} with {len(node.output)} outputs. "
                "Expected one. Export the model again."
            )
        for tensor in branch.initializer:
            self.constants[tensor.name] = read_tensor(tensor, extent=None)
        self._take(branch.node, depth=depth + 1)
        for inner, outer in zip(branch.output, node.output, strict=True):
            source = self._names.get(inner.name, inner.name)
            copy = onnx.helper.make_node("Identity", [source], [outer])
            if not self._copied(copy):
                self._nodes.append(copy)
        return True

    def _copied(self, node: onnx.NodeProto) -> bool:
        """Let readers of an Identity read its source; what an output is called stays."""
        if node.op_type != "Identity" or node.domain not in ("", "ai.onnx"):
            return False
        if node.output[0] in self._outputs:
            return False
        self._names[node.output[0]] = node.input[0]
        return True

    def _folded(self, node: onnx.NodeProto) -> bool:
        if any(name in self._outputs for name in node.output) and node.op_type != "Constant":
            return False
        if node.op_type in _STORAGE | _RANDOM or any(True for _ in subgraphs(node)):
            return False
        if not all(name in self.constants for name in node.input if name):
            return False
        plain = node_of(node, versions=self._versions, types=self._types)
        if not is_known(plain) or self._is_turned_matrix(plain):
            return False
        given = [known_constant(self.constants[name]) if name else None for name in plain.inputs]
        if _is_too_large(plain, given):
            return False
        for name, result in zip(node.output, _run(plain, given), strict=False):
            if name:
                self.constants[name] = result
        self._types.update(_declared_types(node))
        return True

    def _is_turned_matrix(self, node: OnnxNode) -> bool:
        """Tell a transposed weight, which its layer reads as it is stored."""
        if node.op != "Transpose":
            return False
        tensor = self.constants[node.inputs[0]]
        return tensor.ndim == _MATRIX and tensor.is_floating_point()


def unknown_operators(graph: onnx.GraphProto, versions: Mapping[str, int]) -> dict[str, list[str]]:
    """Return {operator: titles of its nodes} of what cannot be run, in subgraphs too."""
    found: dict[str, list[str]] = {}
    for node in graph.node:
        plain = node_of(node, versions=versions, with_attributes=False)
        if not is_known(plain):
            name = f"{plain.domain}.{plain.op}" if plain.domain else plain.op
            found.setdefault(name, []).append(title_of(node))
        for inner in subgraphs(node):
            for name, titles in unknown_operators(inner, versions).items():
                found.setdefault(name, []).extend(titles)
    return found


def _declared_types(node: onnx.NodeProto) -> dict[str, int]:
    """Return the element type of what a node gives, where torch has none of its own for it."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to":
            return {node.output[0]: attribute.i}
        if node.op_type == "Constant" and attribute.HasField("t"):
            return {node.output[0]: attribute.t.data_type}
    return {}


def _used(nodes: list[onnx.NodeProto], *, outputs: Iterable[str]) -> list[onnx.NodeProto]:
    """Return the nodes that an output needs, in their order."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed |= names_read(node)
    return kept[::-1]


def _is_too_large(node: OnnxNode, given: Sequence[Value | None]) -> bool:
    if node.op not in _GROWING:
        return False
    with FakeTensorMode(allow_non_fake_inputs=True):
        sizes = [result.numel() for result in _run(node, given)]
    return max(sizes, default=0) > _MOST_FOLDED


def _run(node: OnnxNode, given: Sequence[Value | None]) -> list[Tensor]:
    with torch.no_grad():
        try:
            found = operator_of(node)(NodeCall(node, given))
        except ModelError:
            raise
        except Exception as error:  # torch raises whatever its operators raise
            raise ModelError(
                f"Node {node.title!r} ({node.op}) cannot run on its constants: {error}. "
                "Expected ones that it takes. Export the model again."
            ) from error
    results = [found] if isinstance(found, Tensor | Known) else list(found)
    return [as_tensor(each) for each in results if each is not None]
