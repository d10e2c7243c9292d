"""From explicit QDQ to the operators that ONNX Runtime has kernels for.

ONNX Runtime runs a layer between Q and DQ in fp32 where its output is not quantised too. So a
linear layer of 8-bit inputs becomes MatMulIntegerToFloat, which multiplies whole numbers and
scales the sums, weights alone become MatMulNBits, and rows of 4 bits GatherBlockQuantized.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
import onnx
from numpy import ndarray
from onnx import helper

from mpsearch.export.graph_edit import LAYER_KEY, metadata, remove_unused_
from mpsearch.runtimes.lowering_graph import (
    CONTRIB,
    Graph,
    QuantisedInput,
    QuantisedWeight,
)
from mpsearch.runtimes.onnxruntime_conv import lower_convolution_

_BLOCK: Final = 128  # numbers per scale; per-row scales are repeated for each block
_SMALLEST_BLOCK: Final = 16  # of MatMulNBits and GatherBlockQuantized
_CONTRIB_VERSION: Final = 1
_NIBBLE: Final = 4


def lowered(model: onnx.ModelProto, *, accuracy_level: int) -> onnx.ModelProto:
    """Return the same computation with the layers as operators of ONNX Runtime.

    Layers keep their marks and the names of their nodes. What is not quantised stays as it
    is, and so do convolutions of which only the weights are.

    Args:
        model: A base file or an exported plan.
        accuracy_level: Of MatMulNBits: 4 quantises inputs in blocks on the fly, 0 does not.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = Graph.of(result)
    graph.merge_quantizers_()
    edit = _Edit(graph=graph, accuracy_level=accuracy_level)
    for node in graph.nodes:
        if LAYER_KEY in metadata(node.metadata_props):
            edit.lower_(node)
    graph.write_()
    remove_unused_(result)
    if all(entry.domain != CONTRIB for entry in result.opset_import):
        result.opset_import.append(helper.make_opsetid(CONTRIB, _CONTRIB_VERSION))
    return result


@final
@dataclass(frozen=True, kw_only=True)
class _Edit:
    """Replaces one marked node after the other."""

    graph: Graph
    accuracy_level: int

    def lower_(self, node: onnx.NodeProto) -> None:
        """Replace a node whose weight, or weight and input, are quantised."""
        weight = self.graph.quantised_weight(node)
        if weight is None or node.op_type == "ConvTranspose":
            return  # for which no kernel reads codes
        given = None if node.op_type == "Gather" else self.graph.quantised_input(node)
        if node.op_type == "Gather":
            self._gather_blocks_(node, weight)
        elif node.op_type == "Conv":
            lower_convolution_(self.graph, node, weight=weight, given=given)
        elif not self.graph.is_plain_product(node, outputs=len(weight.codes)):
            return  # runs in fp32 then, which the check of kernels tells
        elif given is not None:
            self._multiply_codes_(node, weight, given=given)
        else:
            self._multiply_blocks_(node, weight)

    def _multiply_codes_(
        self, node: onnx.NodeProto, weight: QuantisedWeight, *, given: QuantisedInput
    ) -> None:
        codes = self.graph.constant(f"{node.name}.codes", weight.codes.T)
        scale = self.graph.constant(f"{node.name}.scale", weight.scale.reshape(-1))
        bias, output = self.graph.take_bias_(node, outputs=len(weight.codes))
        inputs = [given.codes, codes, given.scale, scale, given.zero_point, "", bias]
        self.graph.replace_(node, _contrib("MatMulIntegerToFloat", inputs, output=output))

    def _multiply_blocks_(self, node: onnx.NodeProto, weight: QuantisedWeight) -> None:
        outputs, inputs = weight.codes.shape
        block = weight.group_size or _block_size(inputs)
        codes = _blocks(weight.codes, block=block)
        packed = self.graph.constant(f"{node.name}.packed", _packed(codes, bits=weight.bits))
        scale = self.graph.constant(
            f"{node.name}.scale", _scale_of_blocks(weight, count=codes.shape[1])
        )
        bias, output = self.graph.take_bias_(node, outputs=outputs)
        made = _contrib(
            "MatMulNBits", [node.input[0], packed, scale, "", "", bias], output=output,
            K=inputs, N=outputs, bits=weight.bits, block_size=block,
            accuracy_level=self.accuracy_level,
        )  # fmt: skip
        self.graph.replace_(node, made)

    def _gather_blocks_(self, node: onnx.NodeProto, weight: QuantisedWeight) -> None:
        block = _block_size(weight.codes.shape[1])
        count = -(-weight.codes.shape[1] // block)
        scale = self.graph.constant(f"{node.name}.scale", _scale_of_blocks(weight, count=count))
        made = _contrib(
            "GatherBlockQuantized", [weight.name, node.input[1], scale], output=node.output[0],
            bits=weight.bits, block_size=block, gather_axis=0, quantize_axis=1,
        )  # fmt: skip
        self.graph.replace_(node, made)


def _contrib(kind: str, inputs: list[str], *, output: str, **attributes: int) -> onnx.NodeProto:
    while inputs and not inputs[-1]:
        inputs = inputs[:-1]
    node = helper.make_node(kind, inputs, [output], domain=CONTRIB)
    node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
    return node


def _block_size(inputs: int) -> int:
    """Return a power of two that blocks may have: one that a short row does not much exceed."""
    return min(_BLOCK, max(_SMALLEST_BLOCK, 1 << (inputs - 1).bit_length()))


def _blocks(codes: ndarray, *, block: int) -> ndarray:
    """Return codes (outputs, blocks, block), the last block filled with zeros."""
    outputs, inputs = codes.shape
    filled = np.pad(codes, ((0, 0), (0, -inputs % block)))
    return filled.reshape(outputs, -1, block)


def _packed(codes: ndarray, *, bits: int) -> ndarray:
    """Return signed codes as bytes around the middle code, two of 4 bits to a byte."""
    shifted = (codes.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8)
    if bits != _NIBBLE:
        return shifted
    result: ndarray = shifted[..., 0::2] | (shifted[..., 1::2] << _NIBBLE)
    return result


def _scale_of_blocks(weight: QuantisedWeight, *, count: int) -> ndarray:
    scale = weight.scale.reshape(len(weight.codes), -1)
    return np.ascontiguousarray(np.broadcast_to(scale, (len(scale), count)))
