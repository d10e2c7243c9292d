"""Ranges found at run time are those that ONNX describes."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from mpsearch.core.fitting import takes
from mpsearch.core.formats import Format, format_named
from mpsearch.execution.dynamic import quantise_whole
from mpsearch.testing.small_onnx import small_layers


def _standard(values: Tensor) -> np.ndarray:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["codes", "scale", "zero"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    (found,) = ReferenceEvaluator(model).run(None, {"x": values.numpy()})
    return np.asarray(found)


@pytest.mark.parametrize("shift", [-20.0, -0.3, 0.0, 0.7, 20.0])
@pytest.mark.parametrize("size", [1e-3, 1.0, 300.0])
def test_codes_are_those_of_the_standard(shift: float, size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(3, 5, 16, generator=generator) + shift) * size
    np.testing.assert_allclose(
        quantise_whole(values).numpy(), _standard(values), rtol=1e-6, atol=1e-6 * size
    )


def test_zeros_stay_zeros_and_the_ends_are_kept() -> None:
    assert not quantise_whole(torch.zeros(2, 3)).any()
    values = torch.tensor([-1.0, 0.0, 3.0])
    stored = quantise_whole(values)
    step = 4 / 255
    assert float((stored - values).abs().max()) <= step / 2 + 1e-6
    assert float(stored[1]) == 0.0


def test_the_format_is_one_of_linear_layers() -> None:
    number: Format = format_named("w8a8-dynamic")
    assert number.activation is not None
    assert number.activation.dynamic
    assert not number.activation.symmetric
    assert not number.is_static
    assert [takes(layer, number) for layer in small_layers()] == [True, False, False]
