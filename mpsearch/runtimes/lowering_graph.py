"""An ONNX graph being lowered: who makes and reads each tensor, and what is quantised."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

import numpy as np
import onnx
from numpy import ndarray
from onnx import numpy_helper

from mpsearch.export.graph_edit import LAYER_KEY, PART_KEY, metadata

CONTRIB: Final = "com.microsoft"
_QUANTIZE: Final = "QuantizeLinear"
_DEQUANTIZE: Final = "DequantizeLinear"
_DYNAMIC: Final = "DynamicQuantizeLinear"
_WEIGHT_SLOT: Final = {"MatMul": 1, "Gemm": 1, "Conv": 1, "ConvTranspose": 1, "Gather": 0}
_BIAS_SLOT: Final = 2
_FLOAT8: Final = onnx.TensorProto.FLOAT8E4M3FN
_BITS: Final[Mapping[int, int]] = {
    onnx.TensorProto.INT8: 8, onnx.TensorProto.INT4: 4, _FLOAT8: 8,
}  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class QuantisedWeight:
    """Codes with the outputs (or rows) first, int8 whatever their bits, and scales alike.

    Floats of 8 bits are kept as float32, which holds them exactly.
    `name` is the initialiser of the codes as it lies in the file.
    """

    name: str
    codes: ndarray
    scale: ndarray
    bits: int
    group_size: int | None


@final
@dataclass(frozen=True, kw_only=True)
class QuantisedInput:
    """Names of the codes of a layer's input, their scale and zero point."""

    codes: str
    scale: str
    zero_point: str


@final
@dataclass(frozen=True, kw_only=True)
class Graph:
    """Nodes and constants of a model, changed in place; `write_` puts them back."""

    model: onnx.ModelProto
    constants: dict[str, onnx.TensorProto]
    nodes: list[onnx.NodeProto]
    outputs: frozenset[str]
    removed: set[int] = field(default_factory=set)
    made: dict[int, tuple[onnx.NodeProto, ...]] = field(default_factory=dict)

    @staticmethod
    def of(model: onnx.ModelProto) -> "Graph":
        """Return the graph of a model."""
        return Graph(
            model=model,
            constants={tensor.name: tensor for tensor in model.graph.initializer},
            nodes=list(model.graph.node),
            outputs=frozenset(value.name for value in model.graph.output),
        )

    def array(self, name: str) -> ndarray | None:
        """Return the numbers of an initialiser, None for another tensor."""
        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def constant(self, name: str, array: ndarray) -> str:
        """Add an initialiser, and return its name."""
        self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor."""
        return next((node for node in self._present() if name in node.output), None)

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor."""
        return [node for node in self._present() if name in node.input]

    def only_consumer(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor; None for several, or an output of the model."""
        found = self.consumers(name)
        return found[0] if len(found) == 1 and name not in self.outputs else None

    def replace_(self, node: onnx.NodeProto, *made: onnx.NodeProto) -> None:
        """Put nodes in a node's place; the first takes over its name and mark, others are parts."""
        for place, each in enumerate(made):
            each.name = node.name if place == 0 else f"{node.name}.{each.op_type.lower()}"
        layer = metadata(node.metadata_props)[LAYER_KEY]
        for place, each in enumerate(made):
            each.metadata_props.add(key=PART_KEY if place else LAYER_KEY, value=layer)
        self.made[id(node)] = made

    def remove_(self, node: onnx.NodeProto) -> None:
        """Take a node out."""
        self.removed.add(id(node))

    def merge_quantizers_(self) -> None:
        """Quantise a tensor once where several layers do it with the same numbers."""
        first: dict[tuple[object, ...], onnx.NodeProto] = {}
        renamed: dict[str, str] = {}
        for node in self.nodes:
            numbers = self._numbers_of_quantizer(node)
            if numbers is None:
                continue
            kept = first.setdefault((node.op_type, node.input[0], *numbers), node)
            if kept is not node:
                renamed.update(zip(node.output, kept.output, strict=True))
                self.remove_(node)
        for node in self.nodes:
            for place, name in enumerate(node.input):
                node.input[place] = renamed.get(name, name)

    def _numbers_of_quantizer(self, node: onnx.NodeProto) -> tuple[object, ...] | None:
        """Return what a quantiser's codes depend on beside its input; None for other nodes."""
        if node.op_type == _DYNAMIC:
            return ()
        if node.op_type != _QUANTIZE:
            return None
        scale, zero = self.array(node.input[1]), self.array(node.input[2])
        if scale is None or zero is None or scale.size != 1:
            return None
        return float(scale), float(zero), zero.dtype.name

    def quantised_weight(self, node: onnx.NodeProto) -> QuantisedWeight | None:
        """Return the weight of a layer's node where it is stored quantised, outputs first."""
        name, turned = node.input[_WEIGHT_SLOT[node.op_type]], False
        source = self.producer(name)
        if source is not None and source.op_type == "Transpose":
            turned, source = True, self.producer(source.input[0])
        if source is None or source.op_type != _DEQUANTIZE:
            return None
        codes, scale = self.array(source.input[0]), self.array(source.input[1])
        if codes is None or scale is None:
            return None
        facts = attributes(source)
        bits = _BITS[self.constants[source.input[0]].data_type]
        is_float = self.constants[source.input[0]].data_type == _FLOAT8
        wide = codes.astype(np.float32 if is_float else np.int8)
        if _has_inputs_first(node, turned=turned):
            wide, scale = wide.T, scale.T
        return QuantisedWeight(
            name=source.input[0],
            codes=wide,
            scale=scale,
            bits=bits,
            group_size=facts.get("block_size") or None,
        )

    def quantised_input(self, node: onnx.NodeProto) -> QuantisedInput | None:
        """Return the codes of a layer's input where it is quantised just before."""
        source = self.producer(node.input[0])
        if source is None or source.op_type != _DEQUANTIZE:
            return None
        codes, scale, zero_point = source.input
        return QuantisedInput(codes=codes, scale=scale, zero_point=zero_point)

    def plain_weight(self, node: onnx.NodeProto) -> ndarray | None:
        """Return the weight of a layer's node where it is stored as it is, outputs first."""
        name, turned = node.input[_WEIGHT_SLOT[node.op_type]], False
        source = self.producer(name)
        if source is not None and source.op_type == "Transpose":
            turned, name = True, source.input[0]
        weight = self.array(name)
        return weight.T if weight is not None and _has_inputs_first(node, turned=turned) else weight

    def is_plain_product(self, node: onnx.NodeProto, *, outputs: int) -> bool:
        """Return whether a Gemm is a product plus one number per output, as others always are."""
        if node.op_type != "Gemm":
            return True
        facts = {"alpha": 1.0, "beta": 1.0, "transA": 0} | dict(attributes(node))
        if (facts["alpha"], facts["beta"], facts["transA"]) != (1.0, 1.0, 0):
            return False
        bias = self.array(node.input[_BIAS_SLOT]) if len(node.input) > _BIAS_SLOT else None
        return len(node.input) <= _BIAS_SLOT or (bias is not None and bias.shape == (outputs,))

    def take_bias_(self, node: onnx.NodeProto, *, outputs: int) -> tuple[str, str]:
        """Return the bias to add and the tensor to make; an addition that follows is taken in."""
        if node.op_type != "MatMul":
            return (node.input[_BIAS_SLOT] if len(node.input) > _BIAS_SLOT else ""), node.output[0]
        follower = self.only_consumer(node.output[0])
        if follower is None or follower.op_type != "Add":
            return "", node.output[0]
        other = next((name for name in follower.input if name != node.output[0]), "")
        bias = self.array(other)
        if bias is None or bias.shape != (outputs,):
            return "", node.output[0]
        self.remove_(follower)
        return other, follower.output[0]

    def write_(self) -> None:
        """Put nodes and constants back into the model."""
        kept = [each for node in self._places() for each in node]
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(self.constants.values())

    def _present(self) -> list[onnx.NodeProto]:
        return [each for node in self._places() for each in node]

    def _places(self) -> list[tuple[onnx.NodeProto, ...]]:
        return [
            self.made.get(id(node), (node,)) for node in self.nodes if id(node) not in self.removed
        ]


def attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    """Return the attributes of a node by name."""
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}


def _has_inputs_first(node: onnx.NodeProto, *, turned: bool) -> bool:
    """Return whether the stored codes are (inputs, outputs)."""
    if node.op_type == "MatMul":
        return not turned
    if node.op_type == "Gemm":
        return bool(attributes(node).get("transB", 0)) == turned
    return False
