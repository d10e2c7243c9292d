"""What each operator of ONNX is in torch: one small function each, in files by kind.

A new operator is one function and one line in the table of its file.
"""

from collections.abc import Mapping
from typing import Final

from mpsearch.tracing.onnx_import.call import Operator
from mpsearch.tracing.onnx_import.graph import OnnxNode
from mpsearch.tracing.onnx_import.operators.convolution import CONVOLUTION
from mpsearch.tracing.onnx_import.operators.elementwise import ELEMENTWISE
from mpsearch.tracing.onnx_import.operators.indexing import INDEXING
from mpsearch.tracing.onnx_import.operators.matmul import MATMUL
from mpsearch.tracing.onnx_import.operators.normalisation import NORMALISATION
from mpsearch.tracing.onnx_import.operators.pooling import POOLING
from mpsearch.tracing.onnx_import.operators.reductions import REDUCTIONS
from mpsearch.tracing.onnx_import.operators.shapes import SHAPES

OPERATORS: Final[Mapping[str, Operator]] = {
    **ELEMENTWISE,
    **SHAPES,
    **INDEXING,
    **REDUCTIONS,
    **NORMALISATION,
    **MATMUL,
    **CONVOLUTION,
    **POOLING,
}
# `If` runs other nodes, so the module that runs nodes does it.
_OTHERWISE: Final = frozenset({"If"})


def is_known(node: OnnxNode) -> bool:
    """Return whether a node's operator can be run."""
    return not node.domain and (node.op in OPERATORS or node.op in _OTHERWISE)


def operator_of(node: OnnxNode) -> Operator:
    """Return the function of a node's operator."""
    assert is_known(node), node.op
    return OPERATORS[node.op]
