"""How many bytes the numbers in an ONNX file take."""

import onnx
from onnx import TensorProto

_BITS: dict[int, int] = {
    TensorProto.INT4: 4, TensorProto.UINT4: 4, TensorProto.FLOAT4E2M1: 4,
    TensorProto.INT2: 2, TensorProto.UINT2: 2,
}  # fmt: skip
_BITS_PER_BYTE = 8


def weight_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of all initialisers: weights, biases, scales and zero points.

    Numbers of 4 bits are packed two to a byte, each tensor rounded up to whole bytes.

    Example:
        >>> tensor = onnx.helper.make_tensor("w", TensorProto.INT4, [3], [1, 2, 3])
        >>> graph = onnx.helper.make_graph([], "g", [], [], initializer=[tensor])
        >>> weight_bytes(onnx.helper.make_model(graph))
        2
    """
    return sum(tensor_bytes(tensor) for tensor in model.graph.initializer)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes of one tensor as it lies in the file."""
    count = 1
    for size in tensor.dims:
        count *= size
    bits = _BITS.get(tensor.data_type)
    if bits is None:
        return count * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return -(-count * bits // _BITS_PER_BYTE)
