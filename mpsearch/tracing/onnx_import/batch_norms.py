"""Batch norms behind convolutions, multiplied into the convolution's weight and bias.

Every runtime does the same, and then runs a weight that is not in the file: what is measured,
quantised and deployed has to be one weight, so it is folded here, once for all of them.
"""

from collections import Counter
from typing import Final

import onnx
import torch
from torch import Tensor

from mpsearch.tracing.onnx_import.graph import names_read

_EPSILON: Final = 1e-5  # ONNX's default
_INPUTS: Final = 5


def fold_batch_norms_(graph: onnx.GraphProto, constants: dict[str, Tensor]) -> None:
    """Fold each batch norm that alone reads a convolution, in place; `constants` grow."""
    uses = Counter(name for node in graph.node for name in names_read(node))
    uses.update(output.name for output in graph.output)
    producers = {name: node for node in graph.node for name in node.output}
    done: list[onnx.NodeProto] = []
    for node in graph.node:
        conv = producers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        if (
            conv is None
            or uses[node.input[0]] != 1
            or not _can_fold(node, conv, constants=constants)
        ):
            continue
        _fold_(node, conv, constants=constants)
        done.append(node)
    for node in done:
        graph.node.remove(node)


def _can_fold(node: onnx.NodeProto, conv: onnx.NodeProto, *, constants: dict[str, Tensor]) -> bool:
    is_training = any(each.name == "training_mode" and each.i for each in node.attribute)
    if conv.op_type != "Conv" or is_training or len(list(filter(None, node.output))) != 1:
        return False
    read = [*list(node.input)[1:_INPUTS], *(name for name in list(conv.input)[1:] if name)]
    return all(name in constants and constants[name].dtype == torch.float32 for name in read)


def _fold_(node: onnx.NodeProto, conv: onnx.NodeProto, *, constants: dict[str, Tensor]) -> None:
    scale, shift, mean, variance = (
        constants[name].double() for name in list(node.input)[1:_INPUTS]
    )
    epsilon = next((each.f for each in node.attribute if each.name == "epsilon"), _EPSILON)
    gain = scale / (variance + epsilon).sqrt()
    weight = constants[conv.input[1]]
    bias = constants[conv.input[2]].double() if len(conv.input) > 2 and conv.input[2] else 0.0  # noqa: PLR2004 - the bias
    output = node.output[0]
    names = (f"{conv.input[1]}.folded.{output}", f"{output}.bias")
    shape = [-1] + [1] * (weight.ndim - 1)
    constants[names[0]] = (weight.double() * gain.reshape(shape)).float()
    constants[names[1]] = ((bias - mean) * gain + shift).float()
    kept = conv.input[0]
    del conv.input[:]
    conv.input.extend([kept, *names])
    conv.output[0] = output
