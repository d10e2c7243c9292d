"""An older ONNX file in a newer operator set, by onnx's own converter where it can."""

import logging
from collections.abc import Mapping
from typing import Final

import onnx
from onnx import helper, version_converter
from torch import Tensor

from mpsearch.tracing.onnx_import.checks import versions_of
from mpsearch.tracing.onnx_import.graph import DEFAULT_DOMAIN
from mpsearch.tracing.onnx_import.values import MOST_KNOWN

_LOG = logging.getLogger("mpsearch.tracing")
_OPSET: Final = 21  # the first with 4-bit integers and blocked dequantisation
_IR_VERSION: Final = 10  # the first that holds them


def upgraded(
    model: onnx.ModelProto, *, weights: Mapping[str, Tensor]
) -> tuple[onnx.ModelProto, bool]:
    """Return the model in operator set 21 or newer, and whether that could be done.

    Weights stand as inputs while onnx converts, so that it copies none of them.
    """
    if versions_of(model)[DEFAULT_DOMAIN] >= _OPSET:
        return model, True
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    large = [name for name, value in weights.items() if value.numel() > MOST_KNOWN]
    _weights_as_inputs_(bare.graph, frozenset(large))
    try:
        done = version_converter.convert_version(bare, _OPSET)
    except Exception as error:  # noqa: BLE001 - the converter raises whatever its adapters raise
        _LOG.warning("onnx cannot bring the file to operator set %d: %s", _OPSET, error)
        return model, False
    done.ir_version = max(done.ir_version, _IR_VERSION)
    kept = [value for value in done.graph.input if value.name not in large]
    del done.graph.input[:]
    done.graph.input.extend(kept)
    return done, True


def _weights_as_inputs_(graph: onnx.GraphProto, large: frozenset[str]) -> None:
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if tensor.name in large and tensor.name not in given:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    small = [tensor for tensor in graph.initializer if tensor.name not in large]
    del graph.initializer[:]
    graph.initializer.extend(small)
