"""What each operator of ONNX is in torch: one small function each, in files by kind.

A new operator is one function and one line in the table of its file.
"""

from collections.abc import Mapping
from typing import Final

from mpsearch.tracing.onnx_import.call import Operator
from mpsearch.tracing.onnx_import.control import CONTROL
from mpsearch.tracing.onnx_import.graph import OnnxNode
from mpsearch.tracing.onnx_import.operators.attention import ATTENTION
from mpsearch.tracing.onnx_import.operators.convolution import CONVOLUTION
from mpsearch.tracing.onnx_import.operators.elementwise import ELEMENTWISE
from mpsearch.tracing.onnx_import.operators.indexing import INDEXING
from mpsearch.tracing.onnx_import.operators.matmul import MATMUL
from mpsearch.tracing.onnx_import.operators.normalisation import NORMALISATION
from mpsearch.tracing.onnx_import.operators.pooling import POOLING
from mpsearch.tracing.onnx_import.operators.quantisation import QUANTISATION
from mpsearch.tracing.onnx_import.operators.recurrent import RECURRENT
from mpsearch.tracing.onnx_import.operators.reductions import REDUCTIONS
from mpsearch.tracing.onnx_import.operators.resizing import RESIZING
from mpsearch.tracing.onnx_import.operators.shapes import SHAPES
from mpsearch.tracing.onnx_import.operators.signals import SIGNALS

OPERATORS: Final[Mapping[str, Operator]] = {
    **ELEMENTWISE,
    **SHAPES,
    **INDEXING,
    **REDUCTIONS,
    **NORMALISATION,
    **MATMUL,
    **CONVOLUTION,
    **POOLING,
    **QUANTISATION,
    **RECURRENT,
    **RESIZING,
    **SIGNALS,
    **ATTENTION,
}


def is_known(node: OnnxNode) -> bool:
    """Return whether a node's operator can be run."""
    return not node.domain and (node.op in OPERATORS or node.op in CONTROL)


def operator_of(node: OnnxNode) -> Operator:
    """Return the function of a node's operator."""
    assert is_known(node), node.op
    return OPERATORS[node.op]
