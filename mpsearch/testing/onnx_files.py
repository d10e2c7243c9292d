"""Small ONNX files for tests, written node by node."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

_IR_VERSION = 10


def onnx_model(
    nodes: Sequence[NodeProto],
    *,
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    weights: Mapping[str, np.ndarray] | None = None,
    opset: int = 21,
    kinds: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Return a model; `inputs` give shapes, `kinds` element types other than float."""
    wanted = kinds or {}
    graph = helper.make_graph(
        list(nodes),
        "small",
        [
            helper.make_tensor_value_info(name, wanted.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in inputs.items()
        ],
        [
            helper.make_tensor_value_info(name, wanted.get(name, TensorProto.FLOAT), None)
            for name in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=_IR_VERSION
    )


def small_network(*, opset: int = 21, batch: int | str = "batch") -> onnx.ModelProto:
    """Return two linear layers with a shape computed between them; the second has no name.

    Inputs `x` of (batch, 6), output `y` of (batch, 4).
    """
    generator = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "first.weight": generator.standard_normal((6, 8)).astype(np.float32),
        "first.bias": generator.standard_normal(8).astype(np.float32),
        "second.weight": generator.standard_normal((4, 8)).astype(np.float32),
        "place": np.array(0, dtype=np.int64),
        "rest": np.array([2, 4], dtype=np.int64),
        "flat": np.array([0, -1], dtype=np.int64),
        "front": np.array([0], dtype=np.int64),
    }
    unsqueezed = ["rows", "front"] if opset > 12 else ["rows"]  # noqa: PLR2004 - since 13 axes are an input
    unsqueeze = helper.make_node("Unsqueeze", unsqueezed, ["row"])
    if len(unsqueezed) == 1:
        unsqueeze.attribute.append(helper.make_attribute("axes", [0]))
    nodes = [
        helper.make_node("MatMul", ["x", "first.weight"], ["product"], name="/first/MatMul"),
        helper.make_node("Add", ["product", "first.bias"], ["hidden"], name="/first/Add"),
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "place"], ["rows"]),
        unsqueeze,
        helper.make_node("Concat", ["row", "rest"], ["sizes"], axis=0),
        helper.make_node("Reshape", ["hidden", "sizes"], ["blocks"]),
        helper.make_node("Relu", ["blocks"], ["bent"], name="/Relu"),
        helper.make_node("Reshape", ["bent", "flat"], ["rowed"]),
        helper.make_node("Gemm", ["rowed", "second.weight"], ["y"], transB=1),
    ]
    return onnx_model(nodes, inputs={"x": [batch, 6]}, outputs=["y"], weights=weights, opset=opset)


def evaluated(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    """Return the first output, as onnx's own reference computes it."""
    found = ReferenceEvaluator(model).run(None, dict(inputs))
    assert isinstance(found, list)
    return np.asarray(found[0])


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """Write the model to a file, and return its path."""
    path.write_bytes(model.SerializeToString())
    return path
